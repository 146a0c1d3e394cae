//! What has to come of a case: predicates over how it ended, what it returned, what it would change and what it used.
//!
//! Everything that is left out may be anything. Parts of an output that change from time to time are ignored by pointer.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::How;
use toolkeep_core::redact;
use toolkeep_core::render::subject;
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_sandbox::fault::Fault;

/// Pointers of one expectation, at most: a person writes them.
const POINTERS_MAX: usize = 200;
/// Longest beginning of a value that a problem shows, in bytes.
const SHOWN_MAX_BYTES: usize = 300;

/// What has to come of a case.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expect {
    /// How it ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<How>,
    /// The whole output.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Value>,
    /// JSON Pointers into the output that are not compared with `output`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<String>,
    /// Values at JSON Pointers into the output.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub at: BTreeMap<String, Value>,
    /// Whether it must not break one of its bounds or break down.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub no_fault: bool,
    /// A part of the text of its error or fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_contains: Option<String>,
    /// A text that must not be in its output, error or log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub never_says: Vec<String>,
    /// What it would change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effects: Option<EffectsExpect>,
    /// Attempts beyond its grants that were refused, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaches_max: Option<u64>,
    /// Fuel, at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel_max: Option<u64>,
}

/// What a case has to change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EffectsExpect {
    /// Exactly this, in order: kind and what it is about, as plans show it, for example `file.write notes/a.md`.
    Exactly(Vec<String>),
    /// The same bytes as when the case was made: the digest of all effects.
    Sha256(Option<Digest>),
    /// At most so many.
    AtMost(u64),
}

impl Expect {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), String> {
        let pointers = self.ignore.iter().chain(self.at.keys());
        if pointers.clone().count() > POINTERS_MAX {
            return Err(format!("it names more than {POINTERS_MAX} pointers"));
        }
        match pointers.into_iter().find(|pointer| !pointer.is_empty() && !pointer.starts_with('/')) {
            Some(pointer) => Err(format!("`{pointer}` is not a JSON Pointer; it begins with `/`")),
            None => Ok(()),
        }
    }

    /// That the same comes of it again, byte for byte.
    #[must_use]
    pub fn same_as(execution: &Execution) -> Self {
        let output = match &execution.ended {
            Ended::Output(output) => serde_json::from_str(output).ok(),
            Ended::Error(_) | Ended::Live(_) | Ended::Fault(_) => None,
        };
        let error_contains = match &execution.ended {
            Ended::Error(error) => Some(error.message.clone()),
            Ended::Fault(fault) => Some(fault.to_string()),
            Ended::Output(_) | Ended::Live(_) => None,
        };
        Self {
            ended: Some(execution.recording.end.how),
            output,
            error_contains,
            effects: Some(EffectsExpect::Sha256(execution.recording.end.effects)),
            ..Self::default()
        }
    }

    /// What is not as it has to be; nothing if all is.
    #[must_use]
    pub fn problems(&self, execution: &Execution, eyes: Eyes) -> Vec<String> {
        let shown = |text: &str| eyes.see(text);
        let mut problems = Vec::new();
        if let Ended::Fault(Fault::Diverged(what)) = &execution.ended {
            return vec![format!("the case does not say what it asked for: {}", shown(what))];
        }
        let end = &execution.recording.end;
        if let Some(ended) = self.ended.filter(|ended| *ended != end.how) {
            problems.push(format!(
                "it ended with {} instead of {}: {}",
                end.how.word(),
                ended.word(),
                shown(&end.shown)
            ));
        }
        if let Ended::Fault(fault) = &execution.ended
            && self.no_fault
        {
            problems.push(format!("it broke: {}", shown(&fault.to_string())));
        }
        self.about_output(execution, eyes, &mut problems);
        let said = match &execution.ended {
            Ended::Error(error) => error.message.clone(),
            Ended::Fault(fault) => fault.to_string(),
            Ended::Output(output) => output.clone(),
            Ended::Live(call) => call.url.clone(),
        };
        if let Some(part) = self.error_contains.as_ref().filter(|part| !said.contains(part.as_str())) {
            problems.push(format!("`{}` is not in what it said: {}", shown(part), shown(&said)));
        }
        for word in &self.never_says {
            if said.contains(word.as_str()) || execution.log.iter().any(|line| line.text.contains(word.as_str())) {
                problems.push(format!("it says `{}`", shown(word)));
            }
        }
        self.about_effects(execution, eyes, &mut problems);
        let breaches = execution.staged.breaches.len() as u64;
        if let Some(most) = self.breaches_max.filter(|most| breaches > *most) {
            problems.push(format!("{breaches} attempts beyond its grants; at most {most}"));
        }
        if let Some(most) = self.fuel_max.filter(|most| end.fuel > *most) {
            problems.push(format!("it used {} fuel; at most {most}", end.fuel));
        }
        problems
    }

    fn about_output(&self, execution: &Execution, eyes: Eyes, problems: &mut Vec<String>) {
        let shown = |text: &str| eyes.see(text);
        if self.output.is_none() && self.at.is_empty() {
            return;
        }
        let Ended::Output(text) = &execution.ended else {
            if self.ended.is_none() {
                problems.push("it returned no output".to_owned());
            }
            return;
        };
        let Ok(mut output) = serde_json::from_str::<Value>(text) else {
            problems.push("its output is not JSON".to_owned());
            return;
        };
        for (pointer, wanted) in &self.at {
            let found = output.pointer(pointer);
            if found != Some(wanted) {
                let found = found.map_or_else(|| "nothing".to_owned(), Value::to_string);
                problems.push(format!("at `{pointer}` is {} instead of {}", shown(&found), shown(&wanted.to_string())));
            }
        }
        if let Some(mut wanted) = self.output.clone() {
            for pointer in &self.ignore {
                forget(&mut wanted, pointer);
                forget(&mut output, pointer);
            }
            if wanted != output {
                problems.push(format!(
                    "its output is {} instead of {}",
                    shown(&output.to_string()),
                    shown(&wanted.to_string())
                ));
            }
        }
    }

    fn about_effects(&self, execution: &Execution, eyes: Eyes, problems: &mut Vec<String>) {
        let shown = |text: &str| eyes.see(text);
        let effects = &execution.staged.effects;
        let lines = || effects.iter().map(|effect| format!("{} {}", effect.kind(), subject(effect)));
        match &self.effects {
            None => {}
            Some(EffectsExpect::Exactly(wanted)) => {
                let found: Vec<String> = lines().collect();
                if found != *wanted {
                    problems.push(format!(
                        "its effects are {} instead of {}",
                        shown(&found.join("; ")),
                        shown(&wanted.join("; "))
                    ));
                }
            }
            Some(EffectsExpect::Sha256(wanted)) if execution.recording.end.effects != *wanted => {
                let found: Vec<String> = lines().take(10).collect();
                problems.push(format!("its effects are other ones: {}", shown(&found.join("; "))));
            }
            Some(EffectsExpect::AtMost(most)) if effects.len() as u64 > *most => {
                problems.push(format!("{} effects; at most {most}", effects.len()));
            }
            Some(EffectsExpect::Sha256(_) | EffectsExpect::AtMost(_)) => {}
        }
    }
}

/// What may be seen of the texts of a case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eyes {
    /// How they begin.
    Texts,
    /// Nothing: a schema or a policy hides parts of it. A digest would tell whoever can guess what a short text may be.
    Nothing,
}

impl Eyes {
    /// For a case of which a part is hidden, or nothing.
    #[must_use]
    pub const fn of(hidden: bool) -> Self {
        if hidden { Self::Nothing } else { Self::Texts }
    }

    fn see(self, text: &str) -> String {
        match self {
            Self::Texts => text.get(..text.floor_char_boundary(SHOWN_MAX_BYTES)).unwrap_or_default().to_owned(),
            Self::Nothing => redact::HIDDEN.to_owned(),
        }
    }
}

/// Put nothing in the place that a pointer names.
fn forget(value: &mut Value, pointer: &str) {
    if let Some(place) = value.pointer_mut(pointer) {
        *place = Value::Null;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::replay::sample::execution;

    fn ended(output: &str) -> Execution {
        execution(Ended::Output(output.to_owned()), (0, 10))
    }

    fn problems(expect: Value, output: &str) -> usize {
        let expect: Expect = serde_json::from_value(expect).expect("an expectation");
        expect.check().expect("a sensible one");
        expect.problems(&ended(output), Eyes::Texts).len()
    }

    #[test]
    fn r45_what_is_left_out_may_be_anything_and_what_is_said_must_hold() {
        let output = r#"{"a":1,"when":"today"}"#;
        assert_eq!(problems(json!({}), output), 0);
        assert_eq!(problems(json!({"output": {"when": "today", "a": 1}}), output), 0);
        assert_eq!(problems(json!({"output": {"when": "yesterday", "a": 1}}), output), 1);
        assert_eq!(problems(json!({"output": {"when": "yesterday", "a": 1}, "ignore": ["/when"]}), output), 0);
        assert_eq!(problems(json!({"at": {"/a": 1}}), output), 0);
        assert_eq!(problems(json!({"at": {"/a": 2, "/b": null}}), output), 2);
        assert_eq!(problems(json!({"ended": "error"}), output), 1);
        assert_eq!(problems(json!({"never_says": ["today"]}), output), 1);
        assert_eq!(problems(json!({"error_contains": "no such"}), output), 1);
        assert_eq!(problems(json!({"fuel_max": 10, "breaches_max": 0}), output), 0);
        assert_eq!(problems(json!({"fuel_max": 9}), output), 1);
        assert_eq!(problems(json!({"effects": {"exactly": []}}), output), 0);
        assert_eq!(problems(json!({"effects": {"exactly": ["file.write notes/a"]}}), output), 1);
        assert_eq!(problems(json!({"effects": {"at_most": 0}}), output), 0);
    }

    #[test]
    fn r45_the_same_again_is_what_a_case_of_a_call_expects() {
        let was = ended(r#"{"a":1}"#);
        assert!(Expect::same_as(&was).problems(&was, Eyes::Texts).is_empty());
        assert_eq!(Expect::same_as(&was).problems(&ended(r#"{"a":2}"#), Eyes::Texts).len(), 1);
    }

    #[test]
    fn r42_what_is_hidden_of_a_case_is_in_none_of_its_problems() {
        let expect = json!({"output": {"iban": "CANARY-1"}, "at": {"/iban": "CANARY-2"}, "error_contains": "CANARY-3",
            "never_says": ["CANARY-4"], "ended": "error", "no_fault": true, "effects": {"exactly": ["file.write CANARY-5"]}});
        let expect: Expect = serde_json::from_value(expect).expect("an expectation");
        let diverged = Fault::Diverged("CANARY-6".to_owned());
        for is in [
            ended(r#"{"iban": "CANARY-4"}"#),
            execution(Ended::Fault(diverged), (0, 10)),
            execution(Ended::Fault(Fault::Trap("CANARY-7".to_owned())), (0, 10)),
        ] {
            let (hidden, told) = (expect.problems(&is, Eyes::Nothing), expect.problems(&is, Eyes::Texts));
            assert_eq!(hidden.len(), told.len());
            assert!(told.iter().any(|text| text.contains("CANARY")), "{told:?}");
            assert!(hidden.iter().all(|text| !text.contains("CANARY")), "{hidden:?}");
            let digest = Digest::of(b"CANARY-1").to_hex();
            assert!(hidden.iter().all(|text| !text.contains(&digest)), "a short text is guessed from it: {hidden:?}");
        }
    }

    #[test]
    fn r45_a_pointer_that_is_none_is_refused() {
        let expect = Expect { ignore: vec!["when".to_owned()], ..Expect::default() };
        assert!(expect.check().is_err());
        let many = Expect { ignore: vec!["/a".to_owned(); POINTERS_MAX + 1], ..Expect::default() };
        assert!(many.check().is_err());
        let most = Expect { ignore: vec!["/a".to_owned(); POINTERS_MAX], ..Expect::default() };
        assert!(most.check().is_ok());
    }
}
