//! Turns a checked declaration into code.
//!
//! The function stays as it is, so that it can be called and tested like any other; in a native build
//! its first statement tells the test harness which declaration is running. Next to it comes an empty
//! type of the same name (types and functions have separate name spaces) that implements
//! `toolkeep_sdk::Tool`; `toolkeep_sdk::export!` takes that type.

use proc_macro2::{Span, TokenStream};
use quote::quote;
use syn::{Ident, ItemFn, parse_quote};

use crate::declaration::Declaration;
use crate::options::Options;

/// Expand `#[tool(attribute)] item`.
pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> syn::Result<TokenStream> {
    let options: Options = syn::parse2(attribute)?;
    let mut function: ItemFn = syn::parse2(item)?;
    let declaration = Declaration::of(options, &function)?;
    let implementation = implementation(&declaration, &function);
    let ident = &function.sig.ident;
    let entered = parse_quote! {
        #[cfg(not(target_family = "wasm"))]
        ::toolkeep_sdk::testing::entered(&<#ident as ::toolkeep_sdk::Tool>::DECLARATION);
    };
    function.block.stmts.insert(0, entered);
    function.attrs.push(parse_quote! {
        #[allow(clippy::needless_pass_by_value, reason = "a tool owns what it was called with")]
    });
    Ok(quote! { #function #implementation })
}

fn implementation(declaration: &Declaration, function: &ItemFn) -> TokenStream {
    let Declaration { name, options, description, args, returns } = declaration;
    let ident = &function.sig.ident;
    let visibility = &function.vis;
    let comment = format!("The tool `{name}`, for `toolkeep_sdk::export!`.");
    let title = match &options.title {
        Some(title) => quote! { ::core::option::Option::Some(#title) },
        None => quote! { ::core::option::Option::None },
    };
    let effects = options.effects.iter().map(|variant| Ident::new(variant, Span::call_site()));
    let deterministic = options.deterministic;
    let (what, when) = (&description.what, &description.when);
    let (side_effects, errors) = (&description.side_effects, &description.errors);
    quote! {
        #[doc = #comment]
        #[allow(non_camel_case_types, reason = "named like the function that it declares")]
        #[derive(Debug)]
        #visibility enum #ident {}

        impl ::toolkeep_sdk::Tool for #ident {
            type Args = #args;
            type Output = <#returns as ::toolkeep_sdk::ToolResult>::Output;
            type Error = <#returns as ::toolkeep_sdk::ToolResult>::Error;

            const DECLARATION: ::toolkeep_sdk::Declaration = ::toolkeep_sdk::Declaration {
                name: #name,
                title: #title,
                what: #what,
                when: #when,
                side_effects: #side_effects,
                errors: #errors,
                effects: &[#(::toolkeep_sdk::EffectKind::#effects),*],
                deterministic: #deterministic,
            };

            fn call(
                args: Self::Args,
            ) -> ::core::result::Result<Self::Output, Self::Error> {
                #ident(args)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::expand;
    use quote::quote;

    #[test]
    fn the_function_and_one_type_of_its_name_come_out() {
        let item = quote! {
            /// Adds.
            ///
            /// When: asked.
            /// Side effects: writes.
            /// Errors: none.
            pub fn add(args: Args) -> Result<Out, Error> { body(args) }
        };
        let text = expand(quote! { effects("file.write") }, item).unwrap().to_string();
        assert!(text.contains("pub fn add (args : Args) -> Result < Out , Error >"), "{text}");
        assert!(text.contains("pub enum add { }"), "{text}");
        assert!(text.contains("effects : & [:: toolkeep_sdk :: EffectKind :: FileWrite]"), "{text}");
    }

    #[test]
    fn a_struct_is_no_tool() {
        assert!(expand(quote! {}, quote! { struct Add; }).is_err());
    }
}
