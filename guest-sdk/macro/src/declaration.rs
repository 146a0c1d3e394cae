//! Everything that a tool declares about itself, checked: name, title, description, effects.
//!
//! The check takes the attribute and the function as parsed, and answers with a message that an
//! author can act on; turning it into code is the job of `expand`.

use proc_macro2::TokenStream;
use quote::ToTokens;
use syn::{Attribute, Expr, ExprLit, FnArg, Ident, ItemFn, Lit, Meta, ReturnType};

use crate::description::Description;
use crate::options::Options;

/// Longest name of a tool, in bytes: the host's bound.
const MAX_NAME_BYTES: usize = 64;

/// What is known of a tool at compile time.
#[derive(Debug)]
pub(crate) struct Declaration {
    /// The name that agents call.
    pub(crate) name: String,
    /// The options as written.
    pub(crate) options: Options,
    /// The four parts of the doc comment.
    pub(crate) description: Description,
    /// The type of the one argument.
    pub(crate) args: TokenStream,
    /// What the function returns: some `Result`.
    pub(crate) returns: TokenStream,
}

impl Declaration {
    /// Check attribute and function.
    pub(crate) fn of(options: Options, function: &ItemFn) -> syn::Result<Self> {
        let name = name(&options, &function.sig.ident)?;
        let (args, returns) = signature(function)?;
        let ident = &function.sig.ident;
        let lines = doc_lines(&function.attrs)?;
        let description = Description::parse(lines.iter().flat_map(|text| text.lines()))
            .map_err(|problem| syn::Error::new(ident.span(), problem))?;
        if description.says_no_side_effects() && !options.effects.is_empty() {
            let message = "the doc comment says `Side effects: none`, but the attribute lists effects; \
                           say what the tool changes, or remove `effects(...)`";
            return Err(syn::Error::new(ident.span(), message));
        }
        Ok(Self { name, options, description, args, returns })
    }
}

fn name(options: &Options, function: &Ident) -> syn::Result<String> {
    let (name, span) = match &options.name {
        Some((name, span)) => (name.clone(), *span),
        None => (function.to_string().replace('_', "-"), function.span()),
    };
    if is_name(&name) {
        return Ok(name);
    }
    let message = format!(
        "`{name}` is no name of a tool: use 1 to {MAX_NAME_BYTES} of `a-z`, `0-9`, `.`, `_`, `-`, starting with \
         a letter or digit; set one with `#[tool(name = \"...\")]`"
    );
    Err(syn::Error::new(span, message))
}

fn is_name(name: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    name.len() <= MAX_NAME_BYTES
        && name.bytes().next().is_some_and(plain)
        && name.bytes().all(|byte| plain(byte) || matches!(byte, b'.' | b'_' | b'-'))
}

fn signature(function: &ItemFn) -> syn::Result<(TokenStream, TokenStream)> {
    let signature = &function.sig;
    let refuse = |message: &str| syn::Error::new(signature.ident.span(), message);
    if signature.asyncness.is_some() || signature.unsafety.is_some() || signature.abi.is_some() {
        return Err(refuse("a tool is a plain function: not async, unsafe or extern"));
    }
    if !signature.generics.params.is_empty() {
        return Err(refuse("a tool has no type, lifetime or const parameters; its schema must be one"));
    }
    let mut inputs = signature.inputs.iter();
    let (Some(FnArg::Typed(argument)), None) = (inputs.next(), inputs.next()) else {
        return Err(refuse("a tool takes exactly one argument, a struct that derives `Deserialize` and `JsonSchema`"));
    };
    let ReturnType::Type(_, returns) = &signature.output else {
        return Err(refuse("a tool returns `Result<Output, toolkeep_sdk::Error>`, or an error type of its own"));
    };
    Ok((argument.ty.to_token_stream(), returns.to_token_stream()))
}

fn doc_lines(attributes: &[Attribute]) -> syn::Result<Vec<String>> {
    attributes
        .iter()
        .filter_map(|attribute| match &attribute.meta {
            Meta::NameValue(meta) if meta.path.is_ident("doc") => Some(&meta.value),
            _ => None,
        })
        .map(|value| match value {
            Expr::Lit(ExprLit { lit: Lit::Str(text), .. }) => Ok(text.value()),
            other => Err(syn::Error::new_spanned(other, "the doc comment of a tool must be written out here")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::Declaration;
    use crate::options::Options;

    const DOC: &str = "/// Adds.\n///\n/// When: asked.\n/// Side effects: writes.\n/// Errors: none.\n";

    fn declare(options: &str, function: &str) -> Result<Declaration, String> {
        let options: Options = syn::parse_str(options).unwrap();
        let function = syn::parse_str(function).unwrap();
        Declaration::of(options, &function).map_err(|error| error.to_string())
    }

    #[test]
    fn the_name_is_that_of_the_function_with_dashes() {
        let tool = declare("", &format!("{DOC}fn add_note(args: Args) -> Result<Out, Error> {{}}")).unwrap();
        assert_eq!(tool.name, "add-note");
        assert_eq!(tool.description.side_effects, "writes.");
    }

    #[test]
    fn a_name_outside_of_the_grammar_is_refused() {
        for name in ["", "Add", "-add", "add note", "ädd", &"a".repeat(65)] {
            let function = format!("{DOC}fn add(args: Args) -> Result<Out, Error> {{}}");
            let refusal = declare(&format!("name = {name:?}"), &function).unwrap_err();
            assert!(refusal.starts_with(&format!("`{name}` is no name of a tool")), "{refusal}");
        }
        let longest = format!("name = {:?}", "a".repeat(64));
        assert!(declare(&longest, &format!("{DOC}fn add(args: Args) -> Result<Out, Error> {{}}")).is_ok());
    }

    #[test]
    fn signatures_that_are_no_tool_are_refused() {
        let cases = [
            ("async fn add(args: Args) -> Result<Out, Error> {}", "a tool is a plain function"),
            ("fn add<T>(args: T) -> Result<Out, Error> {}", "a tool has no type"),
            ("fn add() -> Result<Out, Error> {}", "a tool takes exactly one argument"),
            ("fn add(a: A, b: B) -> Result<Out, Error> {}", "a tool takes exactly one argument"),
            ("fn add(args: Args) {}", "a tool returns `Result"),
        ];
        for (function, expected) in cases {
            let refusal = declare("", &format!("{DOC}{function}")).unwrap_err();
            assert!(refusal.starts_with(expected), "{function}: {refusal}");
        }
    }

    #[test]
    fn a_comment_that_denies_the_listed_effects_is_refused() {
        let function = "/// A.\n///\n/// When: b.\n/// Side effects: None.\n/// Errors: c.\nfn add(a: A) -> R {}";
        let refusal = declare(r#"effects("file.write")"#, function).unwrap_err();
        assert!(refusal.contains("says `Side effects: none`, but the attribute lists effects"), "{refusal}");
        assert!(declare("", function).is_ok());
    }

    #[test]
    fn a_doc_comment_from_elsewhere_is_refused() {
        let function = "#[doc = include_str!(\"a.md\")]\nfn add(a: A) -> R {}";
        assert_eq!(declare("", function).unwrap_err(), "the doc comment of a tool must be written out here");
    }
}
