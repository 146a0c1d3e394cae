//! Screen: what a tool returned is checked before it leaves, and before any of its effects is committed.
//!
//! The output must be strict JSON that the tool's own output schema allows. It stands before the plan is sealed, not after
//! the commit: a tool that returns nonsense has failed, and a failed call leaves nothing behind. Every text in it is scanned
//! ([`toolkeep_core::scan`]); so is what a tool says when it fails, because a model reads that as well, and, where the manifest
//! says so, the input. What policies hide of it is hidden, and it may leave between delimiters that nobody can foresee.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::hex;
use toolkeep_core::json as strict;
use toolkeep_core::redact;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::scan::{self, Findings};

use crate::ambient::Ambient;
use crate::authorize::Grant;
use crate::catalog::Tool;
use crate::execute::Executed;
use crate::schema;

/// Bytes of output from which on the thread tells the others of its runtime that it is busy.
const BUSY_BYTES: usize = 64 * 1024;
/// Characters of a long output that its marker shows.
const HEAD_CHARS: usize = 160;
/// Bytes of randomness in the nonce of delimiters.
const NONCE_BYTES: usize = 8;

/// Proof: an output that the schema allows, or none yet because the execution ended at a live request.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened {
    value: Option<Value>,
    nonce: Option<String>,
    /// Bytes of JSON from which on it is kept beside the reply.
    spill_bytes: Option<u64>,
}

impl Screened {
    /// The output.
    #[must_use]
    pub const fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// The output as JSON, if it is too long for the reply.
    #[must_use]
    pub fn spilled(&self) -> Option<Arc<str>> {
        let (value, most) = (self.value.as_ref()?, self.spill_bytes?);
        let text = value.to_string();
        (text.len() as u64 > most).then(|| text.into())
    }

    /// The output as it leaves: a marker where it is too long, between delimiters where the manifest wants them.
    #[must_use]
    pub fn leaving(self) -> Option<Value> {
        let spilled = self.spilled();
        let mut value = self.value?;
        if let Some(text) = spilled {
            let head: String = text.chars().take(HEAD_CHARS).collect();
            value = json!({"spilled": {"bytes": text.len(), "sha256": Digest::of(text.as_bytes()), "head": head,
                "read_with": "calls.output"}});
        }
        let Some(nonce) = self.nonce else { return Some(value) };
        Some(Value::String(format!("<<<untrusted {nonce}>>>\n{value}\n<<<end {nonce}>>>")))
    }

    /// Hide parts of it: JSON Pointers that begin with `/output`.
    pub fn redact(&mut self, pointers: &BTreeSet<String>) {
        if let Some(value) = &mut self.value {
            redact::hide_under(value, "/output", pointers);
        }
    }
}

/// What an execution ended with, and what was found in it.
#[derive(Debug)]
pub struct Looked {
    /// The output, or why there is none: the tool's own error, the guest's fault, or `tool_trapped` for an output that is not
    /// JSON, or not what the tool's output schema allows.
    pub output: Result<Screened, Refusal>,
    /// What the scan found in output, error or input.
    pub findings: Findings,
}

/// What policies and the schemas of the tool hide of a call.
fn hidden_of(grant: &Grant) -> BTreeSet<String> {
    let redact = &grant.judgement().obligations().redact;
    redact.iter().chain(grant.call().tool().sensitive()).cloned().collect()
}

/// Check and scan what an execution ended with.
#[must_use]
pub fn screen(executed: &Executed, ambient: &Ambient) -> Looked {
    let grant = executed.ticket().grant();
    let (call, size) = (grant.call(), executed.output().map_or(0, str::len));
    let hidden = hidden_of(grant);
    let look = || {
        let output = output_of(executed, ambient);
        // What is found is put on record for good, so what surrounds it must not show what is hidden.
        let mut findings = match &output {
            Ok(screened) => screened.value().map(scan::value).unwrap_or_default().hiding("/output", &hidden),
            Err(refusal) if hidden.is_empty() => scan_refusal(refusal),
            Err(refusal) => scan_refusal(refusal).hiding("", &BTreeSet::from([String::new()])),
        };
        if call.tool().manifest.screen.input {
            let input: Value = serde_json::from_str(call.input()).unwrap_or_default();
            findings = findings.and(scan::value(&input).hiding("/input", &hidden));
        }
        Looked { output, findings }
    };
    let mut looked = if size > BUSY_BYTES { busy(look) } else { look() };
    if let Ok(screened) = &mut looked.output {
        screened.redact(&grant.judgement().obligations().redact);
    }
    looked
}

/// Run something that keeps the thread for a while, where the runtime has others.
fn busy<T>(work: impl FnOnce() -> T) -> T {
    let several = tokio::runtime::Handle::try_current()
        .is_ok_and(|handle| handle.runtime_flavor() == tokio::runtime::RuntimeFlavor::MultiThread);
    if several { tokio::task::block_in_place(work) } else { work() }
}

fn output_of(executed: &Executed, ambient: &Ambient) -> Result<Screened, Refusal> {
    let tool = executed.ticket().grant().call().tool();
    if executed.live().is_some() {
        return Ok(Screened { value: None, nonce: None, spill_bytes: None });
    }
    let value = check(tool, executed.output()?)?;
    let nonce = tool.manifest.screen.delimit.then(|| hex::text(&ambient.random::<NONCE_BYTES>()));
    Ok(Screened { value: Some(value), nonce, spill_bytes: tool.manifest.screen.spill_bytes })
}

/// What a tool says about its failure is text that a model reads, too.
fn scan_refusal(refusal: &Refusal) -> Findings {
    scan::value(&serde_json::to_value(refusal).unwrap_or_default())
}

fn check(tool: &Tool, output: &str) -> Result<Value, Refusal> {
    let broken = |message: String| Refusal::new(Code::ToolTrapped, message);
    let value = strict::parse(output.as_bytes())
        .map_err(|e| broken(format!("`{}` returned something that is not JSON: {e}", tool.name)))?;
    let schema = tool.output()?;
    if schema.is_valid(&value) {
        return Ok(value);
    }
    let mut refusal = broken(format!("`{}` returned an output that its own schema forbids", tool.name));
    refusal.fields = schema::problems(schema, &tool.descriptor.output_schema, &value, "/output");
    Err(refusal)
}
