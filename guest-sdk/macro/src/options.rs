//! What the author wrote in the brackets of `#[tool(...)]`.
//!
//! Parsed strictly: an unknown option, an unknown effect kind or the same option twice is an error
//! that lists what is allowed. Nothing is guessed.

use proc_macro2::Span;
use syn::ext::IdentExt;
use syn::parse::{Parse, ParseStream};
use syn::punctuated::Punctuated;
use syn::{Ident, LitStr, Token, parenthesized};

/// The effect kinds of the host, each with the variant of `toolkeep_sdk::EffectKind` that names it.
const EFFECT_KINDS: [(&str, &str); 11] = [
    ("dir.create", "DirCreate"),
    ("dir.delete", "DirDelete"),
    ("file.delete", "FileDelete"),
    ("file.metadata", "FileMetadata"),
    ("file.rename", "FileRename"),
    ("file.write", "FileWrite"),
    ("http.request", "HttpRequest"),
    ("kv.add", "KvAdd"),
    ("kv.delete", "KvDelete"),
    ("kv.set", "KvSet"),
    ("message.send", "MessageSend"),
];

/// Longest title, in characters: it is shown in lists, on one line.
const MAX_TITLE_CHARS: usize = 80;

/// The options of one tool.
#[derive(Debug, Default)]
pub(crate) struct Options {
    /// The name, if it is not that of the function.
    pub(crate) name: Option<(String, Span)>,
    /// A name for people.
    pub(crate) title: Option<String>,
    /// Variants of `EffectKind`, sorted by the kind's name, each once.
    pub(crate) effects: Vec<&'static str>,
    /// Whether the same input in the same world gives the same result.
    pub(crate) deterministic: bool,
}

impl Parse for Options {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let mut options = Self::default();
        let mut seen: Vec<Ident> = Vec::new();
        while !input.is_empty() {
            let option = input.call(Ident::parse_any)?;
            if seen.contains(&option) {
                return Err(syn::Error::new(option.span(), format!("the option `{option}` is there twice")));
            }
            options.take(&option, input)?;
            seen.push(option);
            if !input.is_empty() {
                input.parse::<Token![,]>()?;
            }
        }
        Ok(options)
    }
}

impl Options {
    fn take(&mut self, option: &Ident, input: ParseStream<'_>) -> syn::Result<()> {
        if option == "name" {
            input.parse::<Token![=]>()?;
            let literal: LitStr = input.parse()?;
            self.name = Some((literal.value(), literal.span()));
        } else if option == "title" {
            input.parse::<Token![=]>()?;
            self.title = Some(title(&input.parse()?)?);
        } else if option == "effects" {
            let list;
            parenthesized!(list in input);
            self.effects = effects(&Punctuated::parse_terminated(&list)?)?;
        } else if option == "deterministic" {
            self.deterministic = true;
        } else {
            return Err(syn::Error::new(
                option.span(),
                format!("unknown option `{option}`; use `name`, `title`, `effects` or `deterministic`"),
            ));
        }
        Ok(())
    }
}

fn title(literal: &LitStr) -> syn::Result<String> {
    let title = literal.value();
    let chars = title.chars().count();
    if title.trim().is_empty() || chars > MAX_TITLE_CHARS || title.chars().any(char::is_control) {
        let message = format!("a title is one line of 1 to {MAX_TITLE_CHARS} characters");
        return Err(syn::Error::new(literal.span(), message));
    }
    Ok(title)
}

fn effects(kinds: &Punctuated<LitStr, Token![,]>) -> syn::Result<Vec<&'static str>> {
    let mut found: Vec<(&str, &str)> = Vec::new();
    for literal in kinds {
        let value = literal.value();
        let Some(kind) = EFFECT_KINDS.into_iter().find(|(name, _)| *name == value) else {
            let known: Vec<String> = EFFECT_KINDS.iter().map(|(name, _)| format!("`{name}`")).collect();
            let message = format!("unknown effect kind `{value}`; use one of {}", known.join(", "));
            return Err(syn::Error::new(literal.span(), message));
        };
        if found.contains(&kind) {
            return Err(syn::Error::new(literal.span(), format!("the effect kind `{value}` is there twice")));
        }
        found.push(kind);
    }
    found.sort_unstable();
    Ok(found.into_iter().map(|(_, variant)| variant).collect())
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn refusal(text: &str) -> String {
        syn::parse_str::<Options>(text).unwrap_err().to_string()
    }

    #[test]
    fn all_options_together_are_read_and_effects_sorted() {
        let options: Options = syn::parse_str(
            r#"name = "note-add", title = "Add a note", effects("file.write", "dir.create"), deterministic,"#,
        )
        .unwrap();
        assert_eq!(options.name.map(|(name, _)| name), Some("note-add".to_owned()));
        assert_eq!(options.title.as_deref(), Some("Add a note"));
        assert_eq!(options.effects, ["DirCreate", "FileWrite"]);
        assert!(options.deterministic);
    }

    #[test]
    fn an_unknown_effect_kind_is_refused_with_the_known_ones() {
        assert_eq!(
            refusal(r#"effects("file.wirte")"#),
            "unknown effect kind `file.wirte`; use one of `dir.create`, `dir.delete`, `file.delete`, \
             `file.metadata`, `file.rename`, `file.write`, `http.request`, `kv.add`, `kv.delete`, `kv.set`, \
             `message.send`"
        );
        assert_eq!(refusal(r#"effects("kv.set", "kv.set")"#), "the effect kind `kv.set` is there twice");
    }

    #[test]
    fn an_unknown_or_repeated_option_is_refused() {
        assert_eq!(refusal("readonly"), "unknown option `readonly`; use `name`, `title`, `effects` or `deterministic`");
        assert_eq!(refusal("deterministic, deterministic"), "the option `deterministic` is there twice");
    }

    #[test]
    fn a_title_is_bounded() {
        let with = |chars: usize| format!("title = \"{}\"", "t".repeat(chars));
        assert!(syn::parse_str::<Options>(&with(80)).is_ok());
        assert_eq!(refusal(&with(81)), "a title is one line of 1 to 80 characters");
        assert_eq!(refusal(&with(0)), "a title is one line of 1 to 80 characters");
    }
}
