//! Write tools for Toolkeep in Rust.
//!
//! A tool is a plain function. `#[tool]` gives it a name, a description that models can decide by, and
//! JSON Schemas for what it takes and returns; [`export!`] makes a WebAssembly component of one or more.
//! A tool never acts: it reads and writes files beneath its workspaces with ordinary `std::fs`, and the
//! host turns what it changed into a plan, decides about that and only then commits it.
//!
//! ```
//! use schemars::JsonSchema;
//! use serde::{Deserialize, Serialize};
//! use toolkeep_sdk::{Error, tool, workspace};
//!
//! /// What to count.
//! #[derive(Deserialize, JsonSchema)]
//! struct CountArgs {
//!     /// The text file, relative to the workspace `notes`.
//!     path: String,
//! }
//!
//! /// What was counted.
//! #[derive(Serialize, JsonSchema)]
//! struct CountOutput {
//!     /// Number of lines.
//!     lines: usize,
//! }
//!
//! /// Counts the lines of one text file.
//! ///
//! /// When: the user asks how long a file is. Not for binary files.
//! /// Side effects: none.
//! /// Errors: not-found if there is no such file.
//! #[tool(deterministic)]
//! fn count(args: CountArgs) -> Result<CountOutput, Error> {
//!     let text = workspace("notes")?.read_to_string(&args.path)?;
//!     Ok(CountOutput { lines: text.lines().count() })
//! }
//!
//! toolkeep_sdk::export!(count);
//!
//! let outcome = toolkeep_sdk::testing::Harness::new()
//!     .workspace("notes", [("a.txt", "one\ntwo\n")])
//!     .call(count, serde_json::json!({"path": "a.txt"}));
//! assert_eq!(outcome.output()["lines"], 2);
//! assert!(outcome.effects.is_empty());
//! ```
//!
//! Beyond files there are [`http`], [`keys`] and [`messages`], for what the manifest grants. Changes made through them
//! are staged like files.
//!
//! Absent on purpose: sockets, environment and processes. What the host does not grant does not exist.
//!
//! # What `#[tool]` checks
//!
//! A description without one of its four parts does not compile:
//!
//! ```compile_fail
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Args {}
//! /// Counts lines.
//! ///
//! /// When: asked.
//! /// Errors: none of its own.
//! #[toolkeep_sdk::tool]
//! fn count(args: Args) -> Result<(), toolkeep_sdk::Error> { Ok(()) } // lacks `Side effects:`
//! # fn main() {}
//! ```
//!
//! Neither does an effect that the host does not know, nor a second tool of the same name:
//!
//! ```compile_fail
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Args {}
//! /// Counts lines.
//! ///
//! /// When: asked.
//! /// Side effects: writes the count.
//! /// Errors: none of its own.
//! #[toolkeep_sdk::tool(effects("file.wirte"))]
//! fn count(args: Args) -> Result<(), toolkeep_sdk::Error> { Ok(()) }
//! # fn main() {}
//! ```
//!
//! ```compile_fail
//! # #[derive(serde::Deserialize, schemars::JsonSchema)] struct Args {}
//! /// Counts lines.
//! ///
//! /// When: asked.
//! /// Side effects: none.
//! /// Errors: none of its own.
//! #[toolkeep_sdk::tool]
//! fn count(args: Args) -> Result<(), toolkeep_sdk::Error> { Ok(()) }
//! toolkeep_sdk::export!(count, count);
//! # fn main() {}
//! ```

extern crate self as toolkeep_sdk;

#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod bindings;
pub mod component;
pub mod context;
mod declaration;
mod error;
mod host;
pub mod http;
mod input;
pub mod keys;
pub mod log;
pub mod messages;
pub mod progress;
mod schema;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod workspace;

pub use component::Component;
pub use declaration::{Declaration, EffectKind, Tool, ToolResult};
pub use error::{Error, ErrorKind, FieldProblem, IntoError, ToolError};
pub use toolkeep_sdk_macro::tool;
pub use workspace::{Workspace, workspace};

/// What a tool without an error type of its own returns.
pub type Result<T> = std::result::Result<T, Error>;

/// Makes the listed tools the tools of this component.
///
/// Written once, in `lib.rs` of a crate with `crate-type = ["cdylib", "rlib"]`. It takes paths of
/// functions that carry `#[tool]`, and defines the type `ToolkeepComponent`, which implements
/// [`Component`].
#[macro_export]
macro_rules! export {
    ($($tool:ty),+ $(,)?) => {
        /// The tools of this component.
        #[derive(Debug)]
        pub struct ToolkeepComponent;

        impl $crate::Component for ToolkeepComponent {
            const TOOLS: &'static [$crate::component::Entry] =
                &[$($crate::component::Entry::of::<$tool>()),+];
        }

        const _: () = $crate::component::assert_table(
            <ToolkeepComponent as $crate::Component>::TOOLS,
        );

        #[cfg(target_family = "wasm")]
        $crate::bindings::export_guest!(ToolkeepComponent with_types_in $crate::bindings);
    };
}
