//! `rename-symbol`: give an identifier another name across a source tree.
//!
//! Replaces whole words only (`cat` is not found in `concat` or `cat_food`), in every text file below a
//! directory, and gives files whose name carries the symbol the new name. It knows no programming
//! language: comments and strings are renamed as well. All files are read before the first is written;
//! if the new name is in use already, nothing is written.
//!
//! ```json
//! {"from": "old_name", "to": "new_name", "path": "src", "rename_files": true}
//! ```
//!
//! Left alone: binary files, files of more than 4 MiB, directories of version control and builds, and
//! names of directories.

mod symbol;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Error, FieldProblem, Result, Workspace, log, progress, tool, workspace};

use crate::symbol::Symbol;

/// Largest file that is read, in bytes: source files are far smaller, data files often are not.
const MAX_FILE_BYTES: usize = 4 * 1024 * 1024;

/// Changes that the output lists; the counts cover all.
const LISTED: usize = 200;

/// Files between two reports of progress.
const REPORT_EVERY: usize = 100;

/// Directories that hold no sources, by name.
const SKIPPED_DIRECTORIES: [&str; 5] = [".git", ".hg", ".svn", "node_modules", "target"];

/// What to rename, and where.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct RenameSymbolArgs {
    /// The workspace that holds the sources.
    #[serde(default = "default_workspace")]
    pub workspace: String,
    /// A directory or file; empty for the whole workspace.
    #[serde(default)]
    pub path: String,
    /// The identifier as it is: letters, digits and `_`, not starting with a digit.
    #[schemars(length(min = 1, max = 128))]
    pub from: String,
    /// The identifier as it shall be.
    #[schemars(length(min = 1, max = 128))]
    pub to: String,
    /// Rename files whose name carries the identifier as a whole word too.
    #[serde(default = "yes")]
    pub rename_files: bool,
    /// Only files with one of these extensions, without the dot; empty for all.
    #[serde(default)]
    #[schemars(length(max = 32))]
    pub extensions: Vec<String>,
    /// Rename even if the new name occurs already.
    #[serde(default)]
    pub allow_existing: bool,
}

fn default_workspace() -> String {
    "src".to_owned()
}

fn yes() -> bool {
    true
}

/// What was renamed.
#[derive(Debug, Default, Serialize, JsonSchema)]
pub struct RenameSymbolOutput {
    /// Files that were looked at.
    pub files_scanned: usize,
    /// Files whose content changed.
    pub files_edited: usize,
    /// Files that got another name.
    pub files_renamed: usize,
    /// Places that were replaced, over all files.
    pub replacements: usize,
    /// Files that were left alone because they are binary or too large.
    pub files_skipped: usize,
    /// The first 200 changed files.
    pub changes: Vec<Change>,
}

/// One changed file.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Change {
    /// Its path before.
    pub path: String,
    /// Its path after, if that is another.
    pub renamed_to: Option<String>,
    /// Places that were replaced in it.
    pub replacements: usize,
}

/// A file that will change.
struct Edit {
    change: Change,
    content: Vec<u8>,
}

/// Renames an identifier in all source files below a directory, whole words only.
///
/// When: the user wants a function, type, variable or constant to be called otherwise everywhere. Not for
/// replacing arbitrary text, and not where one name means different things in different places.
/// Side effects: edits files that hold the identifier; a file whose name carries it is written under its
/// new name and deleted under its old one.
/// Errors: invalid-input if a name is no identifier; not-found if nothing carries the old name; conflict if
/// the new name is in use already or a file of the new name exists.
#[tool(title = "Rename a symbol", effects("file.write", "file.delete"), deterministic)]
pub fn rename_symbol(args: RenameSymbolArgs) -> Result<RenameSymbolOutput> {
    let from = identifier(&args.from, "/from")?;
    let to = identifier(&args.to, "/to")?;
    if args.from == args.to {
        return Err(Error::invalid_input("the two names are the same").at("/to"));
    }
    let sources = workspace(&args.workspace)?;
    let mut output = RenameSymbolOutput::default();
    let edits = find_edits(&sources, &args, (&from, &to), &mut output)?;
    if edits.is_empty() {
        return Err(
            Error::not_found(format!("nothing in `{}` is called `{}`", shown(&args.path), args.from)).at("/from")
        );
    }
    for edit in edits {
        apply(&sources, edit, &mut output)?;
    }
    log::info(format_args!("{} replacements in {} files", output.replacements, output.files_edited));
    Ok(output)
}

fn identifier(name: &str, pointer: &str) -> Result<Symbol> {
    Symbol::parse(name).ok_or_else(|| {
        let message = format!("`{}` is no identifier", name.escape_debug());
        Error::invalid_input(message.clone()).with_field(FieldProblem {
            pointer: pointer.to_owned(),
            problem: message,
            expected: "letters, digits and `_`, not starting with a digit".to_owned(),
        })
    })
}

/// Read everything and find what has to change. Nothing is written yet.
fn find_edits(
    sources: &Workspace,
    args: &RenameSymbolArgs,
    (from, to): (&Symbol, &Symbol),
    output: &mut RenameSymbolOutput,
) -> Result<Vec<Edit>> {
    let files = sources.walk(args.path.trim_end_matches('/'), |directory| {
        !SKIPPED_DIRECTORIES.contains(&directory.rsplit('/').next().unwrap_or(directory))
    })?;
    let mut edits = Vec::new();
    for (done, path) in files.iter().enumerate().filter(|(_, path)| wanted(path, &args.extensions)) {
        if done % REPORT_EVERY == 0 {
            progress::report(u64::try_from(done).unwrap_or(u64::MAX), u64::try_from(files.len()).ok(), path);
        }
        output.files_scanned += 1;
        let bytes = sources.read(path)?;
        let Some(text) = text_of(&bytes) else {
            output.files_skipped += 1;
            continue;
        };
        if !args.allow_existing && to.occurs_in(text) {
            let message =
                format!("`{}` is in use already, in `{path}`; `allow_existing` renames all the same", args.to);
            return Err(Error::conflict(message).at("/to"));
        }
        let (content, replacements) = from.replaced(text, &args.to);
        let renamed_to = if args.rename_files { renamed(path, from, &args.to) } else { None };
        if replacements > 0 || renamed_to.is_some() {
            let change = Change { path: path.clone(), renamed_to, replacements };
            edits.push(Edit { change, content: content.into_bytes() });
        }
    }
    Ok(edits)
}

fn apply(sources: &Workspace, edit: Edit, output: &mut RenameSymbolOutput) -> Result<()> {
    let Edit { change, content } = edit;
    match &change.renamed_to {
        None => sources.write(&change.path, content)?,
        Some(target) => {
            sources.create(target, content)?;
            sources.remove(&change.path)?;
            output.files_renamed += 1;
        }
    }
    if change.replacements > 0 {
        output.files_edited += 1;
        output.replacements += change.replacements;
    }
    if output.changes.len() < LISTED {
        output.changes.push(change);
    }
    Ok(())
}

/// The text of a file, or nothing if it is binary or too large.
fn text_of(bytes: &[u8]) -> Option<&str> {
    if bytes.len() > MAX_FILE_BYTES || bytes.contains(&0) {
        return None;
    }
    std::str::from_utf8(bytes).ok()
}

fn wanted(path: &str, extensions: &[String]) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    let extension = name.rsplit_once('.').map_or("", |(_, extension)| extension);
    extensions.is_empty() || extensions.iter().any(|wanted| wanted == extension)
}

/// The path under which the file goes on, if its name carries the symbol.
fn renamed(path: &str, from: &Symbol, to: &str) -> Option<String> {
    let (directory, name) = path.rsplit_once('/').map_or(("", path), |(directory, name)| (directory, name));
    let (name, replacements) = from.replaced(name, to);
    let separator = if directory.is_empty() { "" } else { "/" };
    (replacements > 0).then(|| format!("{directory}{separator}{name}"))
}

fn shown(path: &str) -> &str {
    if path.is_empty() { "." } else { path }
}

toolkeep_sdk::export!(rename_symbol);

#[cfg(test)]
mod tests {
    use super::rename_symbol;
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::Harness;

    const BINARY: &[u8] = b"parse_row\0";

    fn sources() -> Harness {
        Harness::new()
            .workspace(
                "src",
                [
                    ("lib.rs", "mod parse_row;\nuse parse_row::parse_row;\nfn parse_rows() {}\n"),
                    ("row/parse_row.rs", "pub fn parse_row() {}\n"),
                    ("row/other.rs", "// nothing\n"),
                    ("readme.md", "`parse_row` parses a row.\n"),
                    ("target/out.rs", "parse_row"),
                ],
            )
            .workspace("bin", [("a.bin", BINARY)])
    }

    fn usual() -> Value {
        json!({"from": "parse_row", "to": "read_row"})
    }

    #[test]
    fn whole_words_are_renamed_in_contents_and_names() {
        let outcome = sources().call(rename_symbol, usual());
        assert_eq!(
            outcome.output(),
            &json!({
                "files_scanned": 4, "files_edited": 3, "files_renamed": 1, "replacements": 5,
                "files_skipped": 0,
                "changes": [
                    {"path": "lib.rs", "renamed_to": null, "replacements": 3},
                    {"path": "readme.md", "renamed_to": null, "replacements": 1},
                    {"path": "row/parse_row.rs", "renamed_to": "row/read_row.rs", "replacements": 1}
                ]
            })
        );
        assert_eq!(
            outcome.effect_list(),
            [
                "file.write src:lib.rs",
                "file.write src:readme.md",
                "file.write src:row/read_row.rs",
                "file.delete src:row/parse_row.rs"
            ]
        );
        assert_eq!(
            outcome.effect("src", "lib.rs").text(),
            "mod read_row;\nuse read_row::read_row;\nfn parse_rows() {}\n"
        );
    }

    #[test]
    fn renaming_back_restores_every_file() {
        let harness = sources();
        assert!(harness.call(rename_symbol, usual()).result.is_ok());
        assert!(harness.call(rename_symbol, json!({"from": "read_row", "to": "parse_row"})).result.is_ok());
        let fresh = sources();
        for path in ["lib.rs", "row/parse_row.rs", "readme.md"] {
            assert_eq!(harness.read("src", path), fresh.read("src", path), "{path}");
        }
        assert_eq!(harness.read("src", "row/read_row.rs"), None);
    }

    #[test]
    fn files_keep_their_names_and_other_extensions_their_content_where_asked() {
        let mut input = usual();
        input["rename_files"] = json!(false);
        input["extensions"] = json!(["rs"]);
        let outcome = sources().call(rename_symbol, input);
        assert_eq!(outcome.effect_list(), ["file.write src:lib.rs", "file.write src:row/parse_row.rs"]);
    }

    #[test]
    fn one_directory_alone_is_changed_where_asked() {
        let outcome = sources().call(rename_symbol, json!({"from": "parse_row", "to": "read_row", "path": "row/"}));
        assert_eq!(outcome.output()["files_scanned"], 2);
        assert_eq!(outcome.effects.len(), 2);
    }

    #[test]
    fn a_name_that_is_in_use_is_a_conflict_unless_allowed() {
        let mut input = json!({"from": "parse_row", "to": "parse_rows"});
        let refused = sources().call(rename_symbol, input.clone());
        assert_eq!(refused.error().kind(), ErrorKind::Conflict);
        assert!(refused.discarded.is_empty(), "{refused}");
        input["allow_existing"] = json!(true);
        assert_eq!(sources().call(rename_symbol, input).output()["replacements"], 5);
    }

    #[test]
    fn a_file_of_the_new_name_is_a_conflict_that_leaves_nothing() {
        let harness = Harness::new().workspace("src", [("a.rs", "a"), ("b.rs", "")]);
        let refused = harness.call(rename_symbol, json!({"from": "a", "to": "b"}));
        assert_eq!(refused.error().kind(), ErrorKind::Conflict);
        assert_eq!(harness.read("src", "a.rs").as_deref(), Some("a"));
    }

    #[test]
    fn binary_files_are_left_alone_and_nothing_found_is_an_error() {
        let outcome = sources().call(rename_symbol, json!({"workspace": "bin", "from": "parse_row", "to": "b"}));
        assert_eq!(outcome.error().to_string(), "not-found: nothing in `.` is called `parse_row`");
    }

    #[test]
    fn names_that_are_no_identifiers_are_refused_at_their_place() {
        for (from, to, pointer) in [("a b", "c", "/from"), ("a", "1c", "/to"), ("a", "../c", "/to"), ("a", "a", "/to")]
        {
            let outcome = sources().call(rename_symbol, json!({"from": from, "to": to}));
            assert_eq!(outcome.error().kind(), ErrorKind::InvalidInput);
            assert_eq!(outcome.error().fields().first().map(|field| field.pointer.as_str()), Some(pointer));
        }
    }
}
