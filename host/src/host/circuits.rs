//! Circuits, for the operator: what rests because it fails, holding one open, closing one.

use serde_json::{Value, json};
use toolkeep_core::id::{GrantName, ToolName};
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::breakers::Circuit;

/// Which circuit an operator means.
#[derive(Debug, Clone, Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CircuitName {
    /// A tool.
    #[serde(default)]
    pub tool: Option<ToolName>,
    /// Or a grant of requests,
    #[serde(default)]
    pub grant: Option<GrantName>,
    /// and where they go.
    #[serde(default)]
    pub origin: Option<String>,
}

impl Host {
    /// Circuits of the operator's tenant of which something is known. All others are closed.
    ///
    /// # Errors
    /// None: the form is that of other questions.
    pub fn circuits(&self, operator: &Operator) -> Result<Value, Refusal> {
        Ok(json!({"breakers": self.breakers().of_tenant(operator.tenant())}))
    }

    /// Hold a circuit open, or close it.
    ///
    /// # Errors
    /// `invalid_input`: it names no circuit; `not_found`: there is no such tool.
    pub fn override_circuit(&self, operator: &Operator, name: CircuitName, open: bool) -> Result<Value, Refusal> {
        let circuit = match (name.tool, name.grant, name.origin) {
            (Some(tool), None, None) => Circuit::Tool(tool),
            (None, Some(grant), Some(origin)) => Circuit::Grant(grant, origin),
            _ => {
                return Err(Refusal::new(Code::InvalidInput, "name one circuit").field(
                    "/tool",
                    "is missing, or there is more than one circuit",
                    "`tool`, or else `grant` and `origin` as the manifest has them",
                ));
            }
        };
        if let Circuit::Tool(tool) = &circuit
            && open
        {
            self.tool_of_tenant(operator, tool)?;
        }
        let mut told = match &circuit {
            Circuit::Tool(tool) => json!({"tool": tool}),
            Circuit::Grant(grant, origin) => json!({"grant": grant, "origin": origin}),
        };
        let was = self.breakers().override_by(operator.tenant(), circuit, open, operator.user().as_str());
        if let Value::Object(members) = &mut told {
            members.insert("state".to_owned(), json!(if open { "open" } else { "closed" }));
            members.insert("was".to_owned(), json!(was));
        }
        Ok(told)
    }
}
