//! `notes`: a notebook of Markdown files, one file a note, in the workspace `notes`.
//!
//! Three tools in one component: `add` writes a note, `list` shows what there is, `search` finds text.
//! The files are ordinary: people may edit them, and a Markdown file without a head is a note as well.
//!
//! ```json
//! add    {"title": "Buy milk", "body": "Two litres.", "tags": ["home"], "date": "2026-05-02"}
//! list   {"tag": "home"}
//! search {"query": "milk"}
//! ```
//!
//! A note never replaces another: titles that give the same file name are a conflict. The date comes
//! with the call, so that the same call in the same world always gives the same plan.

mod note;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Error, Result, Workspace, tool, workspace};

use crate::note::Note;

/// The workspace of all three tools.
const WORKSPACE: &str = "notes";

/// Longest body, in bytes: what is longer is a document, not a note.
const MAX_BODY_BYTES: usize = 256 * 1024;

/// Notes or matches that are returned unless the input says otherwise.
const DEFAULT_LIMIT: u16 = 50;

/// Longest excerpt of a match, in characters.
const EXCERPT_CHARS: usize = 160;

fn default_limit() -> u16 {
    DEFAULT_LIMIT
}

/// A new note.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AddArgs {
    /// The title, one line; gives the file its name.
    #[schemars(length(min = 1, max = 120))]
    pub title: String,
    /// The text, in Markdown. At most 256 KiB.
    pub body: String,
    /// Words to find it by: lower-case letters, digits and dashes, at most 32 characters each.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub tags: Vec<String>,
    /// The day, as `YYYY-MM-DD`. The tool does not know today's date.
    #[serde(default)]
    #[schemars(regex(pattern = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"))]
    pub date: Option<String>,
}

/// Where the note is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct AddOutput {
    /// The file in the workspace `notes`.
    pub file: String,
}

/// Adds a note to the notebook as a new Markdown file.
///
/// When: the user wants to keep a thought, fact or decision for later. Not for changing a note that
/// exists, and not for reminders: nobody is notified.
/// Side effects: writes one new file into the workspace `notes`.
/// Errors: conflict if there is a note with this title already; invalid-input for a title without a
/// letter or digit, a tag of another form, or a body that is too long.
#[tool(title = "Add a note", effects("file.write"), deterministic)]
pub fn add(args: AddArgs) -> Result<AddOutput> {
    if args.body.len() > MAX_BODY_BYTES {
        return Err(Error::invalid_input(format!("the body has more than {MAX_BODY_BYTES} bytes")).at("/body"));
    }
    if args.title.chars().any(char::is_control) {
        return Err(Error::invalid_input("the title must be one line").at("/title"));
    }
    if let Some(place) = args.tags.iter().position(|tag| !note::is_tag(tag)) {
        return Err(Error::invalid_input("a tag is 1 to 32 of `a-z`, `0-9`, `-`").at(format!("/tags/{place}")));
    }
    let file = note::file_name(&args.title)
        .ok_or_else(|| Error::invalid_input("the title has no letter or digit").at("/title"))?;
    let note = Note { title: args.title, tags: args.tags, date: args.date, body: args.body };
    workspace(WORKSPACE)?.create(&file, note.to_markdown())?;
    Ok(AddOutput { file })
}

/// Which notes to list.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListArgs {
    /// Only notes with this tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// At most so many notes.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u16,
}

/// What there is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ListOutput {
    /// The notes, in order of their files' names.
    pub notes: Vec<NoteHead>,
    /// How many notes there are in all that fit.
    pub total: usize,
}

/// A note without its text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct NoteHead {
    /// The file in the workspace `notes`.
    pub file: String,
    /// The title.
    pub title: String,
    /// The tags.
    pub tags: Vec<String>,
    /// The day, if the note has one.
    pub date: Option<String>,
}

/// Lists the notes of the notebook with title, tags and date, without their text.
///
/// When: the user asks which notes there are. To find words inside of notes use `search`.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "List notes", deterministic)]
pub fn list(args: ListArgs) -> Result<ListOutput> {
    let mut notes = Vec::new();
    for (file, note) in all_notes(&workspace(WORKSPACE)?)? {
        if args.tag.as_ref().is_none_or(|tag| note.tags.contains(tag)) {
            notes.push(NoteHead { file, title: note.title, tags: note.tags, date: note.date });
        }
    }
    let total = notes.len();
    notes.truncate(usize::from(args.limit));
    Ok(ListOutput { notes, total })
}

/// What to search for.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct SearchArgs {
    /// The text to find in titles and bodies; upper and lower case are the same.
    #[schemars(length(min = 1, max = 200))]
    pub query: String,
    /// Only notes with this tag.
    #[serde(default)]
    pub tag: Option<String>,
    /// At most so many matches.
    #[serde(default = "default_limit")]
    #[schemars(range(min = 1, max = 1000))]
    pub limit: u16,
}

/// What was found.
#[derive(Debug, Serialize, JsonSchema)]
pub struct SearchOutput {
    /// The matches: notes in order of their files' names, lines in order.
    pub matches: Vec<Match>,
    /// How many matches there are in all.
    pub total: usize,
}

/// One line that holds the text.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Match {
    /// The file in the workspace `notes`.
    pub file: String,
    /// The title of the note.
    pub title: String,
    /// The line of the note's text, from 1; 0 for the title.
    pub line: usize,
    /// The line, at most 160 characters of it.
    pub excerpt: String,
}

/// Finds text in titles and bodies of notes, line by line.
///
/// When: the user looks for something that was noted. One word finds more than a sentence.
/// Side effects: none.
/// Errors: invalid-input if the query is only blanks.
#[tool(title = "Search notes", deterministic)]
pub fn search(args: SearchArgs) -> Result<SearchOutput> {
    let query = args.query.trim().to_lowercase();
    if query.is_empty() {
        return Err(Error::invalid_input("the query is empty").at("/query"));
    }
    let mut matches = Vec::new();
    for (file, note) in all_notes(&workspace(WORKSPACE)?)? {
        if args.tag.as_ref().is_some_and(|tag| !note.tags.contains(tag)) {
            continue;
        }
        let lines = (0_usize..).zip(std::iter::once(note.title.as_str()).chain(note.body.lines()));
        for (line, text) in lines.filter(|(_, text)| text.to_lowercase().contains(&query)) {
            let excerpt = text.trim().chars().take(EXCERPT_CHARS).collect();
            matches.push(Match { file: file.clone(), title: note.title.clone(), line, excerpt });
        }
    }
    let total = matches.len();
    matches.truncate(usize::from(args.limit));
    Ok(SearchOutput { matches, total })
}

/// All Markdown files of the workspace. One that is not UTF-8 is no note and is left out.
fn all_notes(notes: &Workspace) -> Result<Vec<(String, Note)>> {
    let mut found = Vec::new();
    for file in notes.files("")? {
        if file.ends_with(".md")
            && let Ok(text) = String::from_utf8(notes.read(&file)?)
        {
            let note = Note::parse(&file, &text);
            found.push((file, note));
        }
    }
    Ok(found)
}

toolkeep_sdk::export!(add, list, search);

#[cfg(test)]
mod tests {
    use super::{add, list, search};
    use serde_json::json;
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::Harness;

    const MILK: &str =
        "---\ntitle: \"Buy milk\"\ntags: [home, shop]\ndate: 2026-05-02\n---\n\nTwo litres.\nOat MILK is fine.\n";

    fn notebook() -> Harness {
        Harness::new().workspace(
            "notes",
            [("buy-milk.md", MILK), ("2026/plan.md", "# The plan\n\nMilk the cow.\n"), ("x.txt", "milk")],
        )
    }

    #[test]
    fn a_note_becomes_one_new_file_that_reads_back() {
        let harness = Harness::new().empty_workspace("notes");
        let outcome = harness
            .call(add, json!({"title": "Größe: \"XL\"?", "body": "Yes.", "tags": ["shop"], "date": "2026-05-02"}));
        assert_eq!(outcome.output(), &json!({"file": "größe-xl.md"}));
        assert_eq!(outcome.effect_list(), ["file.write notes:größe-xl.md"]);
        assert_eq!(
            outcome.effect("notes", "größe-xl.md").text(),
            "---\ntitle: \"Größe: \\\"XL\\\"?\"\ntags: [shop]\ndate: 2026-05-02\n---\n\nYes.\n"
        );
        assert_eq!(
            harness.call(list, json!({})).output(),
            &json!({"total": 1, "notes": [{
                "file": "größe-xl.md", "title": "Größe: \"XL\"?", "tags": ["shop"], "date": "2026-05-02"
            }]})
        );
    }

    #[test]
    fn a_note_never_replaces_another() {
        let outcome = notebook().call(add, json!({"title": "Buy: MILK!", "body": "again"}));
        assert_eq!(outcome.error().kind(), ErrorKind::Conflict);
        assert!(outcome.effects.is_empty());
    }

    #[test]
    fn input_that_makes_no_sense_is_refused_at_its_place() {
        let cases = [
            (json!({"title": "?!", "body": ""}), "/title"),
            (json!({"title": "two\nlines", "body": ""}), "/title"),
            (json!({"title": "a", "body": "", "tags": ["fine", "Not Fine"]}), "/tags/1"),
            (json!({"title": "a", "body": "", "date": "today"}), "/date"),
            (json!({"title": "a", "body": "x".repeat(256 * 1024 + 1)}), "/body"),
        ];
        for (input, pointer) in cases {
            let outcome = Harness::new().empty_workspace("notes").call(add, input);
            assert_eq!(outcome.error().kind(), ErrorKind::InvalidInput);
            assert_eq!(outcome.error().fields().first().map(|field| field.pointer.as_str()), Some(pointer));
        }
        let longest = json!({"title": "a", "body": "x".repeat(256 * 1024)});
        assert!(Harness::new().empty_workspace("notes").call(add, longest).result.is_ok());
    }

    #[test]
    fn a_note_by_hand_has_a_title_and_tags_select() {
        let all = notebook().call(list, json!({}));
        assert_eq!(all.output()["total"], 2);
        assert_eq!(all.output()["notes"][0]["title"], "The plan");
        let tagged = notebook().call(list, json!({"tag": "home"}));
        assert_eq!(tagged.output()["notes"][0]["file"], "buy-milk.md");
        assert_eq!(tagged.output()["total"], 1);
        let first = notebook().call(list, json!({"limit": 1}));
        assert_eq!(first.output()["notes"].as_array().map(Vec::len), Some(1));
        assert_eq!(first.output()["total"], 2);
    }

    #[test]
    fn text_is_found_in_titles_and_bodies_without_regard_to_case() {
        let found = notebook().call(search, json!({"query": " milk "}));
        assert_eq!(
            found.output(),
            &json!({"total": 3, "matches": [
                {"file": "2026/plan.md", "title": "The plan", "line": 3, "excerpt": "Milk the cow."},
                {"file": "buy-milk.md", "title": "Buy milk", "line": 0, "excerpt": "Buy milk"},
                {"file": "buy-milk.md", "title": "Buy milk", "line": 2, "excerpt": "Oat MILK is fine."}
            ]})
        );
        assert!(found.effects.is_empty());
        assert_eq!(notebook().call(search, json!({"query": "milk", "tag": "shop"})).output()["total"], 2);
        assert_eq!(notebook().call(search, json!({"query": "beer"})).output()["total"], 0);
        assert_eq!(notebook().call(search, json!({"query": "  "})).error().kind(), ErrorKind::InvalidInput);
    }
}
