//! Verdicts: whether a replay did what was recorded, and where it first did something else.
//!
//! Imports are compared one by one, then the end: how, output or error or fault byte for byte, effects, log, fuel. Fuel
//! is compared under the same engine only. What was stopped by time or by somebody stops elsewhere the next time, so it is
//! compared up to there (D19).

use serde::Serialize;
use serde_json::{Value, json};
use toolkeep_core::event::{Event, How, Recording};
use toolkeep_sandbox::execution::{Ended, Execution};
use toolkeep_sandbox::fault::Fault;

/// Longest text of either side of a divergence, in bytes: enough to see what differs.
const SHOWN_MAX_BYTES: usize = 2_000;

/// What a comparison came to.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verdict {
    /// Whether nothing differs.
    pub identical: bool,
    /// The first thing that differs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divergence: Option<Divergence>,
    /// What was not compared, and why.
    pub notes: Vec<String>,
    /// How it ended.
    pub ended: &'static str,
    /// Calls of imports that were compared.
    pub events: usize,
    /// Fuel, recorded and now.
    pub fuel: [u64; 2],
}

/// The first difference.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Divergence {
    /// `import`, `question`, `end`, `output`, `effects`, `log` or `fuel`.
    pub what: &'static str,
    /// Which call of an import, or which line of the log, from 0.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub at: Option<usize>,
    /// What was recorded.
    pub expected: Value,
    /// What happened now.
    pub got: Value,
}

fn shown(text: &str) -> Value {
    Value::String(text.get(..text.floor_char_boundary(SHOWN_MAX_BYTES)).unwrap_or_default().to_owned())
}

fn of_event(event: Option<&Event>) -> Value {
    match event {
        None => Value::Null,
        Some(event) => shown(&serde_json::to_string(event).unwrap_or_default()),
    }
}

/// Compare an execution with the recording that it was a replay of. `recorded_output` is what the reply of the call
/// held, if it held anything: only to show it.
#[must_use]
pub fn compare(recording: &Recording, execution: &Execution, recorded_output: Option<&str>) -> Verdict {
    let replayed = &execution.recording;
    let mut notes = Vec::new();
    let same_engine = recording.engine == replayed.engine;
    if !same_engine {
        notes.push("fuel is not compared: the call was recorded under another engine".to_owned());
    }
    let stopped = recording.end.how == How::Stopped;
    if stopped {
        let count = recording.events.len();
        notes.push(format!("the call was stopped from outside; it is compared up to there, after {count} imports"));
    }
    let divergence = events(recording, execution, stopped)
        .or_else(|| {
            if stopped {
                too_early(recording, execution, same_engine)
            } else {
                end(recording, execution, recorded_output)
            }
        })
        .or_else(|| if stopped || !same_engine { None } else { fuel(recording, replayed) });
    Verdict {
        identical: divergence.is_none(),
        divergence,
        notes,
        ended: recording.end.how.word(),
        events: recording.events.len().min(replayed.events.len()),
        fuel: [recording.end.fuel, replayed.end.fuel],
    }
}

fn events(recording: &Recording, execution: &Execution, stopped: bool) -> Option<Divergence> {
    let (before, now) = (&recording.events, &execution.recording.events);
    let differs = before.iter().zip(now).position(|(before, now)| before != now);
    let common = before.len().min(now.len());
    // What was stopped may come further the next time. It may not come less far.
    let another = if stopped { now.len() < before.len() } else { now.len() != before.len() };
    let at = differs.or_else(|| another.then_some(common));
    // Where it was stopped, it was just asking.
    let over = stopped && now.len() >= before.len();
    let question = match &execution.ended {
        Ended::Fault(Fault::Diverged(what)) if !over => Some(what.as_str()),
        _ => None,
    };
    match (at, question) {
        (Some(at), None) => Some(Divergence {
            what: "import",
            at: Some(at),
            expected: of_event(before.get(at)),
            got: of_event(now.get(at)),
        }),
        (at, Some(what)) if at.is_none_or(|at| at >= now.len()) => {
            let at = now.len();
            Some(Divergence { what: "question", at: Some(at), expected: of_event(before.get(at)), got: shown(what) })
        }
        (Some(at), Some(_)) => Some(Divergence {
            what: "import",
            at: Some(at),
            expected: of_event(before.get(at)),
            got: of_event(now.get(at)),
        }),
        (None, _) => None,
    }
}

fn end(recording: &Recording, execution: &Execution, recorded_output: Option<&str>) -> Option<Divergence> {
    let (before, now) = (&recording.end, &execution.recording.end);
    let differs = |what, expected: Value, got: Value| Some(Divergence { what, at: None, expected, got });
    if before.how != now.how {
        let told = |how: How, text: &str| shown(&format!("{}: {text}", how.word()));
        return differs("end", told(before.how, &before.shown), told(now.how, &now.shown));
    }
    if before.sha256 != now.sha256 {
        let got = match &execution.ended {
            Ended::Output(output) => shown(output),
            _ => shown(&now.shown),
        };
        let expected =
            recorded_output.filter(|_| before.how == How::Output).map_or_else(|| shown(&before.shown), shown);
        return differs("output", expected, got);
    }
    if before.effects != now.effects {
        let effects: Vec<String> = execution.staged.effects.iter().map(toolkeep_core::render::subject).collect();
        let got = json!({"sha256": now.effects, "effects": effects.get(..20).unwrap_or(&effects)});
        return differs("effects", json!({"sha256": before.effects}), got);
    }
    let line = before.log.iter().zip(&now.log).position(|(before, now)| before != now);
    let line = line.or_else(|| (before.log.len() != now.log.len()).then(|| before.log.len().min(now.log.len())));
    let text = |lines: &[String], at: usize| lines.get(at).map_or(Value::Null, |line| shown(line));
    line.map(|at| Divergence { what: "log", at: Some(at), expected: text(&before.log, at), got: text(&now.log, at) })
}

/// What was stopped went on until then. A replay that ends by itself before that did something else. Where it was is told by its
/// fuel, which is the same under the same engine only.
fn too_early(recording: &Recording, execution: &Execution, same_engine: bool) -> Option<Divergence> {
    let (before, now) = (&recording.end, &execution.recording.end);
    let by_itself =
        now.how != How::Stopped && !matches!(execution.ended, Ended::Fault(Fault::OutOfFuel | Fault::Diverged(_)));
    (same_engine && by_itself && now.fuel < before.fuel).then(|| Divergence {
        what: "end",
        at: None,
        expected: shown(&format!("{} after {} fuel", before.how.word(), before.fuel)),
        got: shown(&format!("{} after {} fuel: {}", now.how.word(), now.fuel, now.shown)),
    })
}

fn fuel(recording: &Recording, replayed: &Recording) -> Option<Divergence> {
    let (before, now) = (recording.end.fuel, replayed.end.fuel);
    (before != now).then(|| Divergence { what: "fuel", at: None, expected: json!(before), got: json!(now) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sample::{execution, recording};

    fn first(recording: &Recording, ended: Ended, spent: (u32, u64)) -> Option<(&'static str, Option<usize>)> {
        let verdict = compare(recording, &execution(ended, spent), None);
        verdict.divergence.map(|divergence| (divergence.what, divergence.at))
    }

    #[test]
    fn r41_a_replay_of_a_stopped_call_that_comes_less_far_is_not_identical() {
        let stopped = recording(How::Stopped, "deadline", (100, 5_000));
        let trap = || Ended::Fault(Fault::Trap("unreachable".to_owned()));
        assert_eq!(first(&stopped, trap(), (3, 200)), Some(("import", Some(3))));
        assert_eq!(first(&stopped, Ended::Output("1".to_owned()), (99, 4_000)), Some(("import", Some(99))));
        assert_eq!(first(&stopped, Ended::Fault(Fault::OutOfFuel), (99, 5_000)), Some(("import", Some(99))));
        let diverged = Ended::Fault(Fault::Diverged("another file".to_owned()));
        assert_eq!(first(&stopped, diverged, (3, 200)), Some(("question", Some(3))));
    }

    #[test]
    fn r41_a_replay_of_a_stopped_call_that_ends_by_itself_before_that_is_not_identical() {
        let stopped = recording(How::Stopped, "deadline", (3, 5_000));
        assert_eq!(first(&stopped, Ended::Output("1".to_owned()), (3, 4_999)), Some(("end", None)));
        assert_eq!(first(&stopped, Ended::Fault(Fault::Trap("x".to_owned())), (3, 4_999)), Some(("end", None)));
        let elsewhere = Recording { engine: "two".to_owned(), ..stopped };
        assert_eq!(first(&elsewhere, Ended::Output("1".to_owned()), (3, 4_999)), None, "its fuel is another");
    }

    #[test]
    fn r41_what_was_stopped_is_compared_up_to_there() {
        let stopped = recording(How::Stopped, "deadline", (3, 5_000));
        for (ended, spent) in [
            (Ended::Fault(Fault::OutOfFuel), (3, 5_000)),
            (Ended::Fault(Fault::OutOfFuel), (4, 5_000)),
            (Ended::Fault(Fault::Deadline), (3, 4_000)),
            (Ended::Fault(Fault::Diverged("it was just asking".to_owned())), (3, 5_000)),
            (Ended::Output("1".to_owned()), (3, 5_000)),
        ] {
            assert_eq!(first(&stopped, ended, spent), None);
        }
    }
}
