//! `[[function]]`: functions of a component that was not built with the SDK, each as a tool.
//!
//! Such a component says nothing about when to use a function and what it changes, so the operator does, who grants it
//! what it may change. What is not listed is not offered: a new version of a component brings no tool by itself.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{BadManifest, ManifestText};
use crate::descriptor::TOOLS_MAX;
use crate::effect::Effect;
use crate::id::ToolName;
use crate::wit::Label;

/// Parts of one function that may be called sensitive.
const SENSITIVE_MAX: usize = 64;

/// `[[function]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FunctionText {
    /// The function, as the component exports it.
    pub export: Label,
    /// The name of the tool; default: that of the function, after that of its interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<ToolName>,
    /// A short human title.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// What it does; default: its documentation, where the component has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub what: Option<String>,
    /// When to use it, and when not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What it changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub side_effects: Option<String>,
    /// Which errors to expect and what to do about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub errors: Option<String>,
    /// Effect kinds that it may stage, for people to see.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
    /// Parts of input and output that nobody but the caller sees, as JSON Pointers that begin with `/input` or `/output`; `*`
    /// stands for the items of a list.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<String>,
}

/// A function that is offered as a tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// The name of the tool among those of its component.
    pub name: ToolName,
    /// What the manifest says about it.
    pub text: FunctionText,
}

impl ManifestText {
    pub(super) fn functions(&self) -> Result<Arc<[Offer]>, BadManifest> {
        if self.functions.len() > TOOLS_MAX {
            let problem = format!("{} entries; at most {TOOLS_MAX}", self.functions.len());
            return Err(BadManifest::new("function", problem));
        }
        let mut offers: Vec<Offer> = Vec::with_capacity(self.functions.len());
        for text in &self.functions {
            let offer = text.check()?;
            let key = |what: &str| format!("function.{}.{what}", text.export);
            if offers.iter().any(|other| other.text.export == text.export) {
                return Err(BadManifest::new(key("export"), "is listed twice"));
            }
            if let Some(other) = offers.iter().find(|other| other.name == offer.name) {
                let problem = format!(
                    "the tool would be called `{}`, as that of `{}` is; give one of them a `name`",
                    offer.name, other.text.export
                );
                return Err(BadManifest::new(key("name"), problem));
            }
            offers.push(offer);
        }
        Ok(offers.into())
    }
}

impl FunctionText {
    fn check(&self) -> Result<Offer, BadManifest> {
        let key = |what: &str| format!("function.{}.{what}", self.export);
        let derived = || self.export.name().map_err(|error| BadManifest::new(key("name"), format!("{error}; set it")));
        let name = self.name.clone().map_or_else(derived, Ok)?;
        if let Some(unknown) = self.effects.iter().find(|kind| !Effect::KINDS.contains(&kind.as_str())) {
            let problem = format!("`{unknown}` is not an effect kind; use {}", Effect::KINDS.join(", "));
            return Err(BadManifest::new(key("effects"), problem));
        }
        if self.sensitive.len() > SENSITIVE_MAX {
            let problem =
                format!("{} entries; at most {SENSITIVE_MAX}: name a part that holds several", self.sensitive.len());
            return Err(BadManifest::new(key("sensitive"), problem));
        }
        let fits = |pointer: &&String| {
            ["/input", "/output"]
                .iter()
                .any(|part| pointer.strip_prefix(part).is_some_and(|rest| rest.is_empty() || rest.starts_with('/')))
        };
        if let Some(wrong) = self.sensitive.iter().find(|pointer| !fits(pointer)) {
            let problem = format!("`{wrong}` is no part of a call; write `/input/item/note` or `/output`");
            return Err(BadManifest::new(key("sensitive"), problem));
        }
        Ok(Offer { name, text: self.clone() })
    }
}
