//! Obligations: what a permit demands besides allowing, written as annotations.
//!
//! `@hold("finance")`, `@approvers("2")`, `@confirm`, `@preview_only`, `@redact("/input/iban")` and `@ttl("15m")` stand on permits;
//! `@id` and `@reason` on every policy. An annotation that nobody knows is an error, because a misspelled obligation would be
//! one that is silently dropped. Several permits decide together: the strongest of each kind wins.

use std::collections::BTreeSet;

use cedar_policy::{Effect, Policy};
use serde::Serialize;
use toolkeep_core::id::NAME_MAX_BYTES;
use toolkeep_core::policy::Need;

/// Most people that one policy may ask for: more never agree in time.
pub const APPROVERS_MAX: u8 = 10;
/// Longest time that a request may be given, in milliseconds: 30 days, the longest that the daemon lets requests stand.
pub const TTL_MAX_MS: u64 = 30 * 24 * 3_600_000;
/// Longest reason, in bytes: it is shown on one line.
pub const REASON_MAX_BYTES: usize = 200;

/// What permits demand.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Obligations {
    /// How many people have to agree; 0 for none.
    pub approvers: u8,
    /// Every permit that demands consent is content with that of whoever uses the agent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub confirm: bool,
    /// Each of them belongs to all of these groups.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub groups: BTreeSet<String>,
    /// Nobody may commit it.
    pub preview_only: bool,
    /// JSON Pointers of what is hidden wherever the call is shown.
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    pub redact: BTreeSet<String>,
    /// How long a request for consent stands, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

impl Obligations {
    /// Both together: the strongest of each kind.
    #[must_use]
    pub fn and(mut self, other: &Self) -> Self {
        // A permit that demands no consent says nothing about whose is enough.
        self.confirm = match (self.approvers, other.approvers) {
            (0, _) => other.confirm,
            (_, 0) => self.confirm,
            (_, _) => self.confirm && other.confirm,
        };
        self.approvers = self.approvers.max(other.approvers);
        self.groups.extend(other.groups.iter().cloned());
        self.preview_only |= other.preview_only;
        self.redact.extend(other.redact.iter().cloned());
        self.ttl_ms = match (self.ttl_ms, other.ttl_ms) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        };
        self
    }

    /// Whose consent they demand, if they do.
    #[must_use]
    pub fn need(&self, reason: String) -> Option<Need> {
        let (approvers, groups, confirm) = (self.approvers, self.groups.clone(), self.confirm);
        (approvers > 0).then_some(Need { approvers, groups, ttl_ms: self.ttl_ms, reason, person: false, confirm })
    }
}

/// What the annotations of one policy say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Notes {
    /// What people call it.
    pub id: Option<String>,
    /// Why it exists, for whoever it stops.
    pub reason: Option<String>,
    /// What it demands.
    pub obligations: Obligations,
}

impl Notes {
    /// Read the annotations of a policy.
    ///
    /// # Errors
    /// One is unknown, has a value that makes no sense, or stands on a `forbid`.
    pub fn of(policy: &Policy) -> Result<Self, String> {
        let mut notes = Self::default();
        let mut named = BTreeSet::new();
        for (name, value) in policy.annotations() {
            notes.add(name, value)?;
            named.insert(name);
        }
        let obligations = &notes.obligations;
        if policy.effect() == Effect::Forbid && *obligations != Obligations::default() {
            return Err("obligations stand on a `permit`: a `forbid` allows nothing that could be demanded for".into());
        }
        if obligations.confirm && (obligations.approvers > 1 || named.contains("hold")) {
            return Err(
                "`@confirm` asks whoever uses the agent, `@hold` and `@approvers` ask operators: write one".into()
            );
        }
        if obligations.ttl_ms.is_some() && obligations.approvers == 0 {
            return Err("`@ttl` says how long a request stands: write `@hold` beside it".into());
        }
        Ok(notes)
    }

    fn add(&mut self, name: &str, value: &str) -> Result<(), String> {
        let own = &mut self.obligations;
        match name {
            "id" if is_word(value) => self.id = Some(value.to_owned()),
            "id" => return Err(form("id", "1 to 64 characters of a-z, 0-9, `.`, `_` and `-`")),
            "reason" if is_line(value) => self.reason = Some(value.to_owned()),
            "reason" => return Err(form("reason", "one line of at most 200 bytes")),
            "hold" => {
                own.approvers = own.approvers.max(1);
                match value {
                    "" => {}
                    group if is_word(group) => {
                        own.groups.insert(group.to_owned());
                    }
                    _ => return Err(form("hold", "the name of one group, or nothing for anybody")),
                }
            }
            "approvers" => match value.parse::<u8>() {
                Ok(count) if (1..=APPROVERS_MAX).contains(&count) => own.approvers = own.approvers.max(count),
                _ => return Err(form("approvers", "a number from 1 to 10")),
            },
            "confirm" if value.is_empty() => {
                own.approvers = own.approvers.max(1);
                own.confirm = true;
            }
            "confirm" => return Err(form("confirm", "nothing")),
            "preview_only" if value.is_empty() => own.preview_only = true,
            "preview_only" => return Err(form("preview_only", "nothing")),
            "redact" => {
                let pointers: Vec<&str> = value.split_ascii_whitespace().collect();
                if pointers.is_empty() || pointers.iter().any(|pointer| !pointer.starts_with('/')) {
                    return Err(form("redact", "JSON Pointers, separated by spaces"));
                }
                own.redact.extend(pointers.into_iter().map(str::to_owned));
            }
            "ttl" => match duration_ms(value) {
                Some(ttl) => own.ttl_ms = Some(ttl),
                None => return Err(form("ttl", "a number and `s`, `m`, `h` or `d`, at most `30d`")),
            },
            other => {
                return Err(format!(
                    "`@{other}` is not known; use @id, @reason, @hold, @approvers, @confirm, @preview_only, \
                     @redact or @ttl"
                ));
            }
        }
        Ok(())
    }
}

fn form(name: &str, wanted: &str) -> String {
    format!("`@{name}` takes {wanted}")
}

/// Whether the text is a name as people give them to policies and groups.
pub(crate) fn is_word(text: &str) -> bool {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_MAX_BYTES).contains(&text.len()) && text.bytes().all(fine)
}

fn is_line(text: &str) -> bool {
    (1..=REASON_MAX_BYTES).contains(&text.len()) && !text.chars().any(char::is_control)
}

/// `15m`, in milliseconds.
fn duration_ms(text: &str) -> Option<u64> {
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    let count = text.strip_suffix(unit)?;
    if count.is_empty() || !count.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let ms = count.parse::<u64>().ok()?.checked_mul(seconds)?.checked_mul(1_000)?;
    (1..=TTL_MAX_MS).contains(&ms).then_some(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notes(annotations: &str, effect: &str) -> Result<Notes, String> {
        let text = format!("{annotations} {effect}(principal, action, resource);");
        Notes::of(&Policy::parse(None, text).expect("a policy"))
    }

    #[test]
    fn r17_annotations_are_obligations_and_nothing_is_dropped_silently() {
        let all = "@id(\"x\") @reason(\"why\") @hold(\"finance\") @approvers(\"2\") @redact(\"/a /b\") @ttl(\"15m\")";
        let read = notes(all, "permit").expect("notes");
        assert_eq!((read.id.as_deref(), read.reason.as_deref()), (Some("x"), Some("why")));
        let own = read.obligations;
        assert_eq!((own.approvers, own.ttl_ms, own.redact.len(), own.preview_only), (2, Some(900_000), 2, false));
        assert_eq!(own.groups, BTreeSet::from(["finance".to_owned()]));
        assert!(notes("@preview_only", "permit").expect("notes").obligations.preview_only);
        assert_eq!(notes("@hold", "permit").expect("notes").obligations.approvers, 1);
        for wrong in [
            "@aprovers(\"2\")",
            "@approvers(\"0\")",
            "@approvers(\"11\")",
            "@approvers",
            "@hold(\"A group\")",
            "@preview_only(\"yes\")",
            "@confirm(\"yes\")",
            "@confirm @hold",
            "@hold(\"finance\") @confirm",
            "@confirm @approvers(\"2\")",
            "@redact",
            "@redact(\"a\")",
            "@ttl(\"15m\")",
            "@hold @ttl(\"0m\")",
            "@hold @ttl(\"31d\")",
            "@hold @ttl(\"m\")",
            "@hold @ttl(\"+1m\")",
            "@id(\"\")",
            "@reason(\"two\\nlines\")",
        ] {
            assert!(notes(wrong, "permit").is_err(), "{wrong}");
        }
        assert!(notes("@hold @ttl(\"30d\")", "permit").is_ok() && notes("@approvers(\"10\")", "permit").is_ok());
        assert!(notes("@hold", "forbid").is_err() && notes("@id(\"x\") @reason(\"y\")", "forbid").is_ok());
    }

    #[test]
    fn r24_a_confirmation_is_enough_where_nobody_demands_more() {
        let of = |text: &str| notes(text, "permit").expect("notes").obligations;
        let confirm = of("@confirm @ttl(\"5m\")");
        assert_eq!((confirm.approvers, confirm.confirm), (1, true));
        for (other, expected) in
            [("@confirm", true), ("@redact(\"/a\")", true), ("@hold", false), ("@approvers(\"2\")", false)]
        {
            let other = of(other);
            let both = confirm.clone().and(&other);
            assert_eq!(both, other.and(&confirm), "in either order");
            assert_eq!(both.need("r".into()).map(|need| need.confirm), Some(expected));
        }
    }

    #[test]
    fn r17_the_strongest_obligation_of_each_kind_wins() {
        let of = |text: &str| notes(text, "permit").expect("notes").obligations;
        let one = of("@hold(\"finance\") @ttl(\"1h\") @redact(\"/a\")");
        let two = of("@approvers(\"2\") @ttl(\"5m\") @preview_only @redact(\"/b\")");
        let both = one.clone().and(&two);
        assert_eq!(both, two.and(&one), "in either order");
        assert_eq!((both.approvers, both.ttl_ms, both.preview_only, both.redact.len()), (2, Some(300_000), true, 2));
        assert_eq!(Obligations::default().need("x".into()), None);
        let need = both.need("x".into()).expect("a need");
        assert_eq!((need.approvers, need.groups.len(), need.ttl_ms), (2, 1, Some(300_000)));
    }
}
