//! The `#[tool]` attribute of `toolkeep-sdk`.
//!
//! A tool is offered to a model, which decides by its description alone whether to call it. That is
//! why the description is checked here, at compile time: it must say what the tool does, when to use
//! it, what it changes and how it fails. The attribute leaves the function as it is and adds one type
//! of the same name that carries the declaration.
//!
//! Absent on purpose: schemas. They come from the types at run time of `describe`, since a macro
//! cannot see through type names.

mod declaration;
mod description;
mod expand;
mod options;

use proc_macro::TokenStream;

/// Makes a plain function a tool. See the crate documentation of `toolkeep-sdk`.
///
/// Options: `name = "..."`, `title = "..."`, `effects("file.write", ...)`, `deterministic`.
#[proc_macro_attribute]
pub fn tool(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(attribute.into(), item.into()).unwrap_or_else(|error| error.into_compile_error()).into()
}
