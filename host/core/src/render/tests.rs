//! Whole renderings, letter by letter, and what must never be missing from one.

use std::collections::HashMap;

use super::*;
use crate::display::is_hidden;
use crate::effect::FileState;
use crate::effect::Times;

#[derive(Default)]
struct World {
    blobs: HashMap<Digest, Vec<u8>>,
    effects: Vec<Effect>,
}

impl World {
    fn state(&mut self, content: &[u8]) -> FileState {
        let sha256 = Digest::of(content);
        self.blobs.insert(sha256, content.to_vec());
        FileState { sha256, size: content.len() as u64, mode: 0o644 }
    }

    fn write(&mut self, path: &str, before: Option<&[u8]>, after: &[u8]) {
        let before = before.map(|content| self.state(content));
        let after = self.state(after);
        self.effects.push(Effect::FileWrite { workspace: name(), path: at(path), before, after });
    }

    fn delete(&mut self, path: &str, before: &[u8]) {
        let before = self.state(before);
        self.effects.push(Effect::FileDelete { workspace: name(), path: at(path), before });
    }

    fn render(&self, options: Options) -> Rendering {
        plan(&self.effects, &options, &|digest| self.blobs.get(digest).cloned())
    }

    fn json(&self, options: Options) -> Value {
        plan_json(&self.effects, &options, &|digest| self.blobs.get(digest).cloned())
    }
}

const PLAIN: Options = Options { colour: false, whole: false };
const WHOLE: Options = Options { colour: false, whole: true };
const COLOUR: Options = Options { colour: true, whole: false };

fn name() -> crate::id::WorkspaceName {
    "books".parse().expect("name")
}

fn at(path: &str) -> WorkspacePath {
    path.parse().expect(path)
}

fn mixed() -> World {
    let mut world = World::default();
    world.effects.push(Effect::DirCreate { workspace: name(), path: at("reports") });
    world.write("reports/june.md", None, b"# June\n\n12 rows\n");
    world.write("a.csv", Some(b"id,sum\n1,20\n2,30\n3,40\n4,50\n5,60\n"), b"id,sum\n1,20\n2,31\n3,40\n4,50\n5,60");
    world.delete("old.csv", b"x\ny\n");
    let before = world.state(b"moved");
    world.effects.push(Effect::FileRename { workspace: name(), from: at("b.txt"), to: at("c.txt"), before });
    world.effects.push(Effect::FileMetadata {
        workspace: name(),
        path: at("c.txt"),
        before: Times { modified_ns: 0 },
        after: Times { modified_ns: 1_769_846_709_000_000_000 },
    });
    world.effects.push(Effect::DirDelete { workspace: name(), path: at("tmp") });
    world
}

#[test]
fn r06_a_plan_reads_totals_first_then_what_it_destroys_then_the_rest() {
    let expect = "\
7 effects: 1 delete, 1 overwrite, 1 rename, 1 create, 3 others; 47 bytes written

deletes (1)
  - books:old.csv  4 bytes
    @@ -1,2 +0,0 @@
    -x
    -y

overwrites (1)
  ~ books:a.csv  32 -> 31 bytes
    @@ -1,6 +1,6 @@
     id,sum
     1,20
    -2,30
    +2,31
     3,40
     4,50
    -5,60
    +5,60
    \\ no line feed at the end

renames (1)
  > books:b.txt -> books:c.txt  5 bytes

creates (1)
  + books:reports/june.md  16 bytes
    @@ -0,0 +1,3 @@
    +# June
    +
    +12 rows

directories (2)
  + books:reports  directory
  - books:tmp  directory

times (1)
  t books:c.txt  modified 1970-01-01T00:00:00Z -> 2026-01-31T08:05:09Z
";
    assert_eq!(mixed().render(PLAIN), Rendering { text: expect.to_owned(), hidden_bytes: 0 });
    assert_eq!(World::default().render(PLAIN).text, "no effects\n");
}

#[test]
fn colours_mark_sides_and_changed_words_and_nothing_else_changes() {
    let mut world = World::default();
    world.write("a.rs", Some(b"let total = old_name(1);\n"), b"let total = new_name(1);\n");
    let text = world.render(COLOUR).text;
    assert!(
        text.contains(
            "\u{1b}[31m-\u{1b}[0m\u{1b}[31mlet total = \u{1b}[0m\u{1b}[31;7mold_name\u{1b}[0m\u{1b}[31m(1);\u{1b}[0m\n"
        ),
        "{text:?}"
    );
    for world in [world, mixed()] {
        let mut plain = world.render(COLOUR).text;
        for code in ["0", "1", "2", "31", "32", "31;7", "32;7", "33;1"] {
            plain = plain.replace(&format!("\u{1b}[{code}m"), "");
        }
        assert_eq!(plain, world.render(PLAIN).text);
    }
}

#[test]
fn t_p2_binary_content_shows_size_digest_and_first_bytes() {
    let mut world = World::default();
    let after: Vec<u8> = (0..=255).collect();
    world.write("image.bin", Some(b"text\n"), &after);
    let expect = format!(
        "\
1 effect: 1 overwrite; 256 bytes written

overwrites (1)
  ~ books:image.bin  5 -> 256 bytes
    binary
    before 5 bytes  sha256 {}
    after  256 bytes  sha256 {}
    before, first 5 bytes
    0000  74 65 78 74 0a                                   text.
    after, first 64 bytes
    0000  00 01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f  ................
    0010  10 11 12 13 14 15 16 17 18 19 1a 1b 1c 1d 1e 1f  ................
    0020  20 21 22 23 24 25 26 27 28 29 2a 2b 2c 2d 2e 2f   !\"#$%&'()*+,-./
    0030  30 31 32 33 34 35 36 37 38 39 3a 3b 3c 3d 3e 3f  0123456789:;<=>?
",
        Digest::of(b"text\n"),
        Digest::of(&after)
    );
    assert_eq!(world.render(PLAIN).text, expect);
    for binary in [b"a\0b".as_slice(), b"\xff\xfe", b"\xed\xa0\x80"] {
        let mut world = World::default();
        world.write("x", None, binary);
        assert!(world.render(PLAIN).text.contains("binary\n"), "{binary:x?}");
    }
}

#[test]
fn t_p2_one_changed_line_among_100000_is_shown() {
    let line = |n: usize| format!("line {n}\n");
    let before: String = (0..100_000).map(line).collect();
    let after = before.replace("line 77777\n", "line 77777; rm -rf /\n");
    let mut world = World::default();
    let small = |text: &str| text.get(..900_000).expect("ascii").as_bytes().to_vec();
    world.write("big", Some(&small(&before)), &small(&after));
    let rendering = world.render(PLAIN);
    assert!(rendering.text.contains("+line 77777; rm -rf /\n"), "{}", rendering.text);
    assert_eq!(rendering.hidden_bytes, 0);
}

#[test]
fn t_p2_what_is_shortened_says_how_much_and_its_digest() {
    let line = |n: usize| format!("changed {n}\n");
    let after: String = (0..100_000).map(line).collect::<String>().chars().take(1_000_000).collect();
    let mut world = World::default();
    world.write("big", None, after.as_bytes());
    let rendering = world.render(PLAIN);
    let tail: String =
        after.split_inclusive('\n').skip(FILE_LINES_SHOWN).map(|l| format!("+{}\n", l.trim_end())).collect();
    let expect = format!("bytes of this diff hidden, sha256 {}\n", Digest::of(tail.as_bytes()));
    assert!(rendering.text.contains(&expect), "{}", rendering.text.lines().last().unwrap_or_default());
    assert_eq!(rendering.hidden_bytes, tail.len() as u64);
    assert_eq!(world.json(PLAIN)["hidden_bytes"], json!(tail.len()));
    let whole = world.render(WHOLE);
    assert_eq!(whole.hidden_bytes, 0);
    let shown: Vec<&str> = whole.text.lines().filter_map(|line| line.strip_prefix("    +")).collect();
    assert!(shown.into_iter().eq(after.lines()), "every line is shown");
}

#[test]
fn t_p2_a_long_line_is_cut_with_its_size_and_digest() {
    for (extra, hidden) in [(0, 0), (1, 1), (500_000, 500_000)] {
        let line = "é".repeat(LINE_BYTES_SHOWN / 2) + &"x".repeat(extra);
        let mut world = World::default();
        world.write("min.js", None, line.as_bytes());
        let rendering = world.render(PLAIN);
        assert_eq!(rendering.hidden_bytes, hidden);
        let note = format!("of this line hidden, sha256 {}", Digest::of("x".repeat(extra).as_bytes()));
        assert_eq!(rendering.text.contains(&note), hidden > 0);
        assert_eq!(world.render(WHOLE).hidden_bytes, 0);
        assert_eq!(world.json(PLAIN)["hidden_bytes"], json!(hidden));
    }
}

#[test]
fn t_p2_deletes_and_overwrites_are_listed_however_many_there_are() {
    let mut world = World::default();
    for n in 0..1_000 {
        world.delete(&format!("gone-{n}"), b"1\n2\n3\n4\n5\n");
        world.write(&format!("changed-{n}"), Some(b"1\n"), b"2\n");
        world.write(&format!("made-{n}"), None, b"1\n");
    }
    let rendering = world.render(PLAIN);
    for n in 0..1_000 {
        assert!(rendering.text.contains(&format!("  - books:gone-{n}  ")), "{n}");
        assert!(rendering.text.contains(&format!("  ~ books:changed-{n}  ")), "{n}");
    }
    assert_eq!(rendering.text.matches("  + books:made-").count(), ENTRIES_SHOWN);
    assert!(rendering.text.contains("bytes of 800 more effects hidden, sha256 "), "folded");
    assert!(rendering.hidden_bytes > 0);
    assert_eq!(world.json(PLAIN)["hidden_bytes"], json!(rendering.hidden_bytes));
    assert_eq!(world.render(WHOLE).text.matches("  + books:made-").count(), 1_000);
}

#[test]
fn t_p4_content_that_its_digest_does_not_name_is_not_shown() {
    let mut world = World::default();
    world.write("a", None, b"honest\n");
    let lie = plan(&world.effects, &PLAIN, &|_| Some(b"harmless\n".to_vec())).text;
    assert!(lie.contains("content not at hand") && !lie.contains("harmless"), "{lie}");
    let absent = plan(&world.effects, &PLAIN, &|_| None).text;
    assert!(absent.contains(&format!("after  7 bytes  sha256 {}", Digest::of(b"honest\n"))), "{absent}");
}

#[test]
fn sizes_hold_at_n_and_n_plus_1() {
    for (size, large) in [(crate::limit::DIFF_MAX_BYTES, false), (crate::limit::DIFF_MAX_BYTES + 1, true)] {
        let mut world = World::default();
        let content: Vec<u8> = std::iter::repeat_n(b"0123456\n", usize::try_from(size).expect("small") / 8 + 1)
            .flatten()
            .copied()
            .take(usize::try_from(size).expect("small"))
            .collect();
        world.write("a", None, &content);
        assert_eq!(world.render(PLAIN).text.contains("larger than a diff may be"), large, "{size}");
    }
}

#[test]
fn t_p1_hostile_names_and_contents_are_shown_and_not_obeyed() {
    let mut world = World::default();
    world.write(
        "invoice\u{202e}fdp.exe",
        Some("if admin {\u{202e} \u{2066}// ok\u{2069}\n".as_bytes()),
        "good\rbad\u{1b}[8m\u{200b}\u{e0041}\n".as_bytes(),
    );
    world.delete("p\u{0430}ypal.csv", "\u{1b}]0;title\u{7}\n".as_bytes());
    world.write(".env", None, b"KEY=1\n");
    let text = world.render(PLAIN).text;
    assert!(text.chars().all(|c| c == '\n' || !is_hidden(c)), "{text}");
    assert!(text.contains("invoice⟨U+202E⟩fdp.exe"), "{text}");
    assert!(text.contains("+good⟨U+000D⟩bad⟨U+001B⟩[8m⟨U+200B⟩⟨U+E0041⟩"), "{text}");
    assert!(text.contains("! the name mixes Latin and Cyrillic letters"), "{text}");
    assert!(text.contains("! sensitive path (credentials)"), "{text}");
    let json = world.json(PLAIN).to_string();
    assert!(crate::display::visible_json(&json).chars().all(|c| !is_hidden(c)));
}

#[test]
fn g14_every_code_point_in_a_diff_is_safe_to_show() {
    let every: String = (1..=0x0010_FFFF_u32).filter_map(char::from_u32).collect();
    let bytes = every.as_bytes();
    let mut shown = String::new();
    for part in every.chars().collect::<Vec<_>>().chunks(100_000) {
        let mut world = World::default();
        world.write("a", None, part.iter().collect::<String>().as_bytes());
        shown.push_str(&world.render(WHOLE).text);
    }
    assert!(bytes.len() > 4_000_000);
    assert!(shown.chars().all(|c| matches!(c, '\n' | '\t') || !is_hidden(c)));
    assert!(shown.contains("⟨U+10FFFF⟩") && shown.contains("⟨U+001B⟩") && shown.contains('日'), "spelled out");
}

#[test]
fn json_has_the_same_order_and_the_exact_paths() {
    let mut world = mixed();
    world.write("invoice\u{202e}fdp.exe", None, b"x\0y");
    let json = world.json(PLAIN);
    let kinds: Vec<&str> =
        json["effects"].as_array().expect("list").iter().filter_map(|e| e["effect"]["kind"].as_str()).collect();
    assert_eq!(
        kinds,
        [
            "file.delete",
            "file.write",
            "file.rename",
            "file.write",
            "file.write",
            "dir.create",
            "dir.delete",
            "file.metadata"
        ]
    );
    assert_eq!(json["totals"]["deletes"], json!(1));
    assert_eq!(json["effects"][0]["change"]["hunks"][0]["lines"], json!(["-x", "-y"]));
    assert_eq!(json["effects"][4]["effect"]["path"], json!("invoice\u{202e}fdp.exe"));
    assert_eq!(json["effects"][4]["change"], json!({"form": "binary", "before_head": null, "after_head": "780079"}));
    assert_eq!(json["hidden_bytes"], json!(0));
}

#[test]
fn a_comparison_beyond_its_bound_is_a_replacement() {
    let numbered = |step: usize| (0..60_000).map(|n| format!("{}\n", n * step % 97)).collect::<String>();
    let (old, new) = (format!("same\n{}end\n", numbered(3)), format!("same\n{}end\n", numbered(5)));
    let mut world = World::default();
    world.write("a", Some(old.as_bytes()), new.as_bytes());
    let text = world.render(WHOLE).text;
    assert!(
        text.matches("\n    -").count() <= 60_000 && text.contains("\n     same\n") && text.contains("\n     end\n")
    );
    assert!(text.matches("\n    -").count() > 50_000, "replaced as a whole");
}

proptest::proptest! {
    #[test]
    fn r06_the_lines_of_a_diff_make_the_new_content_of_the_old(
        old in proptest::collection::vec("[ab \u{202e}]{0,3}", 0..12),
        new in proptest::collection::vec("[ab \u{202e}]{0,3}", 0..12),
    ) {
        let join = |lines: &[String]| lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        let (before, after) = (join(&old), join(&new));
        let mut world = World::default();
        world.write("a", Some(before.as_bytes()), after.as_bytes());
        let json = world.json(WHOLE);
        // Replay: context and removed lines must be found in order; what remains must be the new content.
        let mut made: Vec<String> = Vec::new();
        let mut rest = old.iter();
        let mut consumed = 0_usize;
        for hunk in json["effects"][0]["change"]["hunks"].as_array().expect("hunks") {
            let header = hunk["header"].as_str().expect("header");
            let start: usize = header.trim_start_matches("@@ -").split([',', ' ']).next().expect("start").parse().expect("n");
            let first_is_insertion = header.split(' ').nth(1).expect("old range").ends_with(",0");
            let until = if first_is_insertion { start } else { start - 1 };
            while consumed < until {
                made.push(rest.next().expect("line").clone());
                consumed += 1;
            }
            for line in hunk["lines"].as_array().expect("lines") {
                let line = line.as_str().expect("short");
                let (sign, text) = line.split_at(1);
                if sign != "+" {
                    proptest::prop_assert_eq!(rest.next().map(String::as_str), Some(text));
                    consumed += 1;
                }
                if sign != "-" {
                    made.push(text.to_owned());
                }
            }
        }
        made.extend(rest.cloned());
        proptest::prop_assert_eq!(made, new);
    }
}
