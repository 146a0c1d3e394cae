//! The directories that the operator lets a tool see.
//!
//! In a component a workspace `books` is the directory `/books`, and everything in `std::fs` works
//! beneath it; in a native test it is a private temporary directory of the harness. A [`Workspace`]
//! makes the same code work in both, and checks paths that a model wrote before they are used.
//!
//! Writing is staging: nothing is visible outside before the host has decided about the plan.
//! Absent on purpose: symbolic links (shown by the host, never followed) and permissions.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::host;

/// Longest name of a workspace and longest path component, in bytes: the host's bounds.
const MAX_NAME_BYTES: usize = 64;
const MAX_COMPONENT_BYTES: usize = 255;

/// Longest path, in bytes: the host's bound.
const MAX_PATH_BYTES: usize = 4096;

/// Most files that one walk lists; what has more is to be walked in parts.
const MAX_FILES: usize = 100_000;

/// Deepest path, in parts: the host's bound. It also keeps a walk from being led ever deeper.
const MAX_DEPTH: usize = 64;

/// One workspace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Workspace {
    name: String,
    root: PathBuf,
}

/// The workspace `name`, as the manifest of the tool names it.
///
/// # Errors
/// Invalid-input if it is no name of a workspace. Not-found if there is none of this name; a component
/// learns that only when it reads or writes.
pub fn workspace(name: &str) -> Result<Workspace, Error> {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let grammatical = name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'));
    if !grammatical {
        return Err(Error::invalid_input(format!(
            "`{name}` is no name of a workspace: use 1 to {MAX_NAME_BYTES} of `a-z`, `0-9`, `.`, `_`, `-`"
        )));
    }
    let root =
        host::workspace_root(name).ok_or_else(|| Error::not_found(format!("this tool has no workspace `{name}`")))?;
    Ok(Workspace { name: name.to_owned(), root })
}

impl Workspace {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its directory, for use with `std::fs`.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The path of `relative`, for use with `std::fs`.
    ///
    /// # Errors
    /// Invalid-input for what the host would refuse: an absolute path, `.` or `..`, an empty part, a
    /// slash at the end, a control character or backslash, more than 255 bytes a part, 4,096 bytes in
    /// all or 64 parts.
    pub fn path(&self, relative: &str) -> Result<PathBuf, Error> {
        match problem(relative) {
            None => Ok(self.root.join(relative)),
            Some(problem) => Err(Error::invalid_input(format!(
                "`{}` is no path in the workspace `{}`: {problem}",
                relative.escape_debug(),
                self.name
            ))),
        }
    }

    /// The content of a file.
    ///
    /// # Errors
    /// As [`Self::path`]; not-found if there is no such file; what the host answers.
    pub fn read(&self, relative: &str) -> Result<Vec<u8>, Error> {
        fs::read(self.path(relative)?).map_err(|error| self.refusal("read", relative, &error))
    }

    /// The content of a text file.
    ///
    /// # Errors
    /// As [`Self::read`]; failed if it is not UTF-8.
    pub fn read_to_string(&self, relative: &str) -> Result<String, Error> {
        fs::read_to_string(self.path(relative)?).map_err(|error| self.refusal("read", relative, &error))
    }

    /// Write a file, in place of what it held. Missing directories above it are made.
    ///
    /// # Errors
    /// As [`Self::path`]; what the host answers.
    pub fn write(&self, relative: &str, content: impl AsRef<[u8]>) -> Result<(), Error> {
        let path = self.path(relative)?;
        let written = match fs::write(&path, content.as_ref()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, content.as_ref()))
            }
            written => written,
        };
        written.map_err(|error| self.refusal("write", relative, &error))
    }

    /// Write a file that must not exist yet. Missing directories above it are made.
    ///
    /// # Errors
    /// As [`Self::write`]; conflict if it exists.
    pub fn create(&self, relative: &str, content: impl AsRef<[u8]>) -> Result<(), Error> {
        if self.exists(relative)? {
            return Err(Error::conflict(format!("`{}` exists already in the workspace `{}`", relative, self.name)));
        }
        self.write(relative, content)
    }

    /// Delete a file.
    ///
    /// # Errors
    /// As [`Self::path`]; not-found if there is no such file; what the host answers.
    pub fn remove(&self, relative: &str) -> Result<(), Error> {
        fs::remove_file(self.path(relative)?).map_err(|error| self.refusal("delete", relative, &error))
    }

    /// Whether there is a file or directory.
    ///
    /// # Errors
    /// As [`Self::path`]; what the host answers, except that it is not there.
    pub fn exists(&self, relative: &str) -> Result<bool, Error> {
        self.path(relative)?.try_exists().map_err(|error| self.refusal("look at", relative, &error))
    }

    /// The files beneath a directory at every depth, as paths relative to the workspace, sorted.
    /// An empty `under` means the whole workspace; a file is listed as itself. Symbolic links are left out.
    ///
    /// # Errors
    /// As [`Self::walk`].
    pub fn files(&self, under: &str) -> Result<Vec<String>, Error> {
        self.walk(under, |_| true)
    }

    /// As [`Self::files`], entering only the directories for which `enter` is true of their path.
    ///
    /// # Errors
    /// As [`Self::path`]; not-found if there is no such directory; failed for names that are not UTF-8,
    /// more than 100,000 files or 64 levels; what the host answers.
    pub fn walk(&self, under: &str, enter: impl Fn(&str) -> bool) -> Result<Vec<String>, Error> {
        if !under.is_empty() && self.is_file(under)? {
            return Ok(vec![under.to_owned()]);
        }
        let mut files = Vec::new();
        let mut open = vec![(under.to_owned(), 0_usize)];
        while let Some((directory, depth)) = open.pop() {
            for (path, is_directory) in self.entries(&directory)? {
                if !is_directory {
                    files.push(path);
                } else if depth + 1 >= MAX_DEPTH {
                    return Err(Error::failed(format!("`{directory}` is more than {MAX_DEPTH} directories deep")));
                } else if enter(&path) {
                    open.push((path, depth + 1));
                }
            }
            if files.len() > MAX_FILES {
                return Err(Error::failed(format!("there are more than {MAX_FILES} files in `{under}`; name a part")));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn is_file(&self, relative: &str) -> Result<bool, Error> {
        let found = fs::symlink_metadata(self.path(relative)?);
        found.map(|found| found.is_file()).map_err(|error| self.refusal("look at", relative, &error))
    }

    /// Files and directories in one directory, each with whether it is a directory.
    fn entries(&self, directory: &str) -> Result<Vec<(String, bool)>, Error> {
        let refuse = |error: io::Error| self.refusal("list", directory, &error);
        let path = if directory.is_empty() { self.root.clone() } else { self.path(directory)? };
        let mut entries = Vec::new();
        for entry in fs::read_dir(path).map_err(refuse)? {
            let entry = entry.map_err(refuse)?;
            let kind = entry.file_type().map_err(refuse)?;
            let name = entry.file_name().into_string().map_err(|name| {
                Error::failed(format!("the name `{}` in `{directory}` is not UTF-8", name.to_string_lossy()))
            })?;
            let path = if directory.is_empty() { name } else { format!("{directory}/{name}") };
            if kind.is_dir() || kind.is_file() {
                entries.push((path, kind.is_dir()));
            }
        }
        Ok(entries)
    }

    fn refusal(&self, verb: &str, relative: &str, error: &io::Error) -> Error {
        let shown = if relative.is_empty() { "." } else { relative };
        Error::from_io(&format!("cannot {verb} `{shown}` in the workspace `{}`", self.name), error)
    }
}

/// What is wrong with a path, if anything.
fn problem(relative: &str) -> Option<String> {
    if relative.len() > MAX_PATH_BYTES {
        return Some(format!("it has more than {MAX_PATH_BYTES} bytes"));
    }
    if relative.starts_with('/') {
        return Some("it must be relative".to_owned());
    }
    if relative.chars().any(|char| char.is_control() || char == '\\') {
        return Some("it has a control character or a backslash".to_owned());
    }
    if relative.split('/').count() > MAX_DEPTH {
        return Some(format!("it has more than {MAX_DEPTH} parts"));
    }
    relative.split('/').find_map(|part| match part {
        "" => Some("it is empty, or has an empty part or a slash at its end".to_owned()),
        "." | ".." => Some(format!("`{part}` is not allowed")),
        part if part.len() > MAX_COMPONENT_BYTES => Some(format!("a part has more than {MAX_COMPONENT_BYTES} bytes")),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::{problem, workspace};
    use crate::error::ErrorKind;
    use crate::testing::Harness;

    #[test]
    fn paths_that_the_host_would_refuse_are_refused_with_the_reason() {
        let longest = format!("{}/a", "a".repeat(255));
        for fine in ["a", "a/b.txt", ".hidden", "a b/ü", "..a", longest.as_str()] {
            assert_eq!(problem(fine), None, "{fine}");
        }
        let cases = [
            ("/a", "it must be relative"),
            ("a/../b", "`..` is not allowed"),
            ("./a", "`.` is not allowed"),
            ("", "it is empty, or has an empty part or a slash at its end"),
            ("a//b", "it is empty, or has an empty part or a slash at its end"),
            ("a/", "it is empty, or has an empty part or a slash at its end"),
            ("a\0b", "it has a control character or a backslash"),
            ("a\\b", "it has a control character or a backslash"),
        ];
        for (path, expected) in cases {
            assert_eq!(problem(path).as_deref(), Some(expected), "{path:?}");
        }
        assert_eq!(problem(&"a".repeat(256)).as_deref(), Some("a part has more than 255 bytes"));
        let long = format!("{}/", "a".repeat(127)).repeat(31);
        assert_eq!(problem(&format!("{long}{}", "a".repeat(128))), None);
        let longer = format!("{long}{}", "a".repeat(129));
        assert_eq!(problem(&longer).as_deref(), Some("it has more than 4096 bytes"));
        assert_eq!(problem(&format!("{}a", "a/".repeat(63))), None);
        assert_eq!(problem(&format!("{}a", "a/".repeat(64))).as_deref(), Some("it has more than 64 parts"));
    }

    #[test]
    fn names_outside_of_the_grammar_and_unknown_ones_are_refused() {
        for name in ["", "..", "Books", "a/b", &"a".repeat(65)] {
            assert_eq!(workspace(name).unwrap_err().kind(), ErrorKind::InvalidInput, "{name}");
        }
        assert_eq!(workspace("books").unwrap_err().to_string(), "not-found: this tool has no workspace `books`");
    }

    #[test]
    fn files_are_listed_sorted_and_pruned() {
        let harness = Harness::new().workspace("src", [("b/z.rs", ""), ("a.rs", ""), ("b/c/d.rs", ""), ("x/y.rs", "")]);
        harness.inside(|| {
            let src = workspace("src").unwrap();
            assert_eq!(src.files("").unwrap(), ["a.rs", "b/c/d.rs", "b/z.rs", "x/y.rs"]);
            assert_eq!(src.files("b").unwrap(), ["b/c/d.rs", "b/z.rs"]);
            assert_eq!(src.files("a.rs").unwrap(), ["a.rs"]);
            assert_eq!(src.walk("", |path| path != "b").unwrap(), ["a.rs", "x/y.rs"]);
            assert_eq!(src.files("gone").unwrap_err().kind(), ErrorKind::NotFound);
        });
    }

    #[test]
    fn a_file_is_created_once_with_its_directories_and_removed_once() {
        let harness = Harness::new().empty_workspace("notes");
        harness.inside(|| {
            let notes = workspace("notes").unwrap();
            notes.create("2026/a.md", "one").unwrap();
            assert_eq!(notes.read_to_string("2026/a.md").unwrap(), "one");
            let refused = notes.create("2026/a.md", "two").unwrap_err();
            assert_eq!(refused.to_string(), "conflict: `2026/a.md` exists already in the workspace `notes`");
            notes.remove("2026/a.md").unwrap();
            assert_eq!(notes.remove("2026/a.md").unwrap_err().kind(), ErrorKind::NotFound);
        });
    }
}
