//! Policy files: where they lie, how much of them is read, and where in them something is wrong.
//!
//! `*.cedar` in the directory apply to everybody; `<tenant>/*.cedar` apply to the callers of that tenant only. Everything is
//! bounded before it is parsed, nesting included, because a parser recurses. Names that start with a dot are skipped: editors
//! and configuration mounts leave them. Nothing here knows what a policy means.

use std::io::Read as _;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TenantName;

/// Largest policy file, in bytes: a few hundred policies.
pub const FILE_MAX_BYTES: usize = 256 * 1024;
/// Most files of one set.
pub const FILES_MAX: usize = 1_000;
/// Most bytes of one set: it must fit a request that asks what it would change.
pub const SET_MAX_BYTES: usize = 3 * 1024 * 1024;
/// Deepest nesting of brackets: people write a handful.
pub const NESTING_MAX: usize = 64;
/// What the version of this form of contexts and entities is called in digests.
const DIGEST_DOMAIN: &str = "toolkeep.policy.v1";
/// The end of the names of policy files.
const SUFFIX: &str = "cedar";

/// One policy file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Source {
    /// Its name beneath the directory: `refunds.cedar` or `acme/refunds.cedar`.
    pub name: Arc<str>,
    /// The tenant whose callers it applies to; everybody's without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantName>,
    /// What it says.
    pub text: Arc<str>,
}

/// Something that is wrong with a set, or that looks wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, beneath the directory.
    pub file: Arc<str>,
    /// The line, from 1; 0 where it is about the whole file.
    pub line: usize,
    /// The column, from 1; 0 where it is about the whole line.
    pub column: usize,
    /// Whether the set can be used nevertheless.
    pub warning: bool,
    /// What is wrong and what to do.
    pub message: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.file)?;
        for place in [self.line, self.column].into_iter().take_while(|place| *place > 0) {
            write!(f, ":{place}")?;
        }
        write!(f, ": {}{}", if self.warning { "warning: " } else { "" }, self.message)
    }
}

impl Source {
    /// The source of this name; its folder, if it has one, is its tenant.
    ///
    /// # Errors
    /// The name is not `file.cedar` or `tenant/file.cedar`.
    pub fn named(name: &str, text: impl Into<Arc<str>>) -> Result<Self, Finding> {
        let wrong = |message: &str| Finding::whole(name, message);
        let (folder, file) = name.rsplit_once('/').map_or((None, name), |(folder, file)| (Some(folder), file));
        if Path::new(file).extension().is_none_or(|extension| extension != SUFFIX) {
            return Err(wrong("is not the name of a policy file: write `name.cedar` or `tenant/name.cedar`"));
        }
        let tenant = match folder.map(str::parse) {
            None => None,
            Some(Ok(tenant)) => Some(tenant),
            Some(Err(_)) => return Err(wrong("lies in a folder that is not the name of a tenant")),
        };
        Ok(Self { name: name.into(), tenant, text: text.into() })
    }

    /// A finding at a byte of the text.
    #[must_use]
    pub fn at(&self, byte: usize, message: impl Into<String>) -> Finding {
        let before = self.text.get(..byte).unwrap_or(&self.text);
        let line_start = before.rfind('\n').map_or(0, |at| at + 1);
        Finding {
            file: Arc::clone(&self.name),
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).map_or(0, |text| text.chars().count()) + 1,
            warning: false,
            message: message.into(),
        }
    }

    /// What can be refused before it is parsed.
    ///
    /// # Errors
    /// The file is too large or too deeply nested.
    pub fn check(&self) -> Result<(), Finding> {
        if self.text.len() > FILE_MAX_BYTES {
            return Err(Finding::whole(&self.name, format!("is larger than {FILE_MAX_BYTES} bytes; split it")));
        }
        match too_deep(&self.text) {
            Some(byte) => Err(self.at(byte, format!("brackets are nested more than {NESTING_MAX} deep"))),
            None => Ok(()),
        }
    }
}

impl Finding {
    /// A finding about a whole file.
    #[must_use]
    pub fn whole(file: &str, message: impl Into<String>) -> Self {
        Self { file: file.into(), line: 0, column: 0, warning: false, message: message.into() }
    }
}

/// Where brackets are nested too deeply. Texts and comments hold none.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut quoted, mut comment, mut escaped, mut slash) = (0_usize, false, false, false, false);
    for (at, byte) in text.bytes().enumerate() {
        let was_slash = std::mem::take(&mut slash);
        if comment {
            comment = byte != b'\n';
        } else if quoted {
            (quoted, escaped) = if escaped { (true, false) } else { (byte != b'"', byte == b'\\') };
        } else {
            match byte {
                b'"' => quoted = true,
                b'/' if was_slash => comment = true,
                b'/' => slash = true,
                b'(' | b'[' | b'{' => depth += 1,
                b')' | b']' | b'}' => depth = depth.saturating_sub(1),
                _ => {}
            }
        }
        if depth > NESTING_MAX {
            return Some(at);
        }
    }
    None
}

/// Names the policies that apply to a tenant: sorted names and contents.
#[must_use]
pub fn digest<'a>(sources: impl Iterator<Item = &'a Source>) -> Digest {
    let mut sorted: Vec<&Source> = sources.collect();
    sorted.sort_unstable_by(|one, two| one.name.cmp(&two.name));
    let parts: Vec<&[u8]> = sorted.iter().flat_map(|source| [source.name.as_bytes(), source.text.as_bytes()]).collect();
    Digest::of_parts(DIGEST_DOMAIN, &parts)
}

/// Read every policy file of a directory.
///
/// # Errors
/// All that is wrong with it: a file that cannot be read, is too large or is not UTF-8, or a folder that names no tenant.
pub fn read(directory: &Path) -> Result<Vec<Source>, Vec<Finding>> {
    let mut names = Vec::new();
    let mut wrong = Vec::new();
    list(directory, "", &mut names, &mut wrong);
    names.sort();
    if names.len() > FILES_MAX {
        return Err(vec![Finding::whole(".", format!("holds {} files; at most {FILES_MAX}", names.len()))]);
    }
    let mut sources = Vec::new();
    let mut bytes = 0;
    for name in &names {
        match read_one(directory, name) {
            Ok(source) => {
                bytes += source.text.len();
                sources.push(source);
            }
            Err(finding) => wrong.push(finding),
        }
        if bytes > SET_MAX_BYTES {
            wrong.push(Finding::whole(".", format!("holds more than {SET_MAX_BYTES} bytes of policies")));
            break;
        }
    }
    if names.is_empty() && wrong.is_empty() {
        wrong.push(Finding::whole(".", "holds no `*.cedar` file, so nobody could do anything; write a policy first"));
    }
    if wrong.is_empty() { Ok(sources) } else { Err(wrong) }
}

/// The names of policy files in a folder; with those of its folders, at the top.
fn list(folder: &Path, prefix: &str, names: &mut Vec<String>, wrong: &mut Vec<Finding>) {
    let own = if prefix.is_empty() { "." } else { prefix };
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) => return wrong.push(Finding::whole(own, format!("cannot be read: {error}"))),
    };
    for entry in entries.take(FILES_MAX + 1).filter_map(Result::ok) {
        let file_name = entry.file_name();
        let Some(name) = file_name.to_str().filter(|name| !name.starts_with('.')) else { continue };
        let is_folder = entry.path().is_dir();
        if is_folder && prefix.is_empty() {
            match name.parse::<TenantName>() {
                Ok(_) => list(&entry.path(), &format!("{name}/"), names, wrong),
                Err(_) => wrong.push(Finding::whole(name, "is a folder, but not named like a tenant")),
            }
        } else if !is_folder && Path::new(name).extension().is_some_and(|extension| extension == SUFFIX) {
            names.push(format!("{prefix}{name}"));
        }
    }
}

fn read_one(directory: &Path, name: &str) -> Result<Source, Finding> {
    let unreadable = |error: std::io::Error| Finding::whole(name, format!("cannot be read: {error}"));
    let file = std::fs::File::open(directory.join(name)).map_err(unreadable)?;
    let mut bytes = Vec::new();
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > FILE_MAX_BYTES {
        return Err(Finding::whole(name, format!("is larger than {FILE_MAX_BYTES} bytes; split it")));
    }
    match String::from_utf8(bytes) {
        Ok(text) => Source::named(name, text),
        Err(error) => {
            let valid = error.utf8_error().valid_up_to();
            let whole = String::from_utf8_lossy(error.as_bytes()).into_owned();
            Err(Source::named(name, whole)?.at(valid, "is not UTF-8"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_files_or_files_of_tenants() {
        let tenant = |name: &str| Source::named(name, "").map(|source| source.tenant.map(|tenant| tenant.to_string()));
        assert_eq!(tenant("a.cedar"), Ok(None));
        assert_eq!(tenant("acme/a.cedar"), Ok(Some("acme".to_owned())));
        for wrong in ["a", "a.txt", "Acme/a.cedar", "acme/deep/a.cedar", "../a.cedar", "/a.cedar", "acme/"] {
            assert!(Source::named(wrong, "").is_err(), "{wrong}");
        }
    }

    #[test]
    fn nesting_is_counted_outside_of_texts_and_comments_up_to_the_bound() {
        let deep = |n: usize| Source::named("a.cedar", "(".repeat(n)).expect("a name").check().is_ok();
        assert!(deep(NESTING_MAX) && !deep(NESTING_MAX + 1));
        let hidden = format!("\"{0}\\\"{0}\" // {0}\n {1}", "(".repeat(NESTING_MAX), "[".repeat(NESTING_MAX));
        assert!(Source::named("a.cedar", hidden).expect("a name").check().is_ok());
        let large = |n: usize| Source::named("a.cedar", " ".repeat(n)).expect("a name").check().is_ok();
        assert!(large(FILE_MAX_BYTES) && !large(FILE_MAX_BYTES + 1));
    }

    #[test]
    fn a_place_is_told_as_people_count_and_digests_depend_on_every_byte_of_names_and_texts() {
        let source = Source::named("a.cedar", "one\nzw\u{f6}lf x").expect("a name");
        let place = |byte| {
            let at = source.at(byte, "m");
            (at.line, at.column)
        };
        assert_eq!((place(0), place(4), place(10), place(999)), ((1, 1), (2, 1), (2, 6), (2, 8)));
        assert_eq!(source.at(10, "m").to_string(), "a.cedar:2:6: m");
        let of = |files: &[(&str, &str)]| {
            let files: Vec<_> = files.iter().map(|(name, text)| Source::named(name, *text).expect("a name")).collect();
            digest(files.iter())
        };
        assert_eq!(of(&[("a.cedar", "x"), ("b.cedar", "y")]), of(&[("b.cedar", "y"), ("a.cedar", "x")]));
        assert_ne!(of(&[("a.cedar", "x")]), of(&[("b.cedar", "x")]));
        assert_ne!(of(&[("a.cedar", "x")]), of(&[("a.cedar", "x "),]));
        assert_ne!(of(&[("a.cedar", "xb.cedar"), ("c.cedar", "")]), of(&[("a.cedar", "x"), ("b.cedar", "c.cedar")]));
    }
}
