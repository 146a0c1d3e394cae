//! Rust text as the rules want to see it: without comments, without the content of strings, without inline tests.

/// Whether a file is only compiled for tests or benches.
pub(super) fn is_test(path: &str) -> bool {
    path.starts_with("tests/")
        || path.starts_with("benches/")
        || path.contains("/tests/")
        || path.ends_with("/tests.rs")
}

/// The part of a file that is shipped: everything before its inline test module.
pub(super) fn shipped(text: &str) -> &str {
    let starts = ["\n#[cfg(test)]\nmod ", "\n#[cfg(all(test"];
    starts.iter().filter_map(|start| text.find(start)).min().and_then(|at| text.get(..=at)).unwrap_or(text)
}

/// The same number of lines, with comments and the content of literals replaced by spaces.
pub(super) fn code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(&c) = chars.get(at) {
        let length = literal_or_comment(&chars, at);
        if length == 0 {
            out.push(c);
            at += 1;
        } else {
            out.extend(chars.iter().skip(at).take(length).map(|c| if *c == '\n' { '\n' } else { ' ' }));
            at += length;
        }
    }
    out
}

/// How many characters the literal or comment that starts here has; 0 if none starts.
fn literal_or_comment(chars: &[char], at: usize) -> usize {
    let get = |offset: usize| chars.get(at + offset).copied().unwrap_or('\0');
    let rest = |offset: usize| chars.iter().skip(at + offset);
    match get(0) {
        '/' if get(1) == '/' => rest(0).take_while(|c| **c != '\n').count(),
        '/' if get(1) == '*' => {
            let mut length = 2;
            while at + length < chars.len() && !(get(length - 2) != '/' && get(length - 1) == '*' && get(length) == '/')
            {
                length += 1;
            }
            length + 1
        }
        '"' => quoted(rest(1)) + 1,
        'r' if !identifier_before(chars, at) => raw_string(chars, at),
        // A character literal, not a lifetime.
        '\'' if get(1) == '\\' => 2 + rest(2).enumerate().position(|(n, c)| *c == '\'' && n > 0).unwrap_or(0) + 1,
        '\'' if get(2) == '\'' => 3,
        _ => 0,
    }
}

fn identifier_before(chars: &[char], at: usize) -> bool {
    // `br"…"` is a raw string too.
    let before = |n: usize| at.checked_sub(n).and_then(|i| chars.get(i)).copied().unwrap_or(' ');
    let word = |c: char| c.is_alphanumeric() || c == '_';
    if before(1) == 'b' { word(before(2)) } else { word(before(1)) }
}

fn raw_string(chars: &[char], at: usize) -> usize {
    let hashes = chars.iter().skip(at + 1).take_while(|c| **c == '#').count();
    if chars.get(at + 1 + hashes) != Some(&'"') {
        return 0;
    }
    let body = at + 2 + hashes;
    let mut end = body;
    while end < chars.len() {
        let closes = chars.get(end) == Some(&'"') && chars.iter().skip(end + 1).take(hashes).all(|c| *c == '#');
        if closes {
            return end + 1 + hashes - at;
        }
        end += 1;
    }
    chars.len() - at
}

fn quoted<'c>(chars: impl Iterator<Item = &'c char>) -> usize {
    let mut escaped = false;
    let mut length = 0;
    for c in chars {
        length += 1;
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => break,
            _ => {}
        }
    }
    length
}

/// Lines of code that match, as `path:line: what`.
pub(super) fn lines_with<'t>(
    path: &'t str,
    code: &'t str,
    wanted: impl Fn(&str) -> bool + 't,
) -> impl Iterator<Item = String> + 't {
    code.lines()
        .enumerate()
        .filter(move |(_, line)| wanted(line))
        .map(move |(number, line)| format!("{path}:{}: `{}`", number + 1, line.trim()))
}

/// Whether `path` (for example `std::env`) occurs as a whole path prefix.
pub(super) fn names_path(line: &str, path: &str) -> bool {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(path).any(|(at, found)| {
        let before = line.get(..at).and_then(|head| head.chars().next_back()).unwrap_or(' ');
        let after = line.get(at + found.len()..).and_then(|tail| tail.chars().next()).unwrap_or(' ');
        !word(before) && !word(after)
    })
}

/// Functions: name, first line (from 1) and number of lines. The text is formatted, so a function ends at the first line
/// that is its own indentation and a brace.
pub(super) fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = code.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        let Some(name) = function_name(trimmed) else { continue };
        let end = format!("{}}}", " ".repeat(indent));
        // A declaration without a body ends in `;` before any line closes at this depth.
        let length = lines
            .iter()
            .skip(at)
            .position(|line| {
                line.trim_end() == end || (line.trim_end().ends_with(';') && !line.starts_with(&" ".repeat(indent + 1)))
            })
            .map_or(1, |n| n + 1);
        let one_line = trimmed.trim_end().ends_with('}') || trimmed.trim_end().ends_with(';');
        found.push((name, at + 1, if one_line { 1 } else { length }));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace();
    loop {
        match words.next()? {
            "fn" => break,
            "pub" | "const" | "async" | "unsafe" | "extern" => {}
            word if word.starts_with("pub(") => {}
            "crate)" | "super)" => {}
            _ => return None,
        }
    }
    let name: String = words.next()?.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked() {
        let check = |text: &str, expect: &str| assert_eq!(code(text), expect, "{text}");
        check("a // b\nc", "a     \nc");
        check("a /* b\n */ c", "a     \n    c");
        check("f(\"x\\\"y\") + 'z' + '\\'' + b\"q\"", "f(      ) +     +      + b   ");
        check("r#\"a\"b\"# c", "         c");
        check("fn f<'a>(x: &'a str)", "fn f<'a>(x: &'a str)");
        check("for r in x {}", "for r in x {}");
    }

    #[test]
    fn functions_are_measured_from_signature_to_brace() {
        let text = "impl X {\n    pub(crate) fn long(\n        a: u8,\n    ) -> u8 {\n        a\n    }\n\n    fn short() {}\n}\n";
        assert_eq!(functions(text), [("long".to_owned(), 2, 5), ("short".to_owned(), 8, 1)]);
        assert_eq!(functions("trait T {\n    fn a(&self);\n    fn b(&self) {\n        1\n    }\n}\n").len(), 2);
    }

    #[test]
    fn a_path_is_found_as_a_whole() {
        assert!(names_path("use std::env;", "std::env") && names_path("std::env::var", "std::env"));
        assert!(!names_path("std::environment", "std::env") && !names_path("my_std::env", "std::env"));
    }
}
