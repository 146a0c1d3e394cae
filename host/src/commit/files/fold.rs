//! Names that one directory takes for the same: directories that ignore case, as some file systems have them.
//!
//! Two names of a plan that differ only by case would become one file there, and the second would silently stand for the
//! first. Whether a directory folds names is found out only where two names of the plan could meet, with a file of our
//! own. A name of the plan that meets one that was there before needs no such care: looking it up finds what is there, so
//! it is stale or is the file that the plan means. Nothing here knows how a file system folds; taking all letters to
//! upper and then to lower case joins at least what it joins, up to normalisation.

use std::collections::BTreeMap;

use toolkeep_core::effect::Effect;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::path::WorkspacePath;

use crate::commit::files::fault::CommitError;

/// Tells whether names in this directory, which may not be there yet, are told apart by case.
pub(super) type Folds<'a> = &'a mut dyn FnMut(&WorkspaceName, &WorkspacePath) -> Result<bool, CommitError>;

/// The names that fold alike and are there at the same time, by what they fold to.
type Present<'a> = BTreeMap<(&'a WorkspaceName, String), Vec<&'a WorkspacePath>>;

fn folded(path: &WorkspacePath) -> String {
    if path.as_str().is_ascii() {
        return path.as_str().to_ascii_lowercase();
    }
    path.as_str().chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Check that no two names that the plan needs at the same time are one name where they lie.
///
/// # Errors
/// [`CommitError::Collision`], or what `folds` answers.
pub(super) fn check(effects: &[Effect], folds: Folds<'_>) -> Result<(), CommitError> {
    let mut present = Present::new();
    for effect in effects {
        let (gone, come) = match effect {
            Effect::FileWrite { path, .. } | Effect::FileMetadata { path, .. } | Effect::DirCreate { path, .. } => {
                (None, Some(path))
            }
            Effect::FileDelete { path, .. } | Effect::DirDelete { path, .. } => (Some(path), None),
            Effect::FileRename { from, to, .. } => (Some(from), Some(to)),
            Effect::HttpRequest(_)
            | Effect::MessageSend(_)
            | Effect::KvSet { .. }
            | Effect::KvDelete { .. }
            | Effect::KvAdd { .. } => continue,
        };
        let Some(workspace) = effect.workspace() else { continue };
        if let Some(gone) = gone
            && let Some(names) = present.get_mut(&(workspace, folded(gone)))
        {
            names.retain(|name| *name != gone);
        }
        let Some(come) = come else { continue };
        let names = present.entry((workspace, folded(come))).or_default();
        for other in names.iter().filter(|name| **name != come) {
            if let Some(place) = parting(come, other)
                && folds(workspace, &place)?
            {
                return Err(CommitError::Collision {
                    workspace: workspace.clone(),
                    one: (*other).clone(),
                    other: come.clone(),
                });
            }
        }
        if !names.contains(&come) {
            names.push(come);
        }
    }
    Ok(())
}

/// The directory in which two paths part.
fn parting(one: &WorkspacePath, other: &WorkspacePath) -> Option<WorkspacePath> {
    let mut place = WorkspacePath::root();
    for (a, b) in one.components().zip(other.components()) {
        if a != b {
            return Some(place);
        }
        place = place.join(a).ok()?;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::digest::Digest;
    use toolkeep_core::effect::FileState;

    fn path(text: &str) -> WorkspacePath {
        text.parse().expect(text)
    }

    fn state() -> FileState {
        FileState { sha256: Digest::of(b""), size: 0, mode: 0o644 }
    }

    fn write(text: &str) -> Effect {
        Effect::FileWrite { workspace: "w".parse().expect("name"), path: path(text), before: None, after: state() }
    }

    fn delete(text: &str) -> Effect {
        Effect::FileDelete { workspace: "w".parse().expect("name"), path: path(text), before: state() }
    }

    fn rename(from: &str, to: &str) -> Effect {
        let workspace = "w".parse().expect("name");
        Effect::FileRename { workspace, from: path(from), to: path(to), before: state() }
    }

    /// The pair that collides and the places that were asked about, where some directories fold.
    fn collision(effects: &[Effect], folding: &[&str]) -> (Option<(String, String)>, Vec<String>) {
        let mut asked = Vec::new();
        let result = check(effects, &mut |_, place| {
            asked.push(place.to_string());
            Ok(folding.contains(&place.as_str()))
        });
        let pair = match result {
            Ok(()) => None,
            Err(CommitError::Collision { one, other, .. }) => Some((one.to_string(), other.to_string())),
            Err(other) => panic!("{other}"),
        };
        (pair, asked)
    }

    #[test]
    fn t_f8_two_names_that_a_folding_directory_takes_for_one_are_refused() {
        for (one, other) in [("A", "a"), ("dir/Read.ME", "dir/readme"), ("é", "É"), ("ſ", "s"), ("K", "\u{212a}")] {
            let same = folded(&path(one)) == folded(&path(other));
            let place = one.rsplit_once('/').map_or("", |(place, _)| place);
            let (pair, asked) = collision(&[write(one), write("between"), write(other)], &[place]);
            assert_eq!(pair, same.then(|| (one.to_owned(), other.to_owned())), "{one} {other}");
            assert_eq!(asked.len(), usize::from(same));
            assert_eq!(collision(&[write(one), write(other)], &[]).0, None, "a directory that tells them apart");
        }
        assert_ne!(folded(&path("dir/Read.ME")), folded(&path("dir/readme")), "another name altogether");
    }

    #[test]
    fn t_f8_the_place_that_counts_is_where_the_paths_part() {
        let effects = [write("a/Dir/x"), write("a/dir/x")];
        assert_eq!(collision(&effects, &["a"]).0, Some(("a/Dir/x".to_owned(), "a/dir/x".to_owned())));
        assert_eq!(collision(&effects, &["a/dir", "a/Dir", ""]), (None, vec!["a".to_owned()]));
    }

    #[test]
    fn t_f8_a_name_that_is_gone_meets_nobody() {
        assert_eq!(collision(&[rename("a", "A")], &[""]).0, None, "a change of case alone");
        assert_eq!(collision(&[delete("a"), write("A")], &[""]).0, None);
        assert_eq!(collision(&[write("a"), rename("b", "A")], &[""]).0, Some(("a".to_owned(), "A".to_owned())));
        assert_eq!(collision(&[write("a"), write("a"), write("b")], &[""]), (None, Vec::new()));
    }
}
