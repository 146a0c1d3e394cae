//! A note as a Markdown file: a head between two lines `---`, then the text.
//!
//! The head is the small part of YAML that we write ourselves (a quoted title, a list of plain tags, a
//! date). What people wrote otherwise is kept and shown as far as it is understood; it is never lost,
//! since notes are only read or created here.

/// Longest name of a file before `.md`, in characters (at most four bytes each, below the host's 255).
const MAX_NAME_CHARS: usize = 60;

/// Longest tag, in characters.
const MAX_TAG_CHARS: usize = 32;

/// One note.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) title: String,
    pub(crate) tags: Vec<String>,
    pub(crate) date: Option<String>,
    pub(crate) body: String,
}

impl Note {
    /// The file's content.
    pub(crate) fn to_markdown(&self) -> String {
        let mut text = format!("---\ntitle: {}\n", quoted(&self.title));
        if !self.tags.is_empty() {
            text.push_str(&format!("tags: [{}]\n", self.tags.join(", ")));
        }
        if let Some(date) = &self.date {
            text.push_str(&format!("date: {date}\n"));
        }
        text.push_str("---\n\n");
        text.push_str(self.body.trim_end());
        text.push('\n');
        text
    }

    /// Read a file's content. Without a title in the head it is the first heading, else the file's name.
    pub(crate) fn parse(file: &str, text: &str) -> Self {
        let (head, body) = split(text);
        let mut note = Self { title: String::new(), tags: Vec::new(), date: None, body: body.to_owned() };
        for line in head.lines() {
            match line.split_once(':') {
                Some(("title", value)) => note.title = unquoted(value.trim()),
                Some(("tags", value)) => note.tags = tags(value),
                Some(("date", value)) => note.date = Some(value.trim().to_owned()),
                _ => {}
            }
        }
        if note.title.is_empty() {
            let heading = body.lines().find_map(|line| line.strip_prefix("# "));
            let name = file.rsplit('/').next().unwrap_or(file).trim_end_matches(".md");
            heading.unwrap_or(name).trim().clone_into(&mut note.title);
        }
        note
    }
}

/// The head, empty if there is none, and the text after it.
fn split(text: &str) -> (&str, &str) {
    text.strip_prefix("---\n")
        .and_then(|rest| rest.split_once("\n---\n"))
        .map_or(("", text), |(head, body)| (head, body.trim_start_matches('\n')))
}

fn tags(value: &str) -> Vec<String> {
    let list = value.trim().trim_start_matches('[').trim_end_matches(']');
    list.split(',').map(|tag| tag.trim().to_owned()).filter(|tag| !tag.is_empty()).collect()
}

/// As a string of YAML. Control characters do not occur in titles.
fn quoted(title: &str) -> String {
    format!("\"{}\"", title.replace('\\', "\\\\").replace('"', "\\\""))
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut title = String::new();
    let mut chars = inner.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => title.extend(chars.next()),
            char => title.push(char),
        }
    }
    title
}

/// Whether it can be a tag.
pub(crate) fn is_tag(tag: &str) -> bool {
    let fits = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '-';
    !tag.is_empty() && tag.len() <= MAX_TAG_CHARS && tag.chars().all(fits)
}

/// The name of the file for a title, or nothing if no letter or digit is in it.
pub(crate) fn file_name(title: &str) -> Option<String> {
    let words: Vec<String> = title
        .split(|char: char| !char.is_alphanumeric())
        .filter(|word| !word.is_empty())
        .map(str::to_lowercase)
        .collect();
    let name: String = words.join("-").chars().take(MAX_NAME_CHARS).collect();
    let name = name.trim_end_matches('-');
    (!name.is_empty()).then(|| format!("{name}.md"))
}

#[cfg(test)]
mod tests {
    use super::{Note, file_name, is_tag};

    #[test]
    fn a_note_reads_back_as_it_was_written() {
        let note = Note {
            title: r#"A \ "quoted" title: yes"#.to_owned(),
            tags: vec!["a".to_owned(), "b-1".to_owned()],
            date: Some("2026-05-02".to_owned()),
            body: "One.\n\n---\nTwo.\n".to_owned(),
        };
        assert_eq!(Note::parse("x.md", &note.to_markdown()), note);
    }

    #[test]
    fn a_title_is_found_in_head_heading_or_name() {
        assert_eq!(Note::parse("a/b.md", "---\ntitle: Plain\n---\ntext").title, "Plain");
        assert_eq!(Note::parse("a/b.md", "text\n# Heading \n").title, "Heading");
        assert_eq!(Note::parse("a/b.md", "---\nno end of the head").title, "b");
    }

    #[test]
    fn names_of_files_are_plain_and_bounded() {
        assert_eq!(file_name("  Buy: 2 milks!  ").as_deref(), Some("buy-2-milks.md"));
        assert_eq!(file_name("../../etc/passwd").as_deref(), Some("etc-passwd.md"));
        assert_eq!(file_name("?!"), None);
        assert_eq!(file_name(&"ab ".repeat(60)).map(|name| name.chars().count()), Some(62));
    }

    #[test]
    fn tags_are_plain_and_bounded() {
        assert!(is_tag("a-1") && is_tag(&"a".repeat(32)));
        assert!(!is_tag("") && !is_tag("A") && !is_tag("a b") && !is_tag("a]") && !is_tag(&"a".repeat(33)));
    }
}
