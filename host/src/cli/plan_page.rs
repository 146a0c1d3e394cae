//! Plans as the command line gets them: pages of effects with the contents that diffs are made of.

use std::collections::HashMap;

use serde_json::{Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::Effect;
use toolkeep_core::render::{self, Options};

use super::client::{AdminClient, AgentClient};
use super::context::Context;
use super::failure::Failure;
use super::ui::Ui;
use crate::daemon::method::{AdminMethod, AgentMethod};

/// All pages of one plan.
#[derive(Debug, Default)]
pub(super) struct PlanPages {
    /// The first page, as the daemon gave it.
    pub(super) head: Value,
    effects: Vec<Effect>,
    contents: HashMap<Digest, Vec<u8>>,
}

impl PlanPages {
    /// Begin with a page.
    ///
    /// # Errors
    /// It is not one.
    pub(super) fn first(page: Value) -> Result<Self, Failure> {
        let mut pages = Self::default();
        pages.add(&page)?;
        pages.head = page;
        Ok(pages)
    }

    fn add(&mut self, page: &Value) -> Result<(), Failure> {
        let effects = page.get("effects").cloned().unwrap_or_default();
        let effects: Vec<Effect> = serde_json::from_value(effects)
            .map_err(|error| Failure::Other(format!("the daemon answered a plan that is not one: {error}")))?;
        self.effects.extend(effects);
        for (digest, text) in page.get("contents").and_then(Value::as_object).into_iter().flatten() {
            if let (Ok(digest), Some(text)) = (digest.parse(), text.as_str()) {
                self.contents.insert(digest, text.as_bytes().to_vec());
            }
        }
        Ok(())
    }

    /// The plan as people read it.
    #[must_use]
    pub(super) fn render(&self, ui: &Ui) -> String {
        let contents = |digest: &Digest| self.contents.get(digest).cloned();
        render::plan(&self.effects, &Options { colour: ui.colour(), whole: false }, &contents).text
    }
}

/// Get a plan of the caller's own with all its effects and contents.
///
/// # Errors
/// There is no such plan.
pub(super) fn fetch(context: &Context<'_>, client: &mut AgentClient, plan: &str) -> Result<PlanPages, Failure> {
    pages(|cursor| {
        let params = json!({"plan": plan, "cursor": cursor, "diffs": true});
        client.ask(&context.ui, AgentMethod::PlansGet, params)
    })
}

/// Get a plan of the operator's tenant with all its effects and contents.
///
/// # Errors
/// There is no such plan.
pub(super) fn fetch_admin(context: &Context<'_>, client: &mut AdminClient, plan: &str) -> Result<PlanPages, Failure> {
    pages(|cursor| client.ask(&context.ui, AdminMethod::PlansShow, json!({"plan": plan, "cursor": cursor})))
}

fn pages(mut page: impl FnMut(u64) -> Result<Value, Failure>) -> Result<PlanPages, Failure> {
    let mut pages = PlanPages::first(page(0)?)?;
    let mut next = pages.head.get("next_cursor").and_then(Value::as_u64);
    while let Some(cursor) = next {
        let value = page(cursor)?;
        pages.add(&value)?;
        // A daemon that does not move on must not keep us for ever.
        next = value.get("next_cursor").and_then(Value::as_u64).filter(|next| *next > cursor);
    }
    Ok(pages)
}
