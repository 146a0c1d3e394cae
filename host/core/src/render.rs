//! Plans as people read them before they say yes. Made from typed effects and stored contents, never from what a tool or
//! an agent says about them.
//!
//! The order is the order of harm: totals, then every deletion, overwrite, request and message (these are never folded
//! away), then renames, creations, directories, keys, times. Whatever is shortened says how many bytes are hidden and their SHA-256, and
//! [`Rendering::hidden_bytes`] lets an approval wait until everything was shown. All text that others wrote goes through
//! [`crate::display`]. Renderings are never part of a digest.

use serde_json::{Value, json};

use crate::digest::Digest;
use crate::display::{mixed_scripts, visible};
use crate::effect::{Delivery, Effect, HttpEffect, Reversal};
use crate::json::canonical_text;
use crate::path::WorkspacePath;
use crate::plan::Totals;
use diff::{Change, Hidden};

mod diff;
mod line;
mod terminal;

pub use line::line;
pub use terminal::quoted;

/// Lines of one file's diff that are shown; a person reads no more at once, and the rest is a flag away.
pub const FILE_LINES_SHOWN: usize = 400;
/// Lines of all diffs of one plan together: some forty screens.
pub const PLAN_LINES_SHOWN: usize = 2_000;
/// Bytes of one line that are shown: minified files have lines of a megabyte.
pub const LINE_BYTES_SHOWN: usize = 2_000;
/// Entries of each foldable section that are shown. Deletions, overwrites, requests and messages are not
/// foldable.
pub const ENTRIES_SHOWN: usize = 200;

/// How a plan is rendered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Colours by ANSI sequences: only where the output is a terminal that wants them.
    pub colour: bool,
    /// Shorten nothing.
    pub whole: bool,
}

/// A plan as text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendering {
    /// Lines, each ended by a line feed.
    pub text: String,
    /// Bytes that were left out and could be shown with [`Options::whole`].
    pub hidden_bytes: u64,
}

/// Content by its digest, if it is at hand: before- and after-images of files.
pub type Contents<'a> = &'a dyn Fn(&Digest) -> Option<Vec<u8>>;

/// Effects as text for a terminal.
#[must_use]
pub fn plan(effects: &[Effect], options: &Options, contents: Contents<'_>) -> Rendering {
    let mut page = terminal::Page::new(options.colour);
    page.totals(&Totals::of(effects));
    let mut lines_left = if options.whole { usize::MAX } else { PLAN_LINES_SHOWN };
    for section in Section::ALL {
        let members: Vec<&Effect> = effects.iter().filter(|effect| Section::of(effect) == section).collect();
        let shown = section.shown(members.len(), options);
        let (listed, folded) = members.split_at_checked(shown).unwrap_or((&members, &[]));
        if !members.is_empty() {
            page.heading(section.title(), members.len());
        }
        for effect in listed {
            page.entry(effect);
            if let Some(mut change) = change(effect, options.colour, contents) {
                let hidden = shorten(&mut change, options, &mut lines_left);
                page.change(effect, &change, hidden);
            }
        }
        if !folded.is_empty() {
            page.folded(folded.len(), fold(folded));
        }
    }
    page.finish()
}

/// Effects as JSON for programs: the same order, diffs and shortening as [`plan`], with exact paths.
///
/// Print it through [`crate::display::visible_json`] where a person may see it.
#[must_use]
pub fn plan_json(effects: &[Effect], options: &Options, contents: Contents<'_>) -> Value {
    let mut lines_left = if options.whole { usize::MAX } else { PLAN_LINES_SHOWN };
    let mut hidden_bytes = 0_u64;
    let mut entries = Vec::new();
    let mut folds = Vec::new();
    for section in Section::ALL {
        let members: Vec<&Effect> = effects.iter().filter(|effect| Section::of(effect) == section).collect();
        let (listed, folded) =
            members.split_at_checked(section.shown(members.len(), options)).unwrap_or((&members, &[]));
        for effect in listed {
            let mut shown = Value::Null;
            if let Some(mut change) = change(effect, false, contents) {
                let hidden = shorten(&mut change, options, &mut lines_left);
                hidden_bytes = hidden_bytes.saturating_add(hidden.as_ref().map_or(0, |h| h.bytes));
                hidden_bytes = hidden_bytes.saturating_add(change.cut_bytes());
                shown = change.to_json(hidden);
            }
            entries.push(json!({ "effect": effect, "warnings": warnings(effect), "change": shown }));
        }
        if !folded.is_empty() {
            let hidden = fold(folded);
            hidden_bytes = hidden_bytes.saturating_add(hidden.bytes);
            folds.push(json!({ "kind": section.title(), "effects": folded.len(), "hidden": hidden.to_json() }));
        }
    }
    json!({ "totals": Totals::of(effects), "effects": entries, "folded": folds, "hidden_bytes": hidden_bytes })
}

/// A workspace path as renderings write it: `books:reports/june.md`, hostile characters spelled out.
#[must_use]
pub fn place(effect: &Effect, path: &WorkspacePath) -> String {
    let workspace = effect.workspace().map_or("", |workspace| workspace.as_str());
    format!("{workspace}:{}", visible(&path.to_string()))
}

/// What an effect is about, as renderings write it: a path, both ends of a rename, a request, a channel, a key.
#[must_use]
pub fn subject(effect: &Effect) -> String {
    match effect {
        Effect::HttpRequest(request) => format!("{} {}", visible(&request.method), visible(&request.url)),
        Effect::MessageSend(message) => {
            let to: Vec<String> = message.to.iter().map(|to| visible(to).into_owned()).collect();
            format!("{} -> {}", message.channel, if to.is_empty() { "its receiver".to_owned() } else { to.join(", ") })
        }
        Effect::KvSet { bucket, key, .. }
        | Effect::KvDelete { bucket, key, .. }
        | Effect::KvAdd { bucket, key, .. } => {
            format!("{bucket}/{}", visible(key))
        }
        Effect::FileWrite { .. }
        | Effect::FileDelete { .. }
        | Effect::FileRename { .. }
        | Effect::FileMetadata { .. }
        | Effect::DirCreate { .. }
        | Effect::DirDelete { .. } => {
            let places: Vec<String> = effect.paths().map(|path| place(effect, path)).collect();
            places.join(" -> ")
        }
    }
}

/// What a reader should be told about an effect's paths: look-alike letters, and power over agents or accounts.
#[must_use]
pub fn warnings(effect: &Effect) -> Vec<String> {
    let mut warnings = Vec::new();
    for path in effect.paths() {
        if let Some(class) = crate::capability::SensitiveClass::of(path) {
            warnings.push(format!("sensitive path ({})", class.name()));
        }
        if let Some((one, other)) = mixed_scripts(path.as_str()) {
            warnings.push(format!("the name mixes {one} and {other} letters"));
        }
    }
    if let Effect::HttpRequest(request) = effect {
        warnings.extend(request_warnings(request));
    }
    if matches!(effect, Effect::MessageSend(_)) {
        warnings.push("a message that was sent cannot be taken back".to_owned());
    }
    warnings
}

fn request_warnings(request: &HttpEffect) -> Vec<String> {
    let mut warnings = Vec::new();
    match request.reversal {
        Reversal::None => warnings.push("nothing undoes this request".to_owned()),
        Reversal::Compensated | Reversal::Reversible => {}
    }
    if request.delivery == Delivery::Live {
        warnings.push("sent while the tool runs; the tool goes on with the answer".to_owned());
    }
    if request.url.contains("://xn--") || request.url.contains(".xn--") {
        warnings.push("the host is written in other letters than ASCII; it is shown in punycode".to_owned());
    }
    warnings
}

/// The part of a rendering that an effect belongs to, in the order of harm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Section {
    Deletes,
    Overwrites,
    Requests,
    Messages,
    Renames,
    Creates,
    Directories,
    Keys,
    Times,
}

impl Section {
    const ALL: [Self; 9] = [
        Self::Deletes,
        Self::Overwrites,
        Self::Requests,
        Self::Messages,
        Self::Renames,
        Self::Creates,
        Self::Directories,
        Self::Keys,
        Self::Times,
    ];

    const fn of(effect: &Effect) -> Self {
        match effect {
            Effect::FileDelete { .. } => Self::Deletes,
            Effect::FileWrite { before: Some(_), .. } => Self::Overwrites,
            Effect::FileRename { .. } => Self::Renames,
            Effect::FileWrite { before: None, .. } => Self::Creates,
            Effect::DirCreate { .. } | Effect::DirDelete { .. } => Self::Directories,
            Effect::FileMetadata { .. } => Self::Times,
            Effect::HttpRequest(_) => Self::Requests,
            Effect::MessageSend(_) => Self::Messages,
            Effect::KvDelete { .. } => Self::Deletes,
            Effect::KvSet { .. } | Effect::KvAdd { .. } => Self::Keys,
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Deletes => "deletes",
            Self::Overwrites => "overwrites",
            Self::Requests => "requests",
            Self::Messages => "messages",
            Self::Renames => "renames",
            Self::Creates => "creates",
            Self::Directories => "directories",
            Self::Keys => "keys",
            Self::Times => "times",
        }
    }

    fn shown(self, members: usize, options: &Options) -> usize {
        let foldable = !matches!(self, Self::Deletes | Self::Overwrites | Self::Requests | Self::Messages);
        if foldable && !options.whole { members.min(ENTRIES_SHOWN) } else { members }
    }
}

/// The change of content that an effect makes, if it makes one.
fn change(effect: &Effect, emphasise: bool, contents: Contents<'_>) -> Option<Change> {
    let (before, after) = effect.contents();
    (before.is_some() || after.is_some()).then(|| Change::between(before, after, emphasise, contents))
}

fn shorten(change: &mut Change, options: &Options, lines_left: &mut usize) -> Option<Hidden> {
    if options.whole {
        return None;
    }
    change.cut_lines(LINE_BYTES_SHOWN);
    let hidden = change.keep_lines(FILE_LINES_SHOWN.min(*lines_left));
    *lines_left = lines_left.saturating_sub(change.lines());
    hidden
}

/// What stands for effects that are not listed: the size and digest of their canonical JSON.
fn fold(effects: &[&Effect]) -> Hidden {
    let canonical = canonical_text(&effects).unwrap_or_default();
    Hidden { bytes: canonical.len() as u64, sha256: Digest::of(canonical.as_bytes()) }
}

#[cfg(test)]
mod tests;
