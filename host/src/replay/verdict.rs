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
        .or_else(|| if stopped { None } else { end(recording, execution, recorded_output) })
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
    let at = differs.or_else(|| (!stopped && before.len() != now.len()).then_some(common));
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

fn fuel(recording: &Recording, replayed: &Recording) -> Option<Divergence> {
    let (before, now) = (recording.end.fuel, replayed.end.fuel);
    (before != now).then(|| Divergence { what: "fuel", at: None, expected: json!(before), got: json!(now) })
}
