//! Writes the totals as Markdown.
//!
//! Values come from files and may hold anything: what would end a table cell or a code span is escaped.

use std::fmt::{self, Write};

use crate::CsvReportArgs;
use crate::ledger::{Ledger, Total};

/// Rows that are listed as left out; a wrong delimiter leaves out every row.
const LISTED: usize = 50;

/// The report.
pub(crate) fn markdown(args: &CsvReportArgs, files: usize, ledger: &Ledger) -> String {
    let mut out = String::new();
    match write_report(&mut out, args, files, ledger) {
        // Writing to a string cannot fail.
        Ok(()) | Err(fmt::Error) => out,
    }
}

fn write_report(out: &mut String, args: &CsvReportArgs, files: usize, ledger: &Ledger) -> fmt::Result {
    let input = if args.input.is_empty() { &args.workspace } else { &args.input };
    let (group, amount) = (text(&args.group_by), text(&args.amount));
    let Total { rows, sum } = ledger.all;
    writeln!(out, "# Totals of {}\n", code(input))?;
    writeln!(out, "{}, {}, total **{sum}**.", count(files, "file"), count(rows, "row"))?;

    writeln!(out, "\n## By {group}\n\n| {group} | rows | {amount} |\n|---|---:|---:|")?;
    for (name, total) in ledger.by_group() {
        writeln!(out, "| {} | {} | {} |", text(name), total.rows, total.sum)?;
    }
    writeln!(out, "| **total** | **{rows}** | **{sum}** |")?;

    let months = ledger.by_month();
    if !months.is_empty() {
        writeln!(out, "\n## By month\n\n| month | rows | {amount} |\n|---|---:|---:|")?;
        for (month, total) in months {
            writeln!(out, "| {month} | {} | {} |", total.rows, total.sum)?;
        }
        writeln!(out, "\n## By month and {group}\n\n| month | {group} | rows | {amount} |\n|---|---|---:|---:|")?;
        for ((month, name), total) in &ledger.cells {
            writeln!(out, "| {month} | {} | {} | {} |", text(name), total.rows, total.sum)?;
        }
    }
    write_left_out(out, ledger)
}

fn write_left_out(out: &mut String, ledger: &Ledger) -> fmt::Result {
    if ledger.left_out.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n## Left out\n")?;
    for row in ledger.left_out.iter().take(LISTED) {
        writeln!(out, "- {} line {}: {}", code(&row.file), row.line, text(&row.problem))?;
    }
    match ledger.left_out.len().saturating_sub(LISTED) {
        0 => Ok(()),
        more => writeln!(out, "- and {}", count(more, "more row")),
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

/// A value inside of a table cell or a line.
fn text(value: &str) -> String {
    value.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ")
}

/// A value as a code span.
fn code(value: &str) -> String {
    format!("`{}`", value.replace('`', "'").replace(['\n', '\r'], " "))
}

#[cfg(test)]
mod tests {
    use super::{code, count, text};

    #[test]
    fn values_cannot_break_out_of_their_place() {
        assert_eq!(text("a|b\nc\\"), "a\\|b c\\\\");
        assert_eq!(code("a`b\rc"), "`a'b c`");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!(count(1, "row"), "1 row");
        assert_eq!(count(0, "row"), "0 rows");
    }
}
