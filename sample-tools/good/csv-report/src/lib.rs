//! `csv-report`: the totals of a folder of CSV files, as a Markdown report.
//!
//! Reads one CSV file or all below a directory, adds up one column per group and per month, and writes
//! one Markdown file. Amounts are added exactly, without floating point. What cannot be read as a row is
//! never counted silently: it is listed at the end of the report, or refused with `"strict": true`.
//!
//! ```json
//! {"input": "ledger", "output": "reports/summary.md", "group_by": "category"}
//! ```
//!
//! `amount` reads and writes exact amounts, `ledger` reads rows and adds them up, `report` writes Markdown.

mod amount;
mod ledger;
mod report;

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{ErrorKind, FieldProblem, ToolError, log, progress, tool, workspace};

use crate::amount::Decimal;
use crate::ledger::{Columns, Ledger};

/// Which CSV files, which columns, and where the report goes.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct CsvReportArgs {
    /// The workspace that holds the files and gets the report.
    #[serde(default = "default_workspace")]
    pub workspace: String,
    /// A CSV file, or a directory whose `.csv` files at every depth are read; empty for the whole workspace.
    pub input: String,
    /// The Markdown file to write. What it held is replaced.
    pub output: String,
    /// The column to group by.
    #[serde(default = "default_group")]
    pub group_by: String,
    /// The column to add up.
    #[serde(default = "default_amount")]
    pub amount: String,
    /// The column with the date (`YYYY-MM-DD`) for totals per month; empty for none.
    #[serde(default = "default_date")]
    pub date: String,
    /// What separates columns: one ASCII character.
    #[serde(default = "default_delimiter")]
    #[schemars(length(equal = 1))]
    pub delimiter: String,
    /// What separates whole numbers from decimals; the other of the two may group thousands.
    #[serde(default)]
    pub decimal: Decimal,
    /// Fail at the first row that cannot be read, instead of listing it in the report.
    #[serde(default)]
    pub strict: bool,
}

fn default_workspace() -> String {
    "books".to_owned()
}

fn default_group() -> String {
    "category".to_owned()
}

fn default_amount() -> String {
    "amount".to_owned()
}

fn default_date() -> String {
    "date".to_owned()
}

fn default_delimiter() -> String {
    ",".to_owned()
}

/// What was read and written.
#[derive(Debug, Serialize, JsonSchema)]
pub struct CsvReportOutput {
    /// The report's path in the workspace.
    pub output: String,
    /// Files that were read.
    pub files: usize,
    /// Rows that were added up.
    pub rows: usize,
    /// Rows that could not be read; the report lists them.
    pub left_out: usize,
    /// Number of groups.
    pub groups: usize,
    /// The sum of all rows, as an exact decimal.
    pub total: String,
}

/// Why there is no report.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
#[serde(tag = "code", rename_all = "snake_case")]
pub enum ReportError {
    /// There is no CSV file at the input.
    NoFiles {
        /// Where it was looked for.
        input: String,
    },
    /// A file has no column of this name.
    NoColumn {
        /// The file.
        file: String,
        /// The column that the input asks for.
        column: String,
        /// The columns that the file has.
        found: Vec<String>,
    },
    /// A row cannot be read, and the input asks to be strict.
    BadRow {
        /// The file.
        file: String,
        /// The line in the file, from 1.
        line: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// The delimiter is not one ASCII character.
    BadDelimiter,
    /// The report would replace one of the files that it reads.
    OutputIsInput,
    /// The workspace refused to read or write.
    Workspace {
        /// What it said.
        message: String,
        /// The kind of the refusal, which the host gets by other means.
        #[serde(skip)]
        kind: ErrorKind,
    },
}

impl fmt::Display for ReportError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoFiles { input } => write!(out, "there is no CSV file at `{input}`"),
            Self::NoColumn { file, column, found } => {
                write!(out, "`{file}` has no column `{column}`; it has `{}`", found.join("`, `"))
            }
            Self::BadRow { file, line, problem } => write!(out, "`{file}` line {line}: {problem}"),
            Self::BadDelimiter => out.write_str("the delimiter must be one ASCII character"),
            Self::OutputIsInput => out.write_str("the output is one of the files to read"),
            Self::Workspace { message, .. } => out.write_str(message),
        }
    }
}

impl ToolError for ReportError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::NoFiles { .. } => ErrorKind::NotFound,
            Self::NoColumn { .. } | Self::BadDelimiter | Self::OutputIsInput => ErrorKind::InvalidInput,
            Self::BadRow { .. } => ErrorKind::Conflict,
            Self::Workspace { kind, .. } => *kind,
        }
    }

    fn fields(&self) -> Vec<FieldProblem> {
        let (pointer, expected) = match self {
            Self::NoFiles { .. } => ("/input", "a `.csv` file, or a directory with some".to_owned()),
            Self::OutputIsInput => ("/output", "a path of its own".to_owned()),
            Self::BadDelimiter => ("/delimiter", "one ASCII character".to_owned()),
            _ => return Vec::new(),
        };
        vec![FieldProblem { pointer: pointer.to_owned(), problem: self.to_string(), expected }]
    }
}

impl From<toolkeep_sdk::Error> for ReportError {
    fn from(error: toolkeep_sdk::Error) -> Self {
        Self::Workspace { message: error.message().to_owned(), kind: error.kind() }
    }
}

/// Adds up a column of CSV files per group and per month and writes the totals as a Markdown report.
///
/// When: the user wants a summary or overview of bookings, expenses or other dated amounts that lie in
/// CSV files. Not for changing the CSV files.
/// Side effects: writes the report to `output`, in place of what that held, and makes its directory.
/// Errors: not-found if there is no CSV file; invalid-input for a column that a file does not have;
/// conflict for a row that cannot be read, if `strict`.
#[tool(title = "CSV report", effects("file.write", "dir.create"), deterministic)]
pub fn csv_report(args: CsvReportArgs) -> Result<CsvReportOutput, ReportError> {
    let books = workspace(&args.workspace)?;
    let columns = Columns::of(&args)?;
    let input = args.input.trim_end_matches('/');
    let mut files = books.files(input)?;
    files.retain(|path| path == input || path.to_ascii_lowercase().ends_with(".csv"));
    if files.is_empty() {
        return Err(ReportError::NoFiles { input: args.input });
    }
    if files.contains(&args.output) {
        return Err(ReportError::OutputIsInput);
    }
    let mut ledger = Ledger::default();
    for (done, path) in (0_u64..).zip(&files) {
        progress::report(done, u64::try_from(files.len()).ok(), path);
        ledger.read(path, &books.read(path)?, &columns)?;
    }
    if !ledger.left_out.is_empty() {
        log::warn(format_args!("{} rows could not be read", ledger.left_out.len()));
    }
    books.write(&args.output, report::markdown(&args, files.len(), &ledger))?;
    Ok(CsvReportOutput {
        output: args.output,
        files: files.len(),
        rows: ledger.all.rows,
        left_out: ledger.left_out.len(),
        groups: ledger.by_group().len(),
        total: ledger.all.sum.to_string(),
    })
}

toolkeep_sdk::export!(csv_report);

#[cfg(test)]
mod tests {
    use super::csv_report;
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::{Harness, Outcome};

    const MAY: &str = "date,text,category,amount\n2026-05-02,\"Paper, A4\",office,12.50\n\
                       2026-05-09,\"He said \"\"thanks\"\"\",gifts,-3.20\n";
    const JUNE: &str = "category,amount,date\noffice,\"1,000.10\",2026-06-01\n";

    fn report(input: Value) -> Outcome {
        Harness::new()
            .workspace("books", [("ledger/05.csv", MAY), ("ledger/2026/06.csv", JUNE), ("ledger/a.txt", "no")])
            .call(csv_report, input)
    }

    fn usual() -> Value {
        json!({"input": "ledger", "output": "reports/summary.md"})
    }

    #[test]
    fn totals_per_group_and_month_are_written_to_a_new_file() {
        let outcome = report(usual());
        assert_eq!(
            outcome.output(),
            &json!({
                "output": "reports/summary.md", "files": 2, "rows": 3, "left_out": 0, "groups": 2,
                "total": "1009.40"
            })
        );
        assert_eq!(outcome.effect_list(), ["dir.create books:reports", "file.write books:reports/summary.md"]);
        assert_eq!(
            outcome.effect("books", "reports/summary.md").text(),
            "# Totals of `ledger`\n\n\
             2 files, 3 rows, total **1009.40**.\n\n\
             ## By category\n\n\
             | category | rows | amount |\n|---|---:|---:|\n\
             | gifts | 1 | -3.20 |\n| office | 2 | 1012.60 |\n| **total** | **3** | **1009.40** |\n\n\
             ## By month\n\n\
             | month | rows | amount |\n|---|---:|---:|\n\
             | 2026-05 | 2 | 9.30 |\n| 2026-06 | 1 | 1000.10 |\n\n\
             ## By month and category\n\n\
             | month | category | rows | amount |\n|---|---|---:|---:|\n\
             | 2026-05 | gifts | 1 | -3.20 |\n| 2026-05 | office | 1 | 12.50 |\n\
             | 2026-06 | office | 1 | 1000.10 |\n"
        );
    }

    #[test]
    fn the_same_report_twice_changes_nothing_the_second_time() {
        let harness = Harness::new().workspace("books", [("ledger/05.csv", MAY)]);
        assert_eq!(harness.call(csv_report, usual()).effects.len(), 2);
        let again = harness.call(csv_report, usual());
        assert!(again.effects.is_empty(), "{again}");
    }

    #[test]
    fn without_a_date_column_there_are_no_months() {
        let outcome = report(json!({
            "input": "ledger/05.csv", "output": "out.md", "date": "", "group_by": "text"
        }));
        let text = outcome.effect("books", "out.md").text();
        assert!(text.contains("| He said \"thanks\" | 1 | -3.20 |\n| Paper, A4 | 1 | 12.50 |"), "{text}");
        assert!(!text.contains("month"), "{text}");
    }

    #[test]
    fn rows_that_cannot_be_read_are_listed_and_not_counted() {
        let harness = Harness::new().workspace(
            "books",
            [("l.csv", "date,category,amount\n2026-05-02,a,1\n2026-05-02,b,one\nsoon,c,3\n2026-05-02,d\n")],
        );
        let input = json!({"input": "l.csv", "output": "out.md"});
        let outcome = harness.call(csv_report, input.clone());
        assert_eq!(outcome.output()["rows"], 1);
        assert_eq!(outcome.output()["left_out"], 3);
        let text = outcome.effect("books", "out.md").text();
        assert!(
            text.ends_with(
                "## Left out\n\n- `l.csv` line 3: `one` is no amount\n\
                 - `l.csv` line 4: `soon` is no date of the form YYYY-MM-DD\n\
                 - `l.csv` line 5: the row has no value for `amount`\n"
            ),
            "{text}"
        );
        let mut strict = input;
        strict["strict"] = json!(true);
        let refused = harness.call(csv_report, strict);
        assert_eq!(refused.error().kind(), ErrorKind::Conflict);
        assert_eq!(
            refused.error().detail(),
            Some(&json!({"code": "bad_row", "file": "l.csv", "line": 3, "problem": "`one` is no amount"}))
        );
        assert!(refused.effects.is_empty());
    }

    #[test]
    fn semicolons_and_decimal_commas_are_read() {
        let outcome = Harness::new()
            .workspace("books", [("l.csv", "\u{feff}Date;Category;Amount\n2026-05-02;a|b;1.234,5\n")])
            .call(csv_report, json!({"input": "", "output": "out.md", "delimiter": ";", "decimal": "comma"}));
        assert_eq!(outcome.output()["total"], "1234.50");
        assert!(outcome.effect("books", "out.md").text().contains("| a\\|b | 1 | 1234.50 |"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let refused = report(json!({"input": "gone", "output": "out.md"}));
        assert_eq!(refused.error().kind(), ErrorKind::NotFound);
        let refused = report(json!({"input": "ledger/a.txt", "output": "out.md"}));
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput);
        let refused = report(json!({"input": "ledger", "output": "out.md", "group_by": "kind"}));
        assert_eq!(
            refused.error().message(),
            "`ledger/05.csv` has no column `kind`; it has `date`, `text`, `category`, `amount`"
        );
        let refused = report(json!({"input": "ledger", "output": "out.md", "delimiter": "ü"}));
        assert_eq!(refused.error().fields().first().map(|field| field.pointer.as_str()), Some("/delimiter"));
        let empty = Harness::new().empty_workspace("books").call(csv_report, json!({"input": "", "output": "o.md"}));
        assert_eq!(empty.error().detail(), Some(&json!({"code": "no_files", "input": ""})));
    }

    #[test]
    fn an_input_is_never_replaced_by_the_report() {
        let refused = report(json!({"input": "ledger", "output": "ledger/05.csv"}));
        assert_eq!(refused.error().message(), "the output is one of the files to read");
    }

    #[test]
    fn an_output_outside_of_the_workspace_is_refused() {
        for output in ["../o.md", "/etc/passwd", "a/../../o.md"] {
            let refused = report(json!({"input": "ledger", "output": output}));
            assert_eq!(refused.error().kind(), ErrorKind::InvalidInput, "{output}");
        }
    }
}
