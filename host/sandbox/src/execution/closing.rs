//! What the recording of an execution says about its frame: what it was given, and how it ended.
//!
//! Both are written down before anybody looks at the output or decides about the effects, so a replay compares
//! what the tool did and not what was made of it.

use serde_json::json;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::event::{End, Given, How, SHOWN_MAX_BYTES};

use super::{Ended, GuestError, Order};
use crate::capability::log::LogLine;
use crate::fault::Fault;

/// What the engine says of a guest whose calls are nested too deeply: how deep depends on the machine.
const STACK_TEXT: &str = "call stack exhausted";

/// What an order gives, as far as the manifest does not say it.
pub(super) fn given(order: &Order) -> Given {
    let mounts = order.mounts.iter().map(|mount| (mount.root.name().clone(), mount.grant.access));
    Given {
        fuel: order.limits.fuel,
        deadline_ms: u64::try_from(order.deadline.as_millis()).unwrap_or(u64::MAX),
        mounts: mounts.collect(),
        requests: order.outward.http.iter().map(|grant| grant.requests).collect(),
    }
}

/// How it ended. The log comes with the bytes that it dropped.
pub(super) fn end(ended: &Ended, fuel: u64, effects: &[Effect], (log, dropped): (&[LogLine], u64)) -> End {
    let how = match ended {
        Ended::Output(_) => How::Output,
        Ended::Error(_) => How::Error,
        Ended::Live(_) => How::Live,
        Ended::Fault(Fault::Deadline | Fault::Cancelled) => How::Stopped,
        Ended::Fault(Fault::Trap(text)) if text.contains(STACK_TEXT) => How::Stopped,
        Ended::Fault(_) => How::Fault,
    };
    let text = match ended {
        Ended::Output(output) => std::borrow::Cow::Borrowed(output.as_str()),
        Ended::Error(error) => text_of(error).into(),
        Ended::Live(call) => format!("{} {} {}", call.method, call.url, call.digest()).into(),
        Ended::Fault(fault) => fault.to_string().into(),
    };
    let shown = text.get(..text.floor_char_boundary(SHOWN_MAX_BYTES)).unwrap_or_default().to_owned();
    let mut lines: Vec<String> = log.iter().map(line).collect();
    if dropped > 0 {
        lines.push(format!("{dropped} bytes dropped"));
    }
    let effects = (!effects.is_empty()).then(|| Digest::of(&serde_json::to_vec(effects).unwrap_or_default()));
    End { how, sha256: Digest::of(text.as_bytes()), shown, fuel, effects, log: lines, events: None }
}

/// A tool's own error as one text: same error, same text.
fn text_of(error: &GuestError) -> String {
    let GuestError { kind, message, detail, fields, after_ms } = error;
    json!({"kind": format!("{kind:?}"), "message": message, "detail": detail, "fields": fields, "after_ms": after_ms})
        .to_string()
}

fn line(line: &LogLine) -> String {
    format!("{:?} {:?} {}", line.source, line.level, line.text)
}
