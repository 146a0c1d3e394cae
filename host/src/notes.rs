//! Notes: what the checks said about one call, kept beside its row.
//!
//! They are for whoever looks back: which policies decided and what for, what the call had seen, what the screen found, what
//! is to be hidden when it is shown. A call that only read, and of which nothing is to be said, has none, so that ordinary
//! reading costs nothing. They name and count; contents stay where they are.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use toolkeep_core::autonomy::Autonomy;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::StandingId;
use toolkeep_core::scan::Finding;
use toolkeep_core::taint::Taint;

/// What the checks said.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notes {
    /// What the call itself saw.
    #[serde(default, skip_serializing_if = "Taint::is_none")]
    pub taint: Taint,
    /// What its run had seen by then, the call included.
    #[serde(default, skip_serializing_if = "Taint::is_none")]
    pub run_taint: Taint,
    /// What the scan found.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub findings: Vec<Finding>,
    /// What is hidden wherever the call is shown: JSON Pointers that begin with `/input` or `/output`.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub redact: BTreeSet<String>,
    /// What the schemas of its tool mark as sensitive: hidden from eyes, not from the agent that called.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub sensitive: BTreeSet<String>,
    /// The only plan that its caller wanted committed, for when the call is made again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expect_plan: Option<Digest>,
    /// What was decided about its plan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ruling: Option<RulingNote>,
}

/// What was decided about a plan, and by what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulingNote {
    /// `commit`, `hold`, `preview`, `deny` or `nothing`.
    pub decision: String,
    /// Why it is not committed, or whose consent it needs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// The policy set.
    pub policy_set: Digest,
    /// The policies that allowed the call.
    pub call: Vec<String>,
    /// The policies that decided about the plan; none where the floor beneath them did.
    pub plan: Vec<String>,
    /// How far the agent might go with the tool.
    pub autonomy: Autonomy,
    /// The standing approval that stood for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub standing: Option<StandingId>,
}

impl Notes {
    /// Notes from their text; nothing where it cannot be read.
    #[must_use]
    pub fn read(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// Drop what findings quote.
    pub fn drop_excerpts(&mut self) {
        self.findings.iter_mut().for_each(|finding| *finding = finding.without_excerpt());
    }

    /// The notes as text; nothing if nothing was noted. Where something is hidden, findings quote nothing: it may be that.
    #[must_use]
    pub fn text(&self) -> Option<Arc<str>> {
        if *self == Self::default() {
            return None;
        }
        if !self.redact.is_empty() || !self.sensitive.is_empty() {
            let mut quiet = self.clone();
            quiet.drop_excerpts();
            return serde_json::to_string(&quiet).ok().map(Arc::from);
        }
        serde_json::to_string(self).ok().map(Arc::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_read_back_and_nothing_is_no_text() {
        assert_eq!(Notes::default().text(), None);
        let ruling = RulingNote {
            decision: "hold".to_owned(),
            because: "tier 2".to_owned(),
            policy_set: Digest::of(b""),
            call: vec!["`call` (default.cedar:8)".to_owned()],
            plan: Vec::new(),
            autonomy: Autonomy::Approve,
            standing: None,
        };
        let notes = Notes { taint: Taint::PRIVATE, ruling: Some(ruling), ..Notes::default() };
        assert_eq!(Notes::read(&notes.text().expect("text")), notes);
        assert_eq!(Notes::read("nonsense"), Notes::default());
    }
}
