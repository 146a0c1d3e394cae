//! `toolkeep tools`: what agents can call, and the way from an author's component to a tool.

mod build;
mod draft;
mod inspect;
mod needs;
mod pack;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;
use super::ui::{Column, text_at};
use crate::daemon::method::{AdminMethod, AgentMethod};

/// List, inspect, install, build and pack tools
#[derive(Debug, clap::Subcommand)]
pub enum ToolsCommand {
    /// List the tools that an agent can call
    List,
    /// Show a tool of the daemon, or a component in a file (no daemon and no guest code needed)
    Inspect {
        /// A tool's name, or the path of a `.wasm` file
        tool: String,
        /// Write a first manifest for a component in a file, which installs as it is
        #[arg(long)]
        draft: bool,
    },
    /// Install a tool from its manifest
    Install {
        /// The manifest, `*.toml`, beside its component
        manifest: PathBuf,
        /// Install another version although its golden cases fail; the reason goes on record
        #[arg(long, value_name = "REASON")]
        accept_failing: Option<String>,
    },
    /// Write the descriptions of the tools into a component; runs its `describe` in an empty sandbox
    Pack {
        /// The component
        component: PathBuf,
        /// Take the descriptions from this JSON file, and run nothing
        #[arg(long, value_name = "FILE")]
        descriptors: Option<PathBuf>,
        /// Where to write; without it the component is replaced
        #[arg(long, value_name = "FILE")]
        to: Option<PathBuf>,
    },
    /// Build a tool crate for WebAssembly and pack what comes out; runs `cargo`
    Build {
        /// The crate's directory
        #[arg(default_value = ".")]
        directory: PathBuf,
    },
}

const COLUMNS: [Column; 4] = [
    Column::new("TOOL", |e| text_at(e, "/name")),
    Column::new("TIER", |e| text_at(e, "/tier")),
    Column::new("TITLE", |e| text_at(e, "/title")),
    Column::new("WHAT IT DOES", |e| {
        let text = e.get("description").and_then(Value::as_str).unwrap_or_default();
        toolkeep_core::display::visible(text.lines().next().unwrap_or_default()).into_owned()
    }),
];

impl ToolsCommand {
    /// Do it.
    ///
    /// # Errors
    /// There is no such tool, the component is refused, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::List => {
                let tools = context.agent()?.ask(ui, AgentMethod::ToolsList, json!({}))?;
                let entries = tools.get("tools").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
                ui.list(&tools, entries, &COLUMNS)?;
                Ok(Exit::Ok)
            }
            Self::Inspect { tool, draft } => inspect::run(context, &tool, draft),
            Self::Install { manifest, accept_failing } => {
                let params = json!({"manifest": absolute(&manifest)?, "accept_failing": accept_failing});
                let installed = context.admin()?.ask(ui, AdminMethod::ToolsInstall, params)?;
                ui.value(&installed, || {
                    let names = installed.get("installed").and_then(Value::as_array).into_iter().flatten();
                    names.map(|name| format!("{} installed\n", text_at(name, ""))).collect()
                })?;
                let problems = installed.get("problems").and_then(Value::as_array).into_iter().flatten();
                for problem in problems {
                    ui.note(&format!("warning: {}: {}", text_at(problem, "/file"), text_at(problem, "/problem")));
                }
                Ok(Exit::Ok)
            }
            Self::Pack { component, descriptors, to } => {
                pack::run(context, &component, descriptors.as_deref(), to.as_deref())
            }
            Self::Build { directory } => build::run(context, &directory),
        }
    }
}
