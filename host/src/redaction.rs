//! What of a call is shown to eyes: its input and output, with every part hidden that a policy or a schema says (D19).
//!
//! One place, used by the console, the command line, exports and incidents. A hidden part is replaced by a word with a short
//! digest under a key of this ledger: equal values are recognised, and nobody who sees one can guess at it. Where an
//! output cannot be taken apart (it was cut, or stands between delimiters that cannot be found again) and a part of it
//! is to be hidden, all of it is.

use std::collections::BTreeSet;

use hmac::{Hmac, Mac as _};
use serde_json::{Value, json};
use sha2::Sha256;
use toolkeep_core::hex;
use toolkeep_core::redact::{self, MARK_DIGITS};

use crate::ledger::{EXPIRED, SEALED};
use crate::vault::KEY_BYTES;

/// What is shown of a call.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Its input.
    pub input: Value,
    /// What its tool returned; `null` for nothing.
    pub output: Value,
    /// Whether anything is hidden in either.
    pub hidden: bool,
}

/// Hides parts of calls. The key stays with the ledger.
#[derive(Clone)]
pub struct Redaction {
    key: [u8; KEY_BYTES],
}

impl std::fmt::Debug for Redaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Redaction").finish_non_exhaustive()
    }
}

impl Redaction {
    /// With the secret of a ledger.
    #[must_use]
    pub const fn new(key: [u8; KEY_BYTES]) -> Self {
        Self { key }
    }

    /// The word for a hidden value.
    #[must_use]
    pub fn word(&self, value: &Value) -> String {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return redact::HIDDEN.to_owned() };
        mac.update(value.to_string().as_bytes());
        let digest = hex::text(&mac.finalize().into_bytes());
        format!("[redacted:{}]", digest.chars().take(MARK_DIGITS).collect::<String>())
    }

    /// The input of a call, JSON text as it is stored, without what `pointers` name.
    #[must_use]
    pub fn input(&self, text: &str, pointers: &BTreeSet<String>) -> (Value, bool) {
        if text == SEALED || text == EXPIRED {
            return (Value::String(text.trim_matches('"').to_owned()), false);
        }
        let mut input: Value = serde_json::from_str(text).unwrap_or_default();
        let hidden = redact::hide_under_as(&mut input, "/input", pointers, &|value| self.word(value));
        (input, hidden)
    }

    /// An output as a reply has it, without what `pointers` name.
    #[must_use]
    pub fn output(&self, output: &Value, pointers: &BTreeSet<String>) -> (Value, bool) {
        let wanted = pointers.iter().any(|pointer| pointer.strip_prefix("/output").is_some_and(starts));
        if !wanted {
            return (output.clone(), false);
        }
        let mark = |value: &Value| self.word(value);
        if output.pointer("/spilled/read_with").is_some() {
            // Its head may be a part that is hidden; its digest and size stay.
            let (bytes, digest) = (output.pointer("/spilled/bytes"), output.pointer("/spilled/sha256"));
            let head = output.pointer("/spilled/head").map(&mark);
            return (json!({"spilled": {"bytes": bytes, "sha256": digest, "head": head}}), true);
        }
        if let Value::String(text) = output {
            let inner = delimited(text).and_then(|inner| serde_json::from_str::<Value>(inner).ok());
            return match inner.filter(|inner| !inner.is_string()) {
                Some(inner) => self.output(&inner, pointers),
                None => (Value::String(self.word(output)), true),
            };
        }
        let mut output = output.clone();
        let hidden = redact::hide_under_as(&mut output, "/output", pointers, &mark);
        (output, hidden)
    }

    /// What is shown of a call: of its stored input and reply, without what `pointers` name.
    #[must_use]
    pub fn shown(&self, input: &str, reply: &str, pointers: &BTreeSet<String>) -> Shown {
        let reply: Value = serde_json::from_str(reply).unwrap_or_default();
        let (input, in_input) = self.input(input, pointers);
        let (output, in_output) = self.output(reply.get("output").unwrap_or(&Value::Null), pointers);
        Shown { input, output, hidden: in_input || in_output }
    }
}

fn starts(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// What stands between the delimiters of an untrusted output.
fn delimited(text: &str) -> Option<&str> {
    let inner = text.strip_prefix("<<<untrusted ")?.split_once(">>>\n")?.1;
    Some(inner.rsplit_once("\n<<<end ")?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointers(list: &[&str]) -> BTreeSet<String> {
        list.iter().map(|pointer| (*pointer).to_owned()).collect()
    }

    #[test]
    fn r42_equal_values_are_recognised_under_one_key_and_not_under_another() {
        let (one, other) = (Redaction::new([1; KEY_BYTES]), Redaction::new([2; KEY_BYTES]));
        assert_eq!(one.word(&json!("DE00")), one.word(&json!("DE00")));
        assert_ne!(one.word(&json!("DE00")), one.word(&json!("DE01")));
        assert_ne!(one.word(&json!("DE00")), other.word(&json!("DE00")));
        assert_ne!(one.word(&json!("1")), one.word(&json!(1)));
        assert!(redact::is_hidden(&Value::String(one.word(&json!({"a": [1]})))));
        assert!(!format!("{one:?}").contains('1'));
    }

    #[test]
    fn r42_what_is_shown_has_no_hidden_part_in_whatever_form_the_output_left() {
        let redaction = Redaction::new([1; KEY_BYTES]);
        let hide = pointers(&["/input/iban", "/output/people/*/name"]);
        let shown = redaction.shown(
            r#"{"iban":"CANARY","sum":1}"#,
            r#"{"output":{"people":[{"name":"CANARY","age":3}]}}"#,
            &hide,
        );
        assert_eq!((shown.input["sum"].clone(), shown.output["people"][0]["age"].clone()), (json!(1), json!(3)));
        assert!(shown.hidden && !format!("{shown:?}").contains("CANARY"));
        assert_eq!(shown.input["iban"], shown.output["people"][0]["name"], "the same value");
        let forms = [
            json!("<<<untrusted 0a>>>\n{\"people\":[{\"name\":\"CANARY\"}]}\n<<<end 0a>>>"),
            json!("<<<untrusted 0a>>>\nCANARY\n<<<end 0a>>>"),
            json!({"spilled": {"bytes": 9, "sha256": "00", "head": "{\"people\":[{\"name\":\"CANARY",
                "read_with": "calls.output"}}),
            json!("<<<untrusted 0a>>>\n{\"spilled\":{\"head\":\"CANARY\",\"read_with\":\"x\"}}\n<<<end 0a>>>"),
            json!("CANARY"),
        ];
        for form in forms {
            let (output, hidden) = redaction.output(&form, &hide);
            assert!(hidden && !output.to_string().contains("CANARY"), "{output}");
            assert_eq!(redaction.output(&form, &pointers(&["/input"])), (form, false));
        }
        for (stored, word) in [(SEALED, "[sealed]"), (EXPIRED, "[expired]")] {
            assert_eq!(redaction.input(stored, &hide), (json!(word), false));
        }
        assert_eq!(redaction.shown("null", "null", &hide).output, Value::Null);
    }
}
