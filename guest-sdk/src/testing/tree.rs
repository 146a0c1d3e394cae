//! Directories on disk as values: written for a test, read before and after a call, compared, put back.
//!
//! Whole contents are held in memory; test data is small.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::declaration::EffectKind;
use crate::testing::Effect;

/// What is at a path: nothing for a directory, else the bytes of the file.
pub(crate) type Node = Option<Vec<u8>>;

/// Everything beneath a directory, by path relative to it.
pub(crate) type Tree = BTreeMap<String, Node>;

/// A directory of its own that goes when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Make a directory that no other test of this or another process has.
    pub(crate) fn new() -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("toolkeep-test-{}-{number}", std::process::id()));
            match fs::create_dir(&path) {
                Ok(()) => return Ok(Self { path }),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What cannot be removed lies in the system's temporary directory, where it may stay.
        drop(fs::remove_dir_all(&self.path));
    }
}

/// Write one file with the directories above it.
pub(crate) fn write(path: &Path, content: &[u8]) -> io::Result<()> {
    path.parent().map_or(Ok(()), fs::create_dir_all)?;
    fs::write(path, content)
}

/// Read everything beneath `root`. What is neither file nor directory is left out.
pub(crate) fn read(root: &Path) -> io::Result<Tree> {
    let mut tree = Tree::new();
    let mut open = vec![(root.to_owned(), String::new())];
    while let Some((directory, prefix)) = open.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                open.push((entry.path(), format!("{name}/")));
                tree.insert(name, None);
            } else if kind.is_file() {
                tree.insert(name, Some(fs::read(entry.path())?));
            }
        }
    }
    Ok(tree)
}

/// Make what is beneath `root` be `tree` again.
pub(crate) fn restore(root: &Path, tree: &Tree) -> io::Result<()> {
    fs::remove_dir_all(root)?;
    fs::create_dir_all(root)?;
    tree.iter().try_for_each(|(path, node)| match node {
        None => fs::create_dir_all(root.join(path)),
        Some(content) => write(&root.join(path), content),
    })
}

/// The effects that lead from `before` to `after`: what comes into being and what changes in order of
/// path, then what goes, deepest first.
pub(crate) fn effects(workspace: &str, before: &Tree, after: &Tree) -> Vec<Effect> {
    let effect = |kind, path: &String, old: Option<&Node>, new: Option<&Node>| Effect {
        kind,
        workspace: workspace.to_owned(),
        path: path.clone(),
        before: old.cloned().flatten(),
        after: new.cloned().flatten(),
    };
    let gone =
        before.iter().rev().filter(|(path, old)| after.get(*path).is_none_or(|new| new.is_some() != old.is_some()));
    let gone = gone.map(|(path, old)| {
        let kind = if old.is_some() { EffectKind::FileDelete } else { EffectKind::DirDelete };
        effect(kind, path, Some(old), None)
    });
    let made = after.iter().filter(|(path, new)| before.get(*path) != Some(*new)).map(|(path, new)| {
        let kind = if new.is_some() { EffectKind::FileWrite } else { EffectKind::DirCreate };
        effect(kind, path, before.get(path), Some(new))
    });
    made.chain(gone).collect()
}

#[cfg(test)]
mod tests {
    use super::{Scratch, Tree, effects, read, restore, write};

    fn tree(entries: &[(&str, Option<&str>)]) -> Tree {
        let entry =
            |(path, content): &(&str, Option<&str>)| ((*path).to_owned(), content.map(|text| text.as_bytes().to_vec()));
        entries.iter().map(entry).collect()
    }

    fn shown(before: &Tree, after: &Tree) -> Vec<String> {
        effects("w", before, after).iter().map(|effect| format!("{} {}", effect.kind, effect.path)).collect()
    }

    #[test]
    fn every_difference_is_one_effect() {
        let before = tree(&[("a", Some("1")), ("d", None), ("d/b", Some("2")), ("same", Some("3"))]);
        let after = tree(&[("a", Some("9")), ("n", None), ("n/c", Some("4")), ("same", Some("3"))]);
        assert_eq!(
            shown(&before, &after),
            ["file.write a", "dir.create n", "file.write n/c", "file.delete d/b", "dir.delete d"]
        );
        assert_eq!(shown(&after, &after), Vec::<String>::new());
    }

    #[test]
    fn a_file_that_becomes_a_directory_goes_and_comes() {
        let before = tree(&[("a", Some("1"))]);
        let after = tree(&[("a", None)]);
        assert_eq!(shown(&before, &after), ["dir.create a", "file.delete a"]);
    }

    #[test]
    fn a_tree_is_put_back_and_its_directory_goes_at_the_end() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.path().to_owned();
        write(&path.join("a/b.txt"), b"one").unwrap();
        let before = read(&path).unwrap();
        write(&path.join("a/c.txt"), b"two").unwrap();
        assert_ne!(read(&path).unwrap(), before);
        restore(&path, &before).unwrap();
        assert_eq!(read(&path).unwrap(), before);
        drop(scratch);
        assert!(!path.exists());
    }
}
