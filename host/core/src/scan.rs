//! Looking for what content should not hold when a model reads it: hidden characters, links that carry data, phrases that
//! address the model, delimiters of chat templates.
//!
//! A scan labels and alerts. It cannot decide: an attacker who knows it writes around it, and ordinary text may look like
//! one. What stops an attack is taint and the floor beneath policies; a finding taints. Every text is looked at once from
//! front to back in bounded memory, whatever it holds, so that no content can stall the host. What is compared is folded
//! first: case, full width, accents, look-alike letters and hidden characters do not hide a phrase.

mod fold;
mod link;
mod phrase;

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::display::visible;
use crate::redact;

/// Bytes of text that one scan looks at; more than any reply may hold.
pub const SCAN_MAX_BYTES: usize = 8 * 1024 * 1024;
/// Characters of a finding's excerpt.
const EXCERPT_CHARS: usize = 60;
/// Levels of a value that are looked at; strict JSON has fewer.
const DEPTH_MAX: usize = 128;

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Suspicion {
    /// Characters that reorder what is shown (Trojan Source).
    Bidi,
    /// Characters that are not shown and do nothing where they stand.
    Invisible,
    /// Tag characters: ASCII that only a model sees.
    Tags,
    /// Control characters and escape sequences.
    Control,
    /// A link or an image whose address carries data.
    Link,
    /// A phrase that tells a model what to do.
    Instruction,
    /// A delimiter of a chat template.
    Template,
    /// More text than was looked at.
    Unread,
}

impl Suspicion {
    /// All kinds.
    pub const ALL: [Self; 8] = [
        Self::Bidi,
        Self::Invisible,
        Self::Tags,
        Self::Control,
        Self::Link,
        Self::Instruction,
        Self::Template,
        Self::Unread,
    ];

    /// The word for it, as labels of replies.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Bidi => "bidi",
            Self::Invisible => "invisible",
            Self::Tags => "tags",
            Self::Control => "control",
            Self::Link => "link",
            Self::Instruction => "instruction",
            Self::Template => "template",
            Self::Unread => "unread",
        }
    }

    /// What it is, for whoever reads the reply.
    #[must_use]
    pub const fn text(self) -> &'static str {
        match self {
            Self::Bidi => "characters that reorder text",
            Self::Invisible => "invisible characters",
            Self::Tags => "tag characters, which only a model sees",
            Self::Control => "control characters",
            Self::Link => "a link or image whose address carries data",
            Self::Instruction => "a phrase that tells a model what to do",
            Self::Template => "a delimiter of a chat template",
            Self::Unread => "more text than was looked at",
        }
    }
}

/// The first of its kind, and how many there are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// What it is.
    pub suspicion: Suspicion,
    /// How often.
    pub count: u32,
    /// Where the first one is: a JSON Pointer, or the empty text for the whole.
    pub pointer: String,
    /// The first one with what stands around it, every hidden character spelled out.
    pub excerpt: String,
}

impl Finding {
    /// What may stand where contents may not: without the excerpt.
    #[must_use]
    pub fn without_excerpt(&self) -> Self {
        Self { excerpt: String::new(), ..self.clone() }
    }
}

/// What one scan found, at most one entry of each kind, in the order of [`Suspicion::ALL`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(Vec<Finding>);

impl Findings {
    /// Whether nothing was found.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One entry of each kind that was found.
    #[must_use]
    pub fn entries(&self) -> &[Finding] {
        &self.0
    }

    /// Both together; of one kind, the first finding of `self`.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        for finding in other.0 {
            match self.0.iter_mut().find(|known| known.suspicion == finding.suspicion) {
                Some(known) => known.count = known.count.saturating_add(finding.count),
                None => self.0.push(finding),
            }
        }
        self.0.sort_by_key(|finding| finding.suspicion);
        self
    }

    /// Whether this was found.
    #[must_use]
    pub fn has(&self, suspicion: Suspicion) -> bool {
        self.0.iter().any(|finding| finding.suspicion == suspicion)
    }

    /// Without what stands around what was found in a part that is hidden: pointers that begin with `prefix` name such
    /// parts of what was scanned.
    #[must_use]
    pub fn hiding(mut self, prefix: &str, hidden: &BTreeSet<String>) -> Self {
        for finding in &mut self.0 {
            let at = format!("{prefix}{}", finding.pointer);
            if redact::may_touch(&at, hidden) {
                redact::HIDDEN.clone_into(&mut finding.excerpt);
            }
        }
        self
    }
}

/// Look at a text.
#[must_use]
pub fn text(text: &str) -> Findings {
    let mut scan = Scan::default();
    scan.text(text);
    scan.finish()
}

/// Look at every text of a value, names of members included.
#[must_use]
pub fn value(value: &Value) -> Findings {
    let mut scan = Scan::default();
    scan.value(value, 0);
    scan.finish()
}

/// One way down from a value to a part of it.
enum Step<'v> {
    Member(&'v str),
    Element(usize),
}

/// A scan under way. Its buffers are used for every text in turn.
#[derive(Default)]
struct Scan<'v> {
    path: Vec<Step<'v>>,
    folded: String,
    seen: usize,
    found: Vec<Finding>,
}

impl<'v> Scan<'v> {
    fn value(&mut self, value: &'v Value, depth: usize) {
        if depth > DEPTH_MAX {
            return self.note(Suspicion::Unread, "", 0);
        }
        match value {
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                for (at, item) in items.iter().enumerate() {
                    self.path.push(Step::Element(at));
                    self.value(item, depth + 1);
                    self.path.pop();
                }
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.path.push(Step::Member(name));
                    self.text(name);
                    self.value(member, depth + 1);
                    self.path.pop();
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn text(&mut self, text: &str) {
        self.seen = self.seen.saturating_add(text.len());
        if self.seen > SCAN_MAX_BYTES {
            return self.note(Suspicion::Unread, "", 0);
        }
        let mut folded = std::mem::take(&mut self.folded);
        folded.clear();
        fold::fold(text, &mut folded, &mut |suspicion, at| self.note(suspicion, text, at));
        phrase::look(&folded, &mut |suspicion, at| self.note(suspicion, &folded, at));
        self.folded = folded;
        link::look(text, &mut |at| self.note(Suspicion::Link, text, at));
    }

    /// Count a finding at a byte of a text; the first of its kind is described.
    fn note(&mut self, suspicion: Suspicion, text: &str, at: usize) {
        if let Some(known) = self.found.iter_mut().find(|finding| finding.suspicion == suspicion) {
            known.count = known.count.saturating_add(1);
            return;
        }
        let (pointer, excerpt) = (self.pointer(), excerpt(text, at));
        self.found.push(Finding { suspicion, count: 1, pointer, excerpt });
    }

    fn pointer(&self) -> String {
        let mut pointer = String::new();
        for step in &self.path {
            pointer.push('/');
            match step {
                Step::Member(name) => pointer.push_str(&visible(&name.replace('~', "~0").replace('/', "~1"))),
                Step::Element(at) => pointer.push_str(&at.to_string()),
            }
        }
        pointer
    }

    fn finish(mut self) -> Findings {
        self.found.sort_by_key(|finding| finding.suspicion);
        Findings(self.found)
    }
}

/// What stands at a byte of a text, with a little before it.
fn excerpt(text: &str, at: usize) -> String {
    let before = text.get(..at).unwrap_or_default();
    let from = before.char_indices().rev().nth(EXCERPT_CHARS / 4).map_or(0, |(from, _)| from);
    let around = text.get(from..).unwrap_or_default();
    let shown: String = around.chars().take(EXCERPT_CHARS).collect();
    visible(&shown).into_owned()
}

#[cfg(test)]
mod tests;
