//! The only place of the command line that prints.
//!
//! Data goes to standard output in the form that was asked for, everything else to standard error, so that a pipe
//! never carries a remark. Colour and progress appear on terminals only. Text that others wrote is spelled out before it
//! is shown; JSON keeps its value and escapes what a terminal would obey.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use comfy_table::{Attribute, Cell, ContentArrangement, Table};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use toolkeep_core::display::{visible, visible_json, visible_lines};

use super::failure::Failure;

/// Longest line that is read from a person, in bytes: a digest or a word.
const TYPED_MAX_BYTES: u64 = 4096;

/// The form of data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// One indented JSON value.
    Json,
    /// One JSON value per line: one line per entry of a list.
    Jsonl,
}

/// When to use colours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Colour {
    /// On a terminal, unless `NO_COLOR` is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Where a command shows what it has to show.
#[derive(Debug)]
pub struct Ui {
    output: Output,
    colour: bool,
    colour_errors: bool,
}

impl Ui {
    /// `no_color` tells whether the variable `NO_COLOR` is set and not empty (no-color.org).
    #[must_use]
    pub fn new(output: Output, colour: Colour, no_color: bool) -> Self {
        let on = |terminal: bool| match colour {
            Colour::Auto => terminal && !no_color,
            Colour::Always => true,
            Colour::Never => false,
        };
        Self { output, colour: on(io::stdout().is_terminal()), colour_errors: on(io::stderr().is_terminal()) }
    }

    /// The form that was asked for.
    #[must_use]
    pub const fn output(&self) -> Output {
        self.output
    }

    /// Whether standard output may carry colours.
    #[must_use]
    pub const fn colour(&self) -> bool {
        self.colour
    }

    /// Show one value: as JSON where that was asked for, else as the lines that `table` makes.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn value(&self, value: &Value, table: impl FnOnce() -> String) -> Result<(), Failure> {
        match self.output {
            Output::Table => self.text(&table()),
            Output::Json => self.json(value),
            Output::Jsonl => self.json_line(value),
        }
    }

    /// Show a list: one table, one JSON value, or one line per entry.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn list(&self, whole: &Value, entries: &[Value], columns: &[Column]) -> Result<(), Failure> {
        match self.output {
            Output::Table => self.text(&self.table(entries, columns)),
            Output::Json => self.json(whole),
            Output::Jsonl => entries.iter().try_for_each(|entry| self.json_line(entry)),
        }
    }

    /// Show JSON, indented.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn json(&self, value: &Value) -> Result<(), Failure> {
        self.text(&visible_json(&format!("{value:#}")))
    }

    /// Show one line of JSON, whatever form was asked for: exports are lines.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn line(&self, value: &Value) -> Result<(), Failure> {
        self.json_line(value)
    }

    fn json_line(&self, value: &Value) -> Result<(), Failure> {
        self.text(&visible_json(&value.to_string()))
    }

    /// Show lines that are already safe. Nothing is shown for an empty text.
    ///
    /// # Errors
    /// Standard output is gone.
    pub fn text(&self, text: &str) -> Result<(), Failure> {
        if text.is_empty() {
            return Ok(());
        }
        let end = if text.ends_with('\n') { "" } else { "\n" };
        self.bytes(format!("{text}{end}").as_bytes())
    }

    /// Write bytes as they are: generated scripts and pages of our own.
    ///
    /// # Errors
    /// Standard output is gone. A reader that has enough and closes its pipe is no error.
    pub fn bytes(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        match out.write_all(bytes).and_then(|()| out.flush()) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(Failure::Output(error)),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// A remark for the person, on standard error.
    pub fn note(&self, text: &str) {
        self.remark(text);
    }

    /// Why the command failed, on standard error.
    pub fn failure(&self, failure: &Failure) {
        let head = if self.colour_errors { "\u{1b}[1;31merror:\u{1b}[0m" } else { "error:" };
        self.remark(&format!("{head} {}", visible_lines(&failure.to_string())));
        if let Failure::Refused(refusal) = failure {
            // A message that says it all is not said again field by field.
            for field in refusal.fields.iter().filter(|field| !refusal.message.contains(&field.problem)) {
                let pointer = if field.pointer.is_empty() { "(whole)" } else { &field.pointer };
                let (pointer, problem) = (visible(pointer), visible(&field.problem));
                self.remark(&format!("  {pointer}: {problem}; expected {}", visible(&field.expected)));
            }
            if let Some(detail) = &refusal.detail {
                self.remark(&format!("  detail: {}", visible_json(&detail.to_string())));
            }
            if let Some(wait) = refusal.retry_after_ms {
                self.remark(&format!("  try again after {wait} ms"));
            }
        }
        if let Some(hint) = failure.hint() {
            self.remark(&format!("hint: {hint}"));
        }
    }

    /// A standard error that is gone takes nothing with it that anybody needs.
    fn remark(&self, text: &str) {
        let _unheard = writeln!(io::stderr().lock(), "{text}");
    }

    /// A bar for long work, on standard error and only on a terminal. It stays invisible until something moves.
    #[must_use]
    pub fn progress(&self) -> Progress {
        let target =
            if io::stderr().is_terminal() { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Progress { bar: ProgressBar::with_draw_target(None, target) }
    }

    /// Ask a person to type something; nothing where nobody can.
    ///
    /// # Errors
    /// Standard input cannot be read.
    pub fn ask(&self, question: &str) -> Result<Option<String>, Failure> {
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Ok(None);
        }
        let _unheard = write!(io::stderr().lock(), "{question}");
        let mut typed = String::new();
        let mut input = io::Read::take(io::stdin().lock(), TYPED_MAX_BYTES);
        input.read_line(&mut typed).map_err(Failure::file("read", "standard input"))?;
        Ok(Some(typed.trim().to_owned()))
    }

    /// A table of `entries`; a line that says so where there are none.
    #[must_use]
    pub fn table(&self, entries: &[Value], columns: &[Column]) -> String {
        if entries.is_empty() {
            return "(none)".to_owned();
        }
        let mut table = Table::new();
        table.load_style(comfy_table::presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        let head = |column: &Column| {
            let cell = Cell::new(column.title);
            if self.colour { cell.add_attribute(Attribute::Bold) } else { cell }
        };
        table.set_header(columns.iter().map(head));
        for entry in entries {
            table.add_row(columns.iter().map(|column| Cell::new((column.show)(entry))));
        }
        if self.colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        let trimmed = |line: &str| line.strip_prefix(' ').unwrap_or(line).trim_end().to_owned();
        table.to_string().lines().map(trimmed).collect::<Vec<_>>().join("\n")
    }
}

/// A column of a table.
#[derive(Debug, Clone, Copy)]
pub struct Column {
    title: &'static str,
    show: fn(&Value) -> String,
}

impl Column {
    /// `show` makes the cell of an entry; what it takes from the entry goes through [`text_at`] or [`visible`].
    #[must_use]
    pub const fn new(title: &'static str, show: fn(&Value) -> String) -> Self {
        Self { title, show }
    }
}

/// The value at a JSON pointer of an entry as one safe line: strings without quotes, nothing for `null`.
#[must_use]
pub fn text_at(entry: &Value, pointer: &str) -> String {
    match entry.pointer(pointer) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => visible(text).into_owned(),
        Some(other) => visible_json(&other.to_string()).into_owned(),
    }
}

/// The time at a JSON pointer, given in milliseconds since the Unix epoch, as RFC 3339 in UTC to the second.
#[must_use]
pub fn time_at(entry: &Value, pointer: &str) -> String {
    entry.pointer(pointer).and_then(Value::as_u64).map(time).unwrap_or_default()
}

/// Milliseconds since the Unix epoch as RFC 3339 in UTC to the second.
#[must_use]
pub fn time(milliseconds: u64) -> String {
    i64::try_from(milliseconds / 1000)
        .ok()
        .and_then(|seconds| jiff::Timestamp::from_second(seconds).ok())
        .map_or_else(|| format!("{milliseconds} ms"), |time| time.to_string())
}

/// Progress of one call.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
}

impl Progress {
    /// What the tool says about how far it is. The text is an untrusted author's.
    pub fn show(&self, done: u64, total: Option<u64>, message: &str) {
        // A template that does not parse leaves the default style.
        let template = if total.is_some() { "{bar:24} {pos}/{len} {msg}" } else { "{spinner} {pos} {msg}" };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        if let Some(total) = total {
            self.bar.set_length(total);
        }
        self.bar.set_message(visible(message).into_owned());
        self.bar.set_position(done);
    }

    /// Take the bar away.
    pub fn clear(&self) {
        self.bar.finish_and_clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn plain() -> Ui {
        Ui::new(Output::Table, Colour::Never, false)
    }

    #[test]
    fn t_p1_cells_spell_out_what_a_terminal_would_obey() {
        let entry = json!({"name": "a\u{1b}[2Jb\u{202e}c\nd", "n": 3, "at": 1_000_000_000_000_u64});
        let columns = [
            Column::new("NAME", |e| text_at(e, "/name")),
            Column::new("N", |e| text_at(e, "/n")),
            Column::new("AT", |e| time_at(e, "/at")),
        ];
        let table = plain().table(&[entry], &columns);
        assert!(!table.contains('\u{1b}') && !table.contains('\u{202e}'), "{table}");
        assert!(table.contains("⟨U+001B⟩") && table.contains("⟨U+000A⟩"), "{table}");
        assert!(table.contains("2001-09-09T01:46:40Z"), "{table}");
        assert_eq!(table.lines().count(), 2);
        assert_eq!(plain().table(&[], &columns), "(none)");
    }

    #[test]
    fn g14_no_code_point_reaches_a_cell_or_a_json_line_as_what_a_terminal_obeys_or_hides() {
        let obeyed = |c: char| {
            let hides = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}');
            c.is_control() || hides
        };
        let every: Vec<char> = (char::MIN..=char::MAX).collect();
        for some in every.chunks(512) {
            let entry = json!({"text": some.iter().collect::<String>(), "list": [some.iter().collect::<String>()]});
            let cells =
                [text_at(&entry, "/text"), text_at(&entry, "/list"), visible_json(&entry.to_string()).into_owned()];
            for cell in cells {
                assert_eq!(cell.chars().find(|c| obeyed(*c)), None, "from U+{:X} on", u32::from(some[0]));
            }
        }
    }

    #[test]
    fn colour_follows_the_flag_then_no_color() {
        assert!(Ui::new(Output::Json, Colour::Always, true).colour());
        assert!(!Ui::new(Output::Json, Colour::Never, false).colour());
    }
}
