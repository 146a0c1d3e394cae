//! Targets: path and query of a request, exactly as they are sent.
//!
//! Grants match paths by globs, so a path must mean to the server what it meant to the match. What servers resolve or
//! decode differently is refused rather than normalised: dot segments in every spelling, encoded slashes, backslashes
//! and NULs, a second slash at the start, which some take for a host.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Longest path and query together, in bytes: what RFC 9110, section 4.1 asks every server to accept.
pub const TARGET_MAX_BYTES: usize = 8_000;

/// Path and query of a request (origin-form, RFC 9112, section 3.2.1).
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Target(String);

impl Target {
    /// Path and query.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The path alone; starts with a slash.
    #[must_use]
    pub fn path(&self) -> &str {
        self.0.split_once('?').map_or(&self.0, |(path, _)| path)
    }

    /// The query alone, without its question mark; empty if there is none.
    #[must_use]
    pub fn query(&self) -> &str {
        self.0.split_once('?').map_or("", |(_, query)| query)
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = |problem| TargetError { text: text.escape_debug().take(80).collect(), problem };
        if text.len() > TARGET_MAX_BYTES {
            return Err(refuse(TargetProblem::TooLong));
        }
        if !text.starts_with('/') {
            return Err(refuse(TargetProblem::NotAPath));
        }
        if text.starts_with("//") {
            return Err(refuse(TargetProblem::TwoSlashes));
        }
        if !text.bytes().all(allowed) {
            return Err(refuse(TargetProblem::Character));
        }
        let escapes = text.split('%').skip(1);
        if escapes.into_iter().any(|rest| rest.bytes().take(2).filter(u8::is_ascii_hexdigit).count() != 2) {
            return Err(refuse(TargetProblem::Escape));
        }
        let path = text.split('?').next().unwrap_or_default().to_ascii_lowercase();
        if ["%2f", "%5c", "%00"].iter().any(|hidden| path.contains(hidden)) {
            return Err(refuse(TargetProblem::HiddenSlash));
        }
        // A parameter does not make a dot segment harmless: servers that know them cut `..;x` back to `..`.
        let plain = path.replace("%2e", ".").replace("%3b", ";");
        if plain.split('/').any(|part| matches!(part.split(';').next(), Some("." | ".."))) {
            return Err(refuse(TargetProblem::Dots));
        }
        Ok(Self(text.to_owned()))
    }
}

/// What RFC 3986 lets stand in a path or a query. Everything else is written as a percent escape.
const fn allowed(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'-' | b'.' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'='
        )
        || matches!(byte, b':' | b'@' | b'/' | b'?' | b'%')
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Target> for String {
    fn from(target: Target) -> Self {
        target.0
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({})", self.0)
    }
}

/// Why a text is not a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a path: {problem}")]
pub struct TargetError {
    /// The refused text, escaped and shortened to 80 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: TargetProblem,
}

/// What is wrong with the text of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetProblem {
    /// More than [`TARGET_MAX_BYTES`].
    #[error("it is longer than {TARGET_MAX_BYTES} bytes; send a body instead")]
    TooLong,
    /// It does not start with a slash.
    #[error("start it with `/`; scheme and host stand elsewhere")]
    NotAPath,
    /// It starts with two slashes.
    #[error("it starts with two slashes, which some servers take for a host")]
    TwoSlashes,
    /// A character that must be escaped.
    #[error("write blanks, control characters, quotes, `#`, `\\` and everything beyond ASCII as percent escapes")]
    Character,
    /// A percent sign that starts no escape.
    #[error("write two hexadecimal digits after every `%`")]
    Escape,
    /// An encoded slash, backslash or NUL.
    #[error("an encoded slash, backslash or NUL means different things to different servers")]
    HiddenSlash,
    /// A dot segment.
    #[error("write the path without `.` and `..` segments")]
    Dots,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_keeps_every_byte_and_knows_its_parts() {
        for (text, path, query) in [
            ("/", "/", ""),
            ("/a/b", "/a/b", ""),
            ("/a?b=c", "/a", "b=c"),
            ("/a?", "/a", ""),
            ("/a?b?c=/../%2f", "/a", "b?c=/../%2f"),
            ("/a//b/", "/a//b/", ""),
            ("/...", "/...", ""),
            ("/a.b/..c/;d", "/a.b/..c/;d", ""),
            ("/%C3%A9", "/%C3%A9", ""),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!((target.as_str(), target.path(), target.query()), (text, path, query));
        }
    }

    #[test]
    fn t_n6_a_target_that_servers_read_differently_is_refused() {
        use TargetProblem::{Character, Dots, Escape, HiddenSlash, NotAPath, TooLong, TwoSlashes};
        for (text, problem) in [
            ("", NotAPath),
            ("a", NotAPath),
            ("*", NotAPath),
            ("http://other/", NotAPath),
            ("?a", NotAPath),
            ("//other/a", TwoSlashes),
            ("/a b", Character),
            ("/a\r\nX: y", Character),
            ("/a\0", Character),
            ("/a#b", Character),
            ("/a\\b", Character),
            ("/é", Character),
            ("/a?b=\"", Character),
            ("/%", Escape),
            ("/%4", Escape),
            ("/%zz", Escape),
            ("/a?%", Escape),
            ("/a%2Fb", HiddenSlash),
            ("/a%5cb", HiddenSlash),
            ("/a%00", HiddenSlash),
            ("/.", Dots),
            ("/a/../b", Dots),
            ("/a/..", Dots),
            ("/a/%2e%2E/b", Dots),
            ("/a/.%2e", Dots),
            ("/a/..;x/b", Dots),
            ("/a/..%3Bx/b", Dots),
        ] {
            assert_eq!(text.parse::<Target>().expect_err(text).problem, problem, "{text}");
        }
        let longest = format!("/{}", "a".repeat(TARGET_MAX_BYTES - 1));
        assert!(longest.parse::<Target>().is_ok());
        assert_eq!(format!("{longest}a").parse::<Target>().expect_err("long").problem, TooLong);
    }
}
