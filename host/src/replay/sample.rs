//! Versions and executions that tests of replays and golden cases are about. Nothing of it runs.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use toolkeep_core::call::Usage;
use toolkeep_core::digest::Digest;
use toolkeep_core::event::{Answer, End, Event, FORMAT, Given, Heard, How, Recording};
use toolkeep_core::manifest::ManifestText;
use toolkeep_sandbox::execution::{Ended, Entry, Execution};
use toolkeep_sandbox::fault::Fault;
use toolkeep_sandbox::stage::Staged;

use super::Version;
use crate::catalog::ComponentFile;

/// A version of the tool `sample`, of a manifest that goes on like this.
pub(crate) fn version(rest: &str) -> Version {
    let text = format!("format = 1\nname = \"sample\"\ncomponent = \"sample.wasm\"\n{rest}");
    let shaped: ManifestText = toml::from_str(&text).expect("a manifest");
    let manifest = Arc::new(shaped.check(Digest::of(text.as_bytes())).expect("a valid one"));
    let digest = Digest::of(b"component");
    Version {
        name: manifest.name.clone(),
        local: manifest.name.clone(),
        entry: Entry::Tool(manifest.name.clone()),
        tier: manifest.tier,
        component: Arc::new(ComponentFile { digest, path: PathBuf::new(), size: 1, compile: (None, None) }),
        manifest,
        tool: None,
    }
}

/// One call of an import that answered with a number.
pub(crate) fn event(number: u32) -> Event {
    Event { import: "test:sample/numbers#next".into(), about: String::new(), answer: Answer::Value(number.to_string()) }
}

/// The recording of an execution that made so many calls of imports and used as much fuel.
pub(crate) fn recording(how: How, text: &str, (events, fuel): (u32, u64)) -> Recording {
    let end = End {
        how,
        sha256: Digest::of(text.as_bytes()),
        shown: text.to_owned(),
        fuel,
        effects: None,
        log: Vec::new(),
        events: None,
    };
    Recording {
        format: FORMAT,
        engine: "one".to_owned(),
        seed: "00".repeat(32),
        wall_clock_ns: "0".to_owned(),
        layer: None,
        given: Given::default(),
        events: (0..events).map(event).collect(),
        heard: Heard::default(),
        end,
        dropped_bytes: 0,
        dropped_events: 0,
        lost: None,
    }
}

/// An execution that ended so, after so many calls of imports and with as much fuel.
pub(crate) fn execution(ended: Ended, spent: (u32, u64)) -> Execution {
    let (how, text) = match &ended {
        Ended::Output(output) => (How::Output, output.clone()),
        Ended::Error(error) => (How::Error, error.message.clone()),
        Ended::Live(call) => (How::Live, call.url.clone()),
        Ended::Fault(fault @ (Fault::Deadline | Fault::Cancelled)) => (How::Stopped, fault.to_string()),
        Ended::Fault(fault) => (How::Fault, fault.to_string()),
    };
    Execution {
        recording: recording(how, &text, spent),
        ended,
        staged: Staged::default(),
        kept: BTreeMap::new(),
        exchanges: Vec::new(),
        usage: Usage { fuel: spent.1, ..Usage::default() },
        log: Vec::new(),
        log_dropped: 0,
    }
}
