//! Screen: what a tool returned is checked before it leaves, and before any of its effects is committed.
//!
//! The output must be strict JSON that the tool's own output schema allows. It stands before the plan is sealed, not after
//! the commit: a tool that returns nonsense has failed, and a failed call leaves nothing behind.

use serde_json::Value;
use toolkeep_core::json;
use toolkeep_core::refusal::{Code, Refusal};

use crate::catalog::Tool;
use crate::execute::Executed;
use crate::schema;

/// Proof: an output that the schema allows, or none yet because the execution ended at a live request.
#[derive(Debug, Clone, PartialEq)]
pub struct Screened(Option<Value>);

impl Screened {
    /// The output.
    #[must_use]
    pub const fn value(&self) -> Option<&Value> {
        self.0.as_ref()
    }
}

/// Check what an execution ended with.
///
/// # Errors
/// The tool's own error, the guest's fault, or `tool_trapped`: the output is not JSON, or not what the tool's output schema
/// allows.
pub fn screen(executed: &Executed) -> Result<Screened, Refusal> {
    let tool = executed.ticket().grant().call().tool();
    if executed.live().is_some() {
        return Ok(Screened(None));
    }
    let output = executed.output()?;
    check(tool, output)
}

fn check(tool: &Tool, output: &str) -> Result<Screened, Refusal> {
    let broken = |message: String| Refusal::new(Code::ToolTrapped, message);
    let value = json::parse(output.as_bytes())
        .map_err(|e| broken(format!("`{}` returned something that is not JSON: {e}", tool.name)))?;
    let schema = tool.output()?;
    if schema.is_valid(&value) {
        return Ok(Screened(Some(value)));
    }
    let mut refusal = broken(format!("`{}` returned an output that its own schema forbids", tool.name));
    refusal.fields = schema::problems(schema, &tool.descriptor.output_schema, &value, "/output");
    Err(refusal)
}
