//! What a component asks for with its imports, in the words of manifests: which grant gives it, or that nothing does.
//!
//! An import without its grant is no reason to refuse a component: languages bring imports that their programs never use.
//! It answers then as if there were nothing behind it.

use serde_json::{Value, json};
use toolkeep_sandbox::prescreen::offers;

/// What one group of imports needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// `wasi:filesystem`.
    Files,
    /// `wasi:http`.
    Requests,
    /// `wasi:keyvalue`.
    Keys,
    /// `toolkeep:tool/messages`.
    Messages,
    /// `wasi:clocks/wall-clock`.
    Clock,
    /// `wasi:sockets`: offered to interpreters, never granted.
    Sockets,
}

/// Imports, by the beginnings of their names.
const NEEDS: [(&str, Need); 6] = [
    ("wasi:filesystem/", Need::Files),
    ("wasi:http/", Need::Requests),
    ("wasi:keyvalue/", Need::Keys),
    ("toolkeep:tool/messages@", Need::Messages),
    ("wasi:clocks/wall-clock@", Need::Clock),
    ("wasi:sockets/", Need::Sockets),
];

impl Need {
    /// What imports need, each once.
    pub(super) fn of(imports: &[String]) -> Vec<Self> {
        let asked = |prefix: &str| imports.iter().any(|import| import.starts_with(prefix) && offers(import));
        NEEDS.into_iter().filter(|(prefix, _)| asked(prefix)).map(|(_, need)| need).collect()
    }

    /// Whether a grant of it lets a tool change or send something.
    pub(super) const fn changes(&self) -> bool {
        matches!(self, Self::Files | Self::Requests | Self::Keys | Self::Messages)
    }

    /// What it is about.
    pub(super) const fn of_what(&self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Requests => "requests",
            Self::Keys => "keys",
            Self::Messages => "messages",
            Self::Clock => "the clock",
            Self::Sockets => "sockets",
        }
    }

    /// The part of a manifest that grants it; none if nothing does.
    const fn grant(self) -> Option<&'static str> {
        match self {
            Self::Files => Some("[[workspace]]"),
            Self::Requests => Some("[[http]]"),
            Self::Keys => Some("[[keys]]"),
            Self::Messages => Some("[[message]]"),
            Self::Clock => Some("clock = \"real\""),
            Self::Sockets => None,
        }
    }

    /// What it gets without the grant.
    const fn without(self) -> &'static str {
        match self {
            Self::Files => "sees no file",
            Self::Requests => "every request is refused",
            Self::Keys => "every bucket is refused",
            Self::Messages => "every message is refused",
            Self::Clock => "the clock stands still at the start of the call",
            Self::Sockets => "every socket is refused, whatever the manifest says",
        }
    }

    /// As a value.
    pub(super) fn told(self) -> Value {
        json!({"what": self.of_what(), "grant": self.grant(), "without": self.without()})
    }

    /// As a line.
    pub(super) fn line(self) -> String {
        let grant = self.grant().unwrap_or("nothing grants it");
        format!("{:<10} {grant}; without it: {}", self.of_what(), self.without())
    }

    /// As a comment in a manifest.
    pub(super) fn drafted(self) -> String {
        match self {
            Self::Sockets => String::new(),
            need => format!(
                "# It may use {}: {}; without it: {}.\n",
                need.of_what(),
                need.grant().unwrap_or_default(),
                need.without()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn imports_are_grouped_by_what_grants_them_and_others_need_nothing() {
        let imports = |names: &[&str]| Need::of(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(imports(&["wasi:io/poll@0.2.6", "wasi:cli/exit@0.2.6"]), []);
        let all = [
            "wasi:filesystem/types@0.2.6",
            "wasi:filesystem/preopens@0.2.6",
            "wasi:http/types@0.2.6",
            "wasi:keyvalue/store@0.2.0-draft2",
            "toolkeep:tool/messages@0.1.0",
            "wasi:clocks/wall-clock@0.2.6",
            "wasi:sockets/tcp@0.2.6",
        ];
        let needs = imports(&all);
        assert_eq!(needs.len(), NEEDS.len());
        assert!(needs.iter().all(|need| need.told()["grant"].is_string() == (*need != Need::Sockets)));
        assert_eq!(imports(&["wasi:http/types@0.3.0"]), [], "what is not offered is refused, and needs no grant");
    }
}
