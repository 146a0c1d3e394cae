//! What a back-test came to: which calls change, in what, with the first examples.
//!
//! Everything in a report is bounded. What a schema or a policy hides of a call is told by its digest alone.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::id::{CallId, ToolName};
use toolkeep_core::render::subject as shown_effect;
use toolkeep_sandbox::execution::{Ended, Execution};

use crate::host::replays::ending;

/// Changed calls that the report shows.
const EXAMPLES_MAX: usize = 20;
/// Reasons that the report counts one by one.
const REASONS_MAX: usize = 20;
/// Longest beginning of an output that the report shows, in bytes.
const SHOWN_MAX_BYTES: usize = 400;
/// Effects that the report shows of one call.
const EFFECTS_SHOWN: usize = 10;

/// What one call came to.
pub(super) enum Compared {
    Same,
    Changed(Vec<Change>),
    NotComparable(String),
}

/// One difference.
pub(super) struct Change {
    pub(super) what: &'static str,
    pub(super) before: Value,
    pub(super) after: Value,
}

/// The report, while it is made.
#[derive(Default)]
pub(super) struct Report {
    compared: u64,
    same: u64,
    changed: u64,
    not_comparable: u64,
    by: BTreeMap<&'static str, u64>,
    reasons: BTreeMap<String, u64>,
    examples: Vec<Value>,
    pub(super) fuel: [u64; 2],
}

impl Report {
    pub(super) fn take(&mut self, (call, tool): (CallId, &ToolName), compared: Compared) {
        match compared {
            Compared::Same => (self.compared, self.same) = (self.compared + 1, self.same + 1),
            Compared::NotComparable(why) => {
                self.not_comparable += 1;
                if self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&why) {
                    *self.reasons.entry(why).or_default() += 1;
                }
            }
            Compared::Changed(changes) => {
                (self.compared, self.changed) = (self.compared + 1, self.changed + 1);
                for change in &changes {
                    *self.by.entry(change.what).or_default() += 1;
                }
                if self.examples.len() < EXAMPLES_MAX {
                    let changes: Vec<Value> = changes
                        .into_iter()
                        .map(|change| json!({"what": change.what, "before": change.before, "after": change.after}))
                        .collect();
                    self.examples.push(json!({"call_id": call, "tool": tool, "changes": changes}));
                }
            }
        }
    }

    /// `cancelled`: it was ended before it was through. `cut`: older calls were not looked for although fewer were found than
    /// were asked for, because so many others lie between them.
    pub(super) fn view(&self, cancelled: bool, cut: bool) -> Value {
        json!({"compared": self.compared, "same": self.same, "changed": self.changed,
            "not_comparable": self.not_comparable, "by": self.by, "reasons": self.reasons, "examples": self.examples,
            "fuel": {"before": self.fuel[0], "after": self.fuel[1]}, "cancelled": cancelled, "cut": cut})
    }
}

/// How two executions of one call differ, in what they came to and what they would change.
pub(super) fn differences(was: &Execution, is: &Execution, hides: bool) -> Vec<Change> {
    let mut changes = Vec::new();
    let shown = |execution: &Execution| {
        let (how, text) = ending(execution);
        let text = text.get(..text.floor_char_boundary(SHOWN_MAX_BYTES)).unwrap_or_default().to_owned();
        if hides {
            json!({"ended": how, "sha256": execution.recording.end.sha256})
        } else {
            json!({"ended": how, "text": text})
        }
    };
    let (before, after) = (&was.recording.end, &is.recording.end);
    if before.how != after.how {
        changes.push(Change { what: "end", before: shown(was), after: shown(is) });
    } else if !same_output(was, is) {
        let what = if matches!(was.ended, Ended::Output(_)) { "output" } else { "error" };
        changes.push(Change { what, before: shown(was), after: shown(is) });
    }
    let (was, is) = (&was.staged.effects, &is.staged.effects);
    if was != is {
        changes.push(Change { what: "effects", before: told(was, hides), after: told(is, hides) });
    }
    changes
}

fn told(effects: &[Effect], hides: bool) -> Value {
    if hides {
        let digest = Digest::of(&serde_json::to_vec(effects).unwrap_or_default());
        return json!({"effects": effects.len(), "sha256": digest});
    }
    let line = |effect: &Effect| format!("{} {}", effect.kind(), shown_effect(effect));
    let lines: Vec<String> = effects.iter().take(EFFECTS_SHOWN).map(line).collect();
    json!({"effects": effects.len(), "first": lines})
}

/// Outputs are JSON: another order of members is no change.
fn same_output(was: &Execution, is: &Execution) -> bool {
    if was.recording.end.sha256 == is.recording.end.sha256 {
        return true;
    }
    let value = |execution: &Execution| match &execution.ended {
        Ended::Output(output) => serde_json::from_str::<Value>(output).ok(),
        _ => None,
    };
    value(was).is_some_and(|was| value(is) == Some(was))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sample::execution;

    #[test]
    fn r42_what_is_hidden_of_a_call_is_in_no_difference() {
        let ended = |text: &str| execution(Ended::Output(format!("\"{text}\"")), (0, 1));
        let (was, is) = (ended("secret-one"), ended("secret-two"));
        let text = |hides: bool| {
            let changes = differences(&was, &is, hides);
            changes.iter().map(|change| format!("{} {}", change.before, change.after)).collect::<String>()
        };
        assert!(text(false).contains("secret-one") && text(false).contains("secret-two"));
        assert!(!text(true).contains("secret") && text(true).contains("sha256"), "{}", text(true));
    }
}
