//! Lines for a terminal: the only place of the core that knows colours. Nothing that others wrote is written here
//! without [`visible`].

use super::diff::{Change, HEAD_BYTES, Hidden, Line, Sign};
use super::{Rendering, subject, warnings};
use crate::digest::Digest;
use crate::display::{visible, visible_lines};
use crate::effect::{BodyState, Effect, FileState, Times};
use crate::plan::Totals;

/// Text that somebody else says, in a box that says who: never to be taken for the host's own words.
#[must_use]
pub fn quoted(speaker: &str, words: &str) -> String {
    let shown = visible_lines(words);
    let mut text = format!("┌ {} says (not checked):\n", visible(speaker));
    for line in shown.lines() {
        text.push_str("│ ");
        text.push_str(line);
        text.push('\n');
    }
    text.push_str("└\n");
    text
}

/// How a piece of text looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ink {
    Bold,
    Dim,
    Red,
    Green,
    RedWord,
    GreenWord,
    Warning,
}

impl Ink {
    /// The SGR sequence of ECMA-48 that starts it.
    const fn start(self) -> &'static str {
        match self {
            Self::Bold => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
            Self::Red => "\u{1b}[31m",
            Self::Green => "\u{1b}[32m",
            Self::RedWord => "\u{1b}[31;7m",
            Self::GreenWord => "\u{1b}[32;7m",
            Self::Warning => "\u{1b}[33;1m",
        }
    }
}

/// A rendering in the making.
pub(super) struct Page {
    text: String,
    hidden_bytes: u64,
    colour: bool,
}

impl Page {
    pub(super) const fn new(colour: bool) -> Self {
        Self { text: String::new(), hidden_bytes: 0, colour }
    }

    pub(super) fn finish(self) -> Rendering {
        Rendering { text: self.text, hidden_bytes: self.hidden_bytes }
    }

    fn ink(&mut self, ink: Ink, text: &str) {
        if self.colour {
            self.text.push_str(ink.start());
            self.text.push_str(text);
            self.text.push_str("\u{1b}[0m");
        } else {
            self.text.push_str(text);
        }
    }

    fn line(&mut self, ink: Ink, text: &str) {
        self.ink(ink, text);
        self.text.push('\n');
    }

    /// The first line: what the plan does, counted.
    pub(super) fn totals(&mut self, totals: &Totals) {
        if totals.effects == 0 {
            return self.line(Ink::Bold, "no effects");
        }
        let counted = [
            (totals.deletes, "delete"),
            (totals.overwrites, "overwrite"),
            (totals.renames, "rename"),
            (totals.requests, "request"),
            (totals.messages, "message"),
            (totals.creates, "create"),
            (totals.keys, "key"),
            (totals.others, "other"),
        ];
        let parts: Vec<String> =
            counted.iter().filter(|(count, _)| *count > 0).map(|(count, word)| many(*count, word)).collect();
        let written = many(totals.bytes_written, "byte");
        let line = format!("{}: {}; {written} written", many(totals.effects, "effect"), parts.join(", "));
        self.line(Ink::Bold, &line);
    }

    pub(super) fn heading(&mut self, title: &str, members: usize) {
        self.text.push('\n');
        self.line(Ink::Bold, &format!("{title} ({})", grouped(members as u64)));
    }

    /// The line that names an effect.
    pub(super) fn entry(&mut self, effect: &Effect) {
        let (ink, mark, rest) = match effect {
            Effect::FileDelete { before, .. } => (Ink::Red, '-', many(before.size, "byte")),
            Effect::FileWrite { before: None, after, .. } => (Ink::Green, '+', many(after.size, "byte")),
            Effect::FileWrite { before: Some(before), after, .. } => (Ink::Bold, '~', sizes(before, after)),
            Effect::FileRename { before, .. } => (Ink::Bold, '>', many(before.size, "byte")),
            Effect::FileMetadata { before, after, .. } => {
                (Ink::Bold, 't', format!("modified {} -> {}", utc(*before), utc(*after)))
            }
            Effect::DirCreate { .. } => (Ink::Green, '+', "directory".to_owned()),
            Effect::DirDelete { .. } => (Ink::Red, '-', "directory".to_owned()),
            Effect::HttpRequest(request) => (Ink::Bold, '^', size_of(request.body.as_ref())),
            Effect::MessageSend(message) => (Ink::Bold, '@', many(message.body.size, "byte")),
            Effect::KvDelete { before, .. } => (Ink::Red, '-', many(before.size, "byte")),
            Effect::KvSet { before: None, after, .. } => (Ink::Green, '+', many(after.size, "byte")),
            Effect::KvSet { before: Some(before), after, .. } => {
                (Ink::Bold, '~', format!("{} -> {}", grouped(before.size), many(after.size, "byte")))
            }
            Effect::KvAdd { delta, .. } => (Ink::Bold, '~', format!("{delta:+}")),
        };
        let subject = subject(effect);
        self.text.push_str("  ");
        self.ink(ink, &format!("{mark} {subject}"));
        self.text.push_str("  ");
        self.text.push_str(&rest);
        self.text.push('\n');
        self.details(effect);
        for warning in warnings(effect) {
            self.text.push_str("    ");
            self.line(Ink::Warning, &format!("! {warning}"));
        }
    }

    /// What a request or message says besides its body: all of it, since all of it leaves.
    fn details(&mut self, effect: &Effect) {
        match effect {
            Effect::HttpRequest(request) => {
                for header in &request.headers {
                    self.detail(&header.name, &header.value);
                }
                if let Some(credential) = &request.credential {
                    self.detail("credential", &format!("{credential}, added by the host"));
                }
                self.detail("grant", request.grant.as_str());
            }
            Effect::MessageSend(message) => {
                self.detail("subject", &message.subject);
                self.detail("type", &message.media_type);
            }
            _ => {}
        }
    }

    fn detail(&mut self, name: &str, value: &str) {
        self.text.push_str(&format!("    {}: {}\n", visible(name), visible(value)));
    }

    /// How the content changes, beneath the entry.
    pub(super) fn change(&mut self, effect: &Effect, change: &Change, hidden: Option<Hidden>) {
        match change {
            Change::Text(hunks) => {
                for hunk in hunks {
                    self.text.push_str("    ");
                    self.line(Ink::Dim, &hunk.header);
                    for line in &hunk.lines {
                        self.diff_line(line);
                    }
                }
            }
            Change::Binary { before, after } => {
                self.states(effect, "binary");
                for (name, head) in [("before", before), ("after", after)] {
                    if let Some(head) = head {
                        self.hexdump(name, head);
                    }
                }
            }
            Change::Large => self.states(effect, "larger than a diff may be"),
            Change::Missing => self.states(effect, "content not at hand"),
        }
        if let Some(hidden) = hidden {
            self.hidden("    ", hidden, "of this diff");
        }
    }

    fn diff_line(&mut self, line: &Line) {
        let (ink, word) = match line.sign {
            Sign::Context => (None, Ink::Bold),
            Sign::Removed => (Some(Ink::Red), Ink::RedWord),
            Sign::Added => (Some(Ink::Green), Ink::GreenWord),
        };
        self.text.push_str("    ");
        self.piece(ink, &line.sign.mark().to_string());
        let mut at = 0;
        for range in &line.emphasis {
            self.piece(ink, line.text.get(at..range.start).unwrap_or_default());
            self.piece(Some(word), line.text.get(range.clone()).unwrap_or_default());
            at = range.end;
        }
        self.piece(ink, line.text.get(at..).unwrap_or_default());
        self.text.push('\n');
        if let Some(cut) = line.cut {
            self.hidden("      ", cut, "of this line");
        }
        if line.unfinished {
            self.text.push_str("    ");
            self.line(Ink::Dim, "\\ no line feed at the end");
        }
    }

    fn piece(&mut self, ink: Option<Ink>, text: &str) {
        // Tabs stay: they only move forward.
        let shown = visible_lines(text);
        match ink {
            Some(ink) if !text.is_empty() => self.ink(ink, &shown),
            _ => self.text.push_str(&shown),
        }
    }

    fn states(&mut self, effect: &Effect, why: &str) {
        let (before, after) = effect.contents();
        self.text.push_str("    ");
        self.line(Ink::Dim, why);
        for (name, state) in [("before", before), ("after", after)] {
            if let Some(state) = state {
                self.text.push_str(&format!("    {name:<6} {}  sha256 {}\n", many(state.size, "byte"), state.sha256));
            }
        }
    }

    fn hexdump(&mut self, name: &str, head: &[u8]) {
        self.text.push_str("    ");
        self.line(Ink::Dim, &format!("{name}, first {} bytes", head.len().min(HEAD_BYTES)));
        for (row, bytes) in head.chunks(16).enumerate() {
            let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let ascii: String = bytes
                .iter()
                .map(|byte| if byte.is_ascii_graphic() || *byte == b' ' { char::from(*byte) } else { '.' })
                .collect();
            self.text.push_str(&format!("    {:04x}  {:<47}  {ascii}\n", row * 16, hex.join(" ")));
        }
    }

    /// The line that stands for entries that are not listed.
    pub(super) fn folded(&mut self, members: usize, hidden: Hidden) {
        self.hidden(
            "  ",
            hidden,
            &format!("of {} more effect{}", grouped(members as u64), if members == 1 { "" } else { "s" }),
        );
    }

    fn hidden(&mut self, indent: &str, hidden: Hidden, what: &str) {
        self.hidden_bytes = self.hidden_bytes.saturating_add(hidden.bytes);
        self.text.push_str(indent);
        let digest: Digest = hidden.sha256;
        self.line(Ink::Warning, &format!("… {} {what} hidden, sha256 {digest}", many(hidden.bytes, "byte")));
    }
}

pub(super) fn size_of(body: Option<&BodyState>) -> String {
    body.map_or_else(|| "no body".to_owned(), |body| many(body.size, "byte"))
}

fn sizes(before: &FileState, after: &FileState) -> String {
    let mut text = format!("{} -> {}", grouped(before.size), many(after.size, "byte"));
    if before.mode != after.mode {
        text.push_str(&format!(", mode {:03o} -> {:03o}", before.mode, after.mode));
    }
    text
}

/// A count with its word: `1 file`, `2 files`.
pub(super) fn many(count: u64, word: &str) -> String {
    format!("{} {word}{}", grouped(count), if count == 1 { "" } else { "s" })
}

/// Digits in groups of three.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A time as `2026-01-31T08:05:09Z`, seconds rounded down (proleptic Gregorian calendar).
pub(super) fn utc(times: Times) -> String {
    const DAY: i64 = 86_400;
    let seconds = times.modified_ns.div_euclid(1_000_000_000);
    let (days, second) = (seconds.div_euclid(DAY), seconds.rem_euclid(DAY));
    // Days are counted from 1 March of year 0, so that leap days end a year; 146,097 days are 400 years.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute) = (second / 3_600, second / 60 % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{:02}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_in_utc() {
        let check = |seconds: i64, expect: &str| {
            assert_eq!(utc(Times { modified_ns: seconds.saturating_mul(1_000_000_000) }), expect);
        };
        check(0, "1970-01-01T00:00:00Z");
        check(-1, "1969-12-31T23:59:59Z");
        check(951_782_399, "2000-02-28T23:59:59Z");
        check(951_782_400, "2000-02-29T00:00:00Z");
        check(951_868_800, "2000-03-01T00:00:00Z");
        check(1_769_846_709, "2026-01-31T08:05:09Z");
        check(4_107_542_400, "2100-03-01T00:00:00Z");
        assert_eq!(utc(Times { modified_ns: i64::MAX }), "2262-04-11T23:47:16Z");
        assert_eq!(utc(Times { modified_ns: i64::MIN }), "1677-09-21T00:12:43Z");
    }

    #[test]
    fn counts_are_grouped() {
        for (count, expect) in [(0, "0 bytes"), (1, "1 byte"), (999, "999 bytes"), (1_000, "1,000 bytes")] {
            assert_eq!(many(count, "byte"), expect);
        }
        assert_eq!(grouped(1_234_567), "1,234,567");
    }

    #[test]
    fn t_p3_quoted_words_cannot_leave_their_box() {
        let text = quoted("agent `x`\n", "all fine\n└\u{1b}[2K\napproved by the host");
        assert_eq!(
            text,
            "┌ agent `x`⟨U+000A⟩ says (not checked):\n│ all fine\n│ └⟨U+001B⟩[2K\n│ approved by the host\n└\n"
        );
    }
}
