//! Folding: a text as a model may read it, in lower-case letters of ASCII as far as they look like some.
//!
//! On the way every hidden character is judged where it stands. Joiners between emoji, in Arabic and in Indic scripts, one
//! variation selector behind a symbol, and the tags of a regional flag are ordinary; the same characters between Latin
//! letters are not.

use super::Suspicion;

/// The black flag, behind which tag characters name a region.
const FLAG: char = '\u{1F3F4}';
/// Tag characters of one flag, the cancelling one included: `gbeng` and a few more.
const FLAG_TAGS_MAX: u32 = 8;

/// What the loop remembers of the characters before.
#[derive(Default)]
struct Before {
    last: Option<char>,
    selectors: u32,
    /// Tags that may still follow a flag.
    tags: u32,
}

/// Append the folded text to `folded`, and tell of every hidden character that is not ordinary where it stands.
pub(super) fn fold(text: &str, folded: &mut String, found: &mut dyn FnMut(Suspicion, usize)) {
    if text.is_ascii() {
        let control = |byte: u8| (byte < b' ' && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0x7F;
        for (at, _) in text.bytes().enumerate().filter(|(_, byte)| control(*byte)) {
            found(Suspicion::Control, at);
        }
        folded.push_str(text);
        folded.make_ascii_lowercase();
        return;
    }
    folded.reserve(text.len());
    let mut before = Before::default();
    let mut chars = text.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c.is_ascii() && !c.is_ascii_control() {
            folded.push(c.to_ascii_lowercase());
            before = Before { last: Some(c), ..Before::default() };
            continue;
        }
        let next = chars.peek().map(|(_, next)| *next);
        let hidden = judge(c, at, next, &mut before, found);
        if !hidden {
            plain(c, folded);
            before.last = Some(c);
            before.selectors = 0;
            before.tags = if c == FLAG { FLAG_TAGS_MAX } else { 0 };
        }
    }
}

/// Whether the character is a hidden one; tells of it if it is not ordinary here.
fn judge(c: char, at: usize, next: Option<char>, before: &mut Before, found: &mut dyn FnMut(Suspicion, usize)) -> bool {
    let latin = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    match c {
        '\t' | '\n' | '\r' => false,
        '\u{0}'..='\u{1F}' | '\u{7F}'..='\u{9F}' => {
            found(Suspicion::Control, at);
            true
        }
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => {
            found(Suspicion::Bidi, at);
            true
        }
        // Marks of direction stand in ordinary Arabic and Hebrew; between Latin letters they do nothing but hide.
        '\u{200E}' | '\u{200F}' | '\u{61C}' | '\u{200C}' | '\u{200D}' => {
            if latin(before.last) && latin(next) {
                found(Suspicion::Invisible, at);
            }
            true
        }
        '\u{FE00}'..='\u{FE0F}' | '\u{E0100}'..='\u{E01EF}' => {
            before.selectors += 1;
            // One behind a symbol chooses its form, also behind the digit of a keycap; several carry data.
            if before.selectors > 1 || (latin(before.last) && next != Some('\u{20E3}')) {
                found(Suspicion::Invisible, at);
            }
            true
        }
        '\u{E0000}'..='\u{E007F}' => {
            if before.tags == 0 {
                found(Suspicion::Tags, at);
            }
            before.tags = before.tags.saturating_sub(1);
            true
        }
        // A byte-order mark at the very beginning is ordinary.
        '\u{FEFF}' if at == 0 => true,
        // A soft hyphen is where a word may be broken; several in a row are not.
        '\u{AD}' => {
            if next == Some('\u{AD}') {
                found(Suspicion::Invisible, at);
            }
            true
        }
        '\u{200B}'
        | '\u{2060}'..='\u{2064}'
        | '\u{206A}'..='\u{206F}'
        | '\u{FEFF}'
        | '\u{180E}'
        | '\u{34F}'
        | '\u{115F}'
        | '\u{1160}'
        | '\u{3164}'
        | '\u{FFA0}'
        | '\u{17B4}'
        | '\u{17B5}'
        | '\u{1D173}'..='\u{1D17A}'
        | '\u{FFF9}'..='\u{FFFB}' => {
            found(Suspicion::Invisible, at);
            true
        }
        _ => false,
    }
}

/// The character as the letter of ASCII that it looks like, or as it is.
fn plain(c: char, folded: &mut String) {
    let letter = match c {
        // Full width: the same as ASCII, 0xFEE0 further on.
        '\u{FF01}'..='\u{FF5E}' => {
            u32::from(c).checked_sub(0xFEE0).and_then(char::from_u32).map_or(c, |c| c.to_ascii_lowercase())
        }
        '\u{A0}' | '\u{2000}'..='\u{200A}' | '\u{202F}' | '\u{205F}' | '\u{3000}' | '\u{2028}' | '\u{2029}' => ' ',
        '\u{2018}' | '\u{2019}' | '\u{2BC}' => '\'',
        'à'..='å' | 'À'..='Å' | 'ā' | 'ă' | 'ą' | 'а' | 'А' | 'α' | 'Α' => 'a',
        'ç' | 'Ç' | 'ć' | 'č' | 'с' | 'С' | 'ϲ' => 'c',
        'è'..='ë' | 'È'..='Ë' | 'ē' | 'ė' | 'ę' | 'ě' | 'е' | 'Е' | 'ё' | 'ε' | 'Ε' => 'e',
        'ì'..='ï' | 'Ì'..='Ï' | 'ī' | 'į' | 'ı' | 'і' | 'І' | 'ι' | 'Ι' => 'i',
        'ñ' | 'Ñ' | 'ń' | 'ň' | 'п' | 'η' => 'n',
        'ò'..='ö' | 'Ò'..='Ö' | 'ø' | 'Ø' | 'ō' | 'ő' | 'о' | 'О' | 'ο' | 'Ο' => 'o',
        'ù'..='ü' | 'Ù'..='Ü' | 'ū' | 'ů' | 'ű' | 'υ' => 'u',
        'ý' | 'ÿ' | 'Ý' | 'у' | 'У' => 'y',
        'ѕ' | 'Ѕ' | 'ś' | 'š' | 'Š' => 's',
        'р' | 'Р' | 'ρ' | 'Ρ' => 'p',
        'т' | 'Т' | 'τ' | 'Τ' => 't',
        'х' | 'Х' | 'χ' | 'Χ' => 'x',
        'ԁ' => 'd',
        'ɡ' => 'g',
        'һ' | 'Н' => 'h',
        'ј' | 'Ј' => 'j',
        'к' | 'К' | 'κ' | 'Κ' => 'k',
        'ӏ' | 'ⅼ' => 'l',
        'м' | 'М' | 'Μ' => 'm',
        'ԛ' => 'q',
        'г' => 'r',
        'ν' | 'ѵ' => 'v',
        'ԝ' => 'w',
        'ž' | 'Ž' | 'Ζ' => 'z',
        'В' | 'Β' => 'b',
        other => other,
    };
    folded.push(letter);
}
