//! What a client may show about a tool before it is called. Hints follow from what the operator granted; what the author says
//! about it has no part in them.

use serde_json::{Value, json};
use toolkeep_core::capability::Access;
use toolkeep_core::tier::Tier;

use crate::catalog::Tool;

/// Methods of requests that change nothing.
const READING: [&str; 2] = ["GET", "HEAD"];

/// The hints of a tool.
pub(super) fn hints(tool: &Tool) -> Value {
    let (manifest, writes) = (&tool.manifest, tool.tier != Tier::ReadOnly);
    let files = manifest.files.iter().any(|grant| grant.access == Access::Write);
    let requests = manifest.http.iter().flat_map(|grant| &grant.methods).any(|m| !READING.contains(&m.as_str()));
    let destructive = writes && (tool.tier > Tier::Reversible || files || requests || !manifest.keys.is_empty());
    json!({
        "readOnlyHint": !writes,
        "destructiveHint": destructive,
        "idempotentHint": !writes,
        "openWorldHint": is_open(tool),
    })
}

/// The hints of its preview, which commits nothing, and may still ask other systems while it runs.
pub(super) fn preview_hints(tool: &Tool) -> Value {
    json!({"readOnlyHint": true, "destructiveHint": false, "idempotentHint": true, "openWorldHint": is_open(tool)})
}

/// Whether it reaches beyond this machine.
fn is_open(tool: &Tool) -> bool {
    !tool.manifest.http.is_empty() || !tool.manifest.messages.is_empty()
}
