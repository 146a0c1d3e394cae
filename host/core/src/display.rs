//! Text that others wrote, made safe to look at: whatever would hide, reorder or overwrite is shown as `⟨U+202E⟩`.
//!
//! A person approves what a terminal shows. Escape sequences, bidirectional controls, zero-width and tag characters make
//! it show something else (Trojan Source, CVE-2021-42574), so no text of a guest, an agent, a file or a path reaches a
//! screen except through this module. The rule is total: every code point is either shown as it is or spelled out, and
//! the tests walk all 1,114,112. It does not judge look-alikes; [`mixed_scripts`] only hints at them.

use std::borrow::Cow;
use std::fmt::{self, Write as _};

use script::script_of;

mod script;

/// Text that others wrote. Formatting it writes the visible form, on one line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Untrusted<'a>(pub &'a str);

impl fmt::Display for Untrusted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&visible(self.0))
    }
}

/// The text on one line: every hidden character spelled out, line ends and tabs too.
#[must_use]
pub fn visible(text: &str) -> Cow<'_, str> {
    spell(text, |_| false)
}

/// The text with its line feeds and tabs kept, and every other hidden character spelled out. A carriage return is
/// spelled out: it would let the rest of a line overwrite its beginning.
#[must_use]
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    spell(text, |c| matches!(c, '\n' | '\t'))
}

/// JSON text with every hidden character inside its strings as a `\u` escape: the same value, safe on a terminal.
#[must_use]
pub fn visible_json(json: &str) -> Cow<'_, str> {
    // Between the tokens of JSON only these may stand; inside its strings they are escaped already.
    let keep = |c| matches!(c, '\n' | '\t' | '\r');
    if !json.chars().any(|c| is_hidden(c) && !keep(c)) {
        return Cow::Borrowed(json);
    }
    let mut shown = String::with_capacity(json.len() + 32);
    for c in json.chars() {
        if is_hidden(c) && !keep(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                write_number(&mut shown, format_args!("\\u{unit:04x}"));
            }
        } else {
            shown.push(c);
        }
    }
    Cow::Owned(shown)
}

fn spell(text: &str, keep: impl Fn(char) -> bool) -> Cow<'_, str> {
    let plain = |c: char| !is_hidden(c) || keep(c);
    // Most text is plain ASCII: one look decides.
    if text.chars().all(|c| plain(c) && c != '⟨') {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 32);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        // A literal `⟨U+…` would read as if a character had been spelled out here.
        let forged = c == '⟨' && rest.as_str().starts_with("U+");
        if plain(c) && !forged {
            shown.push(c);
        } else {
            write_number(&mut shown, format_args!("⟨U+{:04X}⟩", u32::from(c)));
        }
    }
    Cow::Owned(shown)
}

fn write_number(text: &mut String, number: fmt::Arguments<'_>) {
    // Writing to a string does not fail.
    let _infallible = text.write_fmt(number);
}

/// Characters beyond controls that are hidden: inclusive ranges, ascending. Sources: general categories Cf, Zl, Zp, Zs
/// and Co, the property `Default_Ignorable_Code_Point`, and noncharacters, of Unicode 17.
const HIDDEN: &[(u32, u32)] = &[
    (0x00A0, 0x00A0),   // no-break space
    (0x00AD, 0x00AD),   // soft hyphen
    (0x034F, 0x034F),   // combining grapheme joiner
    (0x0600, 0x0605),   // Arabic number signs
    (0x061C, 0x061C),   // Arabic letter mark
    (0x06DD, 0x06DD),   // Arabic end of ayah
    (0x070F, 0x070F),   // Syriac abbreviation mark
    (0x0890, 0x0891),   // Arabic pound and piastre marks
    (0x08E2, 0x08E2),   // Arabic disputed end of ayah
    (0x115F, 0x1160),   // Hangul fillers
    (0x1680, 0x1680),   // Ogham space
    (0x17B4, 0x17B5),   // Khmer inherent vowels
    (0x180B, 0x180F),   // Mongolian variation selectors
    (0x2000, 0x200F),   // spaces, zero-width characters, direction marks
    (0x2028, 0x202F),   // line and paragraph separators, embeddings, overrides, narrow space
    (0x205F, 0x206F),   // mathematical space, invisible operators, isolates, deprecated controls
    (0x2800, 0x2800),   // blank Braille pattern
    (0x3000, 0x3000),   // ideographic space
    (0x3164, 0x3164),   // Hangul filler
    (0xE000, 0xF8FF),   // private use
    (0xFDD0, 0xFDEF),   // noncharacters
    (0xFE00, 0xFE0F),   // variation selectors
    (0xFEFF, 0xFEFF),   // byte-order mark
    (0xFFA0, 0xFFA0),   // half-width Hangul filler
    (0xFFF0, 0xFFFC),   // reserved, interlinear annotation, object replacement
    (0xFFFE, 0xFFFF),   // noncharacters
    (0x110BD, 0x110BD), // Kaithi number sign
    (0x110CD, 0x110CD), // Kaithi number sign above
    (0x13430, 0x1343F), // hieroglyph format controls
    (0x16FE4, 0x16FE4), // Khitan filler
    (0x1BCA0, 0x1BCA3), // shorthand format controls
    (0x1D159, 0x1D159), // null notehead
    (0x1D173, 0x1D17A), // musical format controls
    (0x1FFFE, 0x1FFFF), // noncharacters, at the end of this plane and of each to come
    (0x2FFFE, 0x2FFFF),
    (0x3FFFE, 0x3FFFF),
    (0x4FFFE, 0x4FFFF),
    (0x5FFFE, 0x5FFFF),
    (0x6FFFE, 0x6FFFF),
    (0x7FFFE, 0x7FFFF),
    (0x8FFFE, 0x8FFFF),
    (0x9FFFE, 0x9FFFF),
    (0xAFFFE, 0xAFFFF),
    (0xBFFFE, 0xBFFFF),
    (0xCFFFE, 0xCFFFF),
    (0xDFFFE, 0xDFFFF),
    (0xE0000, 0xE0FFF),  // tags, more variation selectors, reserved ignorables
    (0xEFFFE, 0x10FFFF), // noncharacters and the private planes
];

/// Whether a character is spelled out: it controls, hides, reorders, or looks like an ordinary space.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        c if c.is_control() => true,
        c => {
            let code = u32::from(c);
            let after = HIDDEN.partition_point(|(_, last)| *last < code);
            HIDDEN.get(after).is_some_and(|(first, _)| *first <= code)
        }
    }
}

/// The first two scripts whose letters one word of a name mixes although they look alike, for example `Latin` and
/// `Cyrillic`.
///
/// A hint for people, after UTS 39: honest words mix too, and one script alone can deceive as well.
#[must_use]
pub fn mixed_scripts(name: &str) -> Option<(&'static str, &'static str)> {
    name.split(|c: char| !c.is_alphanumeric()).find_map(|word| {
        let mut scripts = word.chars().filter_map(script_of);
        let first = scripts.next()?;
        scripts.find(|script| *script != first).map(|second| (first, second))
    })
}

#[cfg(test)]
mod tests;
