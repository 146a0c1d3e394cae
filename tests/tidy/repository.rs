//! The repository as text: every file that is not built or ignored, by its path from the root.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Directories that hold no sources.
const SKIPPED: &[&str] = &["target", ".git", "node_modules", ".toolkeep", "proptest-regressions", "__pycache__"];

/// All files, as text; binary ones are empty.
pub(super) struct Repository {
    files: BTreeMap<String, String>,
}

impl Repository {
    /// The repository that these tests belong to.
    pub(super) fn open() -> Self {
        let mut files = BTreeMap::new();
        let root = Self::root();
        read(&root, &root, &mut files);
        assert!(files.contains_key("Cargo.toml"), "no Cargo.toml at {}", root.display());
        Self { files }
    }

    /// A repository of these files only.
    pub(super) fn of<'a>(files: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        Self { files: files.into_iter().map(|(path, text)| (path.to_owned(), text.to_owned())).collect() }
    }

    /// The root directory.
    pub(super) fn root() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
    }

    /// Paths and texts.
    pub(super) fn files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.iter().map(|(path, text)| (path.as_str(), text.as_str()))
    }

    /// Paths and texts of Rust sources below a directory.
    pub(super) fn rust<'r>(&'r self, below: &'r str) -> impl Iterator<Item = (&'r str, &'r str)> {
        self.files().filter(move |(path, _)| path.starts_with(below) && path.ends_with(".rs"))
    }

    /// One file's text; empty if there is none.
    pub(super) fn text(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// Whether the file exists.
    pub(super) fn has(&self, path: &str) -> bool {
        self.files.contains_key(path)
    }
}

fn read(root: &Path, directory: &Path, files: &mut BTreeMap<String, String>) {
    for entry in std::fs::read_dir(directory).expect("a readable directory") {
        let entry = entry.expect("an entry");
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a file type");
        if kind.is_dir() {
            if !SKIPPED.contains(&name.as_str()) {
                read(root, &path, files);
            }
        } else if kind.is_file() {
            let relative = path.strip_prefix(root).expect("below the root").to_string_lossy().into_owned();
            let text = std::fs::read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
            files.insert(relative, text);
        }
    }
}
