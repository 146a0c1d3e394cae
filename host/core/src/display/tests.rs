//! Every code point of Unicode against an independent table of general categories (G14).

use unicode_general_category::{GeneralCategory, get_general_category};

use super::*;

fn every_char() -> impl Iterator<Item = char> {
    (0..=0x0010_FFFF_u32).filter_map(char::from_u32)
}

fn spelled(c: char) -> String {
    format!("⟨U+{:04X}⟩", u32::from(c))
}

/// Default-ignorable and blank characters whose general category is that of a letter, mark, symbol or unassigned.
const IGNORABLE: &[(u32, u32)] = &[
    (0x034F, 0x034F),
    (0x115F, 0x1160),
    (0x17B4, 0x17B5),
    (0x180B, 0x180F),
    (0x2065, 0x2065),
    (0x2800, 0x2800),
    (0x3164, 0x3164),
    (0xFE00, 0xFE0F),
    (0xFFA0, 0xFFA0),
    (0xFFF0, 0xFFF8),
    (0xFFFC, 0xFFFC),
    (0x16FE4, 0x16FE4),
    (0x1D159, 0x1D159),
    (0xE0000, 0xE0FFF),
];

fn must_be_spelled(c: char) -> bool {
    let code = u32::from(c);
    let nonchar = code & 0xFFFE == 0xFFFE || (0xFDD0..=0xFDEF).contains(&code);
    nonchar
        || IGNORABLE.iter().any(|(first, last)| (*first..=*last).contains(&code))
        || match get_general_category(c) {
            GeneralCategory::Control
            | GeneralCategory::Format
            | GeneralCategory::LineSeparator
            | GeneralCategory::ParagraphSeparator
            | GeneralCategory::PrivateUse
            | GeneralCategory::Surrogate => true,
            GeneralCategory::SpaceSeparator => c != ' ',
            _ => false,
        }
}

#[test]
#[expect(clippy::print_stdout, reason = "how many there were is the measured figure")]
fn g14_t_p1_every_code_point_is_shown_as_it_is_or_spelled_out() {
    let (mut hidden, mut plain) = (0_u32, 0_u32);
    for c in every_char() {
        let text = c.to_string();
        if must_be_spelled(c) {
            hidden += 1;
            assert_eq!(visible(&text), spelled(c));
            let lines = if matches!(c, '\n' | '\t') { text.clone() } else { spelled(c) };
            assert_eq!(visible_lines(&text), lines);
        } else {
            plain += 1;
            assert_eq!(visible(&text), text, "U+{:04X}", u32::from(c));
            assert_eq!(visible_lines(&text), text);
        }
    }
    assert_eq!(hidden + plain, 1_114_112 - 2048);
    assert!(hidden > 137_000 && plain > 900_000, "{hidden} {plain}");
    println!(
        "G14 code points: 0 of {} (all there are) shown as what a terminal obeys or hides, no seed",
        hidden + plain
    );
}

#[test]
fn g14_t_p1_nothing_that_a_terminal_obeys_survives() {
    for hostile in [
        "\u{1b}[2J",
        "\u{1b}]8;;http://a\u{7}link\u{1b}]8;;\u{7}",
        "\u{9b}31m",
        "\u{90}q\u{9c}",
        "a\rb",
        "a\u{8}b",
        "\u{202e}gpj.exe",
        "\u{2066}x\u{2069}",
        "\u{e0041}\u{e007f}",
        "zero\u{200b}width",
        "\u{85}\u{2028}\u{2029}",
    ] {
        for shown in [visible(hostile), visible_lines(hostile)] {
            assert!(shown.contains("⟨U+"), "{shown}");
            assert!(shown.chars().all(|c| !is_hidden(c)), "{shown}");
        }
    }
    assert_eq!(visible("a\tb\nc"), "a⟨U+0009⟩b⟨U+000A⟩c");
    assert_eq!(visible_lines("a\tb\r\nc"), "a\tb⟨U+000D⟩\nc");
}

#[test]
fn t_p1_a_spelled_out_character_cannot_be_forged() {
    assert_eq!(visible("⟨U+202E⟩"), "⟨U+27E8⟩U+202E⟩");
    assert_eq!(visible("⟨x⟩ ⟨U"), "⟨x⟩ ⟨U");
    assert_ne!(visible("\u{202e}"), visible("⟨U+202E⟩"));
}

#[test]
fn g14_t_p1_json_keeps_its_value_and_loses_every_hidden_character() {
    for c in every_char().filter(|c| is_hidden(*c)) {
        let value = serde_json::json!({ format!("k{c}"): c.to_string() });
        for json in [value.to_string(), serde_json::to_string_pretty(&value).expect("json")] {
            let shown = visible_json(&json);
            assert!(shown.chars().all(|c| c == '\n' || !is_hidden(c)), "U+{:04X}", u32::from(c));
            assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).expect("json"), value);
        }
    }
    assert!(matches!(visible_json("{\"é\":\"日本\"}"), Cow::Borrowed(_)));
}

#[test]
fn the_tables_are_ascending_and_do_not_overlap() {
    assert!(HIDDEN.iter().all(|(first, last)| first <= last));
    assert!(HIDDEN.windows(2).all(|pair| pair[0].1 < pair[1].0));
}

#[test]
fn t_p1_a_name_that_mixes_scripts_is_hinted_at() {
    assert_eq!(mixed_scripts("p\u{0430}ypal.csv"), Some(("Latin", "Cyrillic")));
    assert_eq!(mixed_scripts("\u{ff41}bc"), Some(("full-width Latin", "Latin")));
    for honest in ["report.csv", "été-2026", "日本 report", "отчёт.md", "", "123"] {
        assert_eq!(mixed_scripts(honest), None, "{honest}");
    }
}
