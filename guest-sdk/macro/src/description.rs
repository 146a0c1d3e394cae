//! Reads the four parts of a tool's description out of its doc comment.
//!
//! A part is one paragraph: it ends at an empty line or where the next part starts. The first
//! paragraph says what the tool does; the others start with their label. Everything else in the doc
//! comment (examples, notes for readers of the code) is left to rustdoc and never reaches a model.
//! Text inside of code fences is no part.
//!
//! The messages here are what an author sees first, so they say what to write.

use std::fmt;

/// Longest part, in characters. A model reads every description on every turn: what needs more text
/// than this belongs into the documentation of the tool.
pub(crate) const MAX_PART_CHARS: usize = 1_000;

/// The description of a tool, each part as one line of text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Description {
    /// What the tool does.
    pub(crate) what: String,
    /// When a model should use it, and when not.
    pub(crate) when: String,
    /// What it changes.
    pub(crate) side_effects: String,
    /// How it fails.
    pub(crate) errors: String,
}

/// One of the four parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The first paragraph.
    What,
    /// `When:`
    When,
    /// `Side effects:`
    SideEffects,
    /// `Errors:`
    Errors,
}

impl Part {
    /// Every part, in the order in which they are reported.
    const ALL: [Self; 4] = [Self::What, Self::When, Self::SideEffects, Self::Errors];

    /// The label that starts the part; empty for the first paragraph.
    fn label(self) -> &'static str {
        match self {
            Self::What => "",
            Self::When => "When:",
            Self::SideEffects => "Side effects:",
            Self::Errors => "Errors:",
        }
    }

    /// The part as messages name it.
    fn shown(self) -> &'static str {
        match self {
            Self::What => "a first paragraph that says what it does",
            Self::When => "`When:`",
            Self::SideEffects => "`Side effects:`",
            Self::Errors => "`Errors:`",
        }
    }

    /// A line that an author may start from.
    fn example(self) -> &'static str {
        match self {
            Self::What => "/// Adds a note to the notebook.",
            Self::When => "/// When: the user wants to keep something for later. Not for reminders.",
            Self::SideEffects => "/// Side effects: writes one file into the workspace `notes`; or: none.",
            Self::Errors => "/// Errors: conflict if a note with this title exists; or: none of its own.",
        }
    }
}

/// Why a doc comment is no description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Problem {
    /// These parts are not there.
    Missing(Vec<Part>),
    /// The part has a label but no text.
    Empty(Part),
    /// The part is there twice.
    Twice(Part),
    /// The part has more than [`MAX_PART_CHARS`] characters.
    TooLong(Part, usize),
}

impl fmt::Display for Problem {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(parts) => {
                let shown: Vec<&str> = parts.iter().map(|part| part.shown()).collect();
                write!(out, "the doc comment of this tool lacks {}", shown.join(" and "))?;
                write!(out, "\na model decides by it whether to call the tool; write for example:")?;
                parts.iter().try_for_each(|part| write!(out, "\n    {}", part.example()))
            }
            Self::Empty(part) => {
                write!(out, "the part {} has no text; write for example:\n    {}", part.shown(), part.example())
            }
            Self::Twice(part) => {
                write!(out, "the part {} is there twice; join the two into one paragraph", part.shown())
            }
            Self::TooLong(part, chars) => write!(
                out,
                "the part {} has {chars} characters, at most {MAX_PART_CHARS} are allowed; \
                 move details into another paragraph, which models do not see",
                part.shown()
            ),
        }
    }
}

impl Description {
    /// Read the parts from the lines of a doc comment, without the `///`.
    pub(crate) fn parse<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Self, Problem> {
        let mut found: Vec<(Part, String)> = Vec::new();
        let mut open = false;
        let mut fenced = false;
        for line in lines {
            let line = line.trim();
            if line.starts_with("```") {
                fenced = !fenced;
                open = false;
            } else if fenced || line.is_empty() {
                open = false;
            } else if let Some((part, text)) = labelled(line) {
                if found.iter().any(|(seen, _)| *seen == part) {
                    return Err(Problem::Twice(part));
                }
                found.push((part, text.to_owned()));
                open = true;
            } else if found.is_empty() {
                found.push((Part::What, line.to_owned()));
                open = true;
            } else if open && let Some((_, text)) = found.last_mut() {
                text.push(' ');
                text.push_str(line);
            }
        }
        Self::from_parts(&found)
    }

    fn from_parts(found: &[(Part, String)]) -> Result<Self, Problem> {
        let missing: Vec<Part> =
            Part::ALL.into_iter().filter(|part| !found.iter().any(|(seen, _)| seen == part)).collect();
        if !missing.is_empty() {
            return Err(Problem::Missing(missing));
        }
        let mut description = Self::default();
        for (part, text) in found {
            let text = text.trim();
            let chars = text.chars().count();
            if chars == 0 {
                return Err(Problem::Empty(*part));
            }
            if chars > MAX_PART_CHARS {
                return Err(Problem::TooLong(*part, chars));
            }
            let slot = match part {
                Part::What => &mut description.what,
                Part::When => &mut description.when,
                Part::SideEffects => &mut description.side_effects,
                Part::Errors => &mut description.errors,
            };
            text.clone_into(slot);
        }
        Ok(description)
    }

    /// Whether the author wrote that the tool changes nothing.
    pub(crate) fn says_no_side_effects(&self) -> bool {
        let text = self.side_effects.trim_end_matches('.');
        text.eq_ignore_ascii_case("none") || text.eq_ignore_ascii_case("nothing")
    }
}

/// The part that this line starts, and the rest of the line.
fn labelled(line: &str) -> Option<(Part, &str)> {
    Part::ALL
        .into_iter()
        .filter(|part| *part != Part::What)
        .find_map(|part| Some((part, line.strip_prefix(part.label())?.trim_start())))
}

#[cfg(test)]
mod tests {
    use super::{Description, MAX_PART_CHARS};

    fn parse(text: &str) -> Result<Description, String> {
        Description::parse(text.lines()).map_err(|problem| problem.to_string())
    }

    #[test]
    fn four_parts_are_read_and_joined_to_one_line_each() {
        let description = parse(
            "Adds a note\nto the notebook.\n\nFor readers of the code only.\n\nWhen: the user\n  asks.\n\
             Side effects: writes a file.\nErrors: conflict.\n\n# Example\n```\nErrors: not a part\n```",
        );
        assert_eq!(
            description,
            Ok(Description {
                what: "Adds a note to the notebook.".to_owned(),
                when: "the user asks.".to_owned(),
                side_effects: "writes a file.".to_owned(),
                errors: "conflict.".to_owned(),
            })
        );
    }

    #[test]
    fn a_missing_part_is_named_with_an_example() {
        let problem = parse("Adds a note.\n\nWhen: asked.\nErrors: none of its own.").unwrap_err();
        assert_eq!(
            problem,
            "the doc comment of this tool lacks `Side effects:`\n\
             a model decides by it whether to call the tool; write for example:\n    \
             /// Side effects: writes one file into the workspace `notes`; or: none."
        );
    }

    #[test]
    fn without_a_doc_comment_all_four_parts_are_named() {
        let problem = parse("").unwrap_err();
        assert_eq!(
            problem.lines().next(),
            Some(
                "the doc comment of this tool lacks a first paragraph that says what it does and `When:` \
                 and `Side effects:` and `Errors:`"
            )
        );
        assert_eq!(problem.lines().count(), 6);
    }

    #[test]
    fn a_comment_that_starts_with_a_label_lacks_the_first_paragraph() {
        let problem = parse("When: asked.\n\nAdds.\n\nSide effects: none.\nErrors: none.").unwrap_err();
        assert!(problem.starts_with("the doc comment of this tool lacks a first paragraph"), "{problem}");
    }

    #[test]
    fn an_empty_part_and_a_part_written_twice_are_refused() {
        assert_eq!(
            parse("Adds.\n\nWhen:\nSide effects: none.\nErrors: none.").unwrap_err(),
            "the part `When:` has no text; write for example:\n    \
             /// When: the user wants to keep something for later. Not for reminders."
        );
        assert_eq!(
            parse("Adds.\n\nWhen: a.\nWhen: b.\nSide effects: none.\nErrors: none.").unwrap_err(),
            "the part `When:` is there twice; join the two into one paragraph"
        );
    }

    #[test]
    fn a_part_of_the_longest_length_is_taken_and_one_character_more_is_not() {
        let with =
            |chars: usize| parse(&format!("{}\n\nWhen: a.\nSide effects: none.\nErrors: none.", "ä".repeat(chars)));
        assert!(with(MAX_PART_CHARS).is_ok());
        assert!(with(MAX_PART_CHARS + 1).unwrap_err().contains("has 1001 characters, at most 1000"));
    }
}
