//! `toolkeep breakers`: what rests because it fails.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at};
use crate::daemon::method::AdminMethod;

/// See which tools and grants rest because they fail, and decide otherwise
///
/// A circuit that an operator opened stays open until an operator closes it, or the daemon restarts: what must stay shut is
/// what `toolkeep kill` is for.
#[derive(Debug, clap::Subcommand)]
pub enum BreakersCommand {
    /// Circuits of which something is known; all others are closed
    List,
    /// Let nothing through until it is closed
    Open {
        /// Which one
        #[command(flatten)]
        circuit: CircuitArgs,
    },
    /// Let everything through, and forget what failed
    Close {
        /// Which one
        #[command(flatten)]
        circuit: CircuitArgs,
    },
}

/// Which circuit.
#[derive(Debug, clap::Args)]
pub struct CircuitArgs {
    /// A tool
    #[arg(long)]
    tool: Option<String>,
    /// A grant of requests, by its name in the manifest
    #[arg(long, conflicts_with = "tool", requires = "origin")]
    grant: Option<String>,
    /// Where the requests of the grant go
    #[arg(long, requires = "grant")]
    origin: Option<String>,
}

const COLUMNS: [Column; 6] = [
    Column::new("TOOL", |e| text_at(e, "/tool")),
    Column::new("GRANT", |e| text_at(e, "/grant")),
    Column::new("ORIGIN", |e| text_at(e, "/origin")),
    Column::new("STATE", |e| text_at(e, "/state")),
    Column::new("FAILURES", |e| text_at(e, "/failures")),
    Column::new("TRIED IN MS", |e| text_at(e, "/retry_after_ms")),
];

impl CircuitArgs {
    fn params(&self) -> Value {
        let mut params = serde_json::Map::new();
        for (key, value) in [("tool", &self.tool), ("grant", &self.grant), ("origin", &self.origin)] {
            if let Some(value) = value {
                params.insert(key.to_owned(), json!(value));
            }
        }
        Value::Object(params)
    }
}

impl BreakersCommand {
    /// Do it.
    ///
    /// # Errors
    /// No circuit is named, there is no such tool, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let mut client = context.admin()?;
        let (method, circuit) = match self {
            Self::List => {
                let page = client.ask(ui, AdminMethod::BreakersList, json!({}))?;
                show_page(ui, &page, "breakers", &COLUMNS)?;
                return Ok(Exit::Ok);
            }
            Self::Open { circuit } => (AdminMethod::BreakersOpen, circuit),
            Self::Close { circuit } => (AdminMethod::BreakersClose, circuit),
        };
        let told = client.ask(ui, method, circuit.params())?;
        ui.value(&told, || {
            let parts = ["/tool", "/grant", "/origin"].map(|pointer| told.pointer(pointer).and_then(Value::as_str));
            let name = parts.into_iter().flatten().collect::<Vec<_>>().join(" ");
            format!("{name}: {}, was {}", text_at(&told, "/state"), text_at(&told, "/was"))
        })?;
        Ok(Exit::Ok)
    }
}
