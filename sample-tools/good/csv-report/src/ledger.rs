//! Reads rows and adds them up. Sums are kept per month and group; everything else derives from them.

use std::collections::BTreeMap;

use csv::{ReaderBuilder, StringRecord, Trim};

use crate::amount::{Amount, Decimal};
use crate::{CsvReportArgs, ReportError};

/// Stands for a group without a name.
const NAMELESS: &str = "(none)";

/// How to read a row.
#[derive(Debug)]
pub(crate) struct Columns {
    group: String,
    amount: String,
    /// None: no months.
    date: Option<String>,
    delimiter: u8,
    decimal: Decimal,
    strict: bool,
}

impl Columns {
    /// Take what the input says about columns.
    pub(crate) fn of(args: &CsvReportArgs) -> Result<Self, ReportError> {
        let mut bytes = args.delimiter.bytes();
        let (Some(delimiter), None) = (bytes.next(), bytes.next()) else {
            return Err(ReportError::BadDelimiter);
        };
        if !delimiter.is_ascii() {
            return Err(ReportError::BadDelimiter);
        }
        Ok(Self {
            group: args.group_by.clone(),
            amount: args.amount.clone(),
            date: (!args.date.is_empty()).then(|| args.date.clone()),
            delimiter,
            decimal: args.decimal,
            strict: args.strict,
        })
    }
}

/// Number of rows and their sum.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Total {
    pub(crate) rows: usize,
    pub(crate) sum: Amount,
}

impl Total {
    fn add(&mut self, rows: usize, amount: Amount) {
        self.rows += rows;
        self.sum = self.sum.plus(amount);
    }
}

/// A row that could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct LeftOut {
    pub(crate) file: String,
    pub(crate) line: u64,
    pub(crate) problem: String,
}

/// Everything that was read.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// All rows.
    pub(crate) all: Total,
    /// Per month (empty without dates) and group.
    pub(crate) cells: BTreeMap<(String, String), Total>,
    /// Rows that could not be read, in order.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Where the columns are in one file.
struct Positions {
    group: usize,
    amount: usize,
    date: Option<usize>,
}

impl Ledger {
    /// Add the rows of one file.
    pub(crate) fn read(&mut self, file: &str, bytes: &[u8], columns: &Columns) -> Result<(), ReportError> {
        let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes);
        let mut reader =
            ReaderBuilder::new().delimiter(columns.delimiter).flexible(true).trim(Trim::Headers).from_reader(bytes);
        let headers = reader.headers().map_err(|error| bad_row(file, 1, &error))?.clone();
        let positions = positions(file, &headers, columns)?;
        let mut line = 1;
        for record in reader.records() {
            let row = record.map_err(|error| {
                let line = error.position().map_or(line + 1, csv::Position::line);
                (line, plain(&error))
            });
            let row = row.and_then(|record| {
                line = record.position().map_or(line + 1, csv::Position::line);
                cell(&record, &positions, columns).map_err(|problem| (line, problem))
            });
            match row {
                Ok((month, group, amount)) => {
                    self.all.add(1, amount);
                    self.cells.entry((month, group)).or_default().add(1, amount);
                }
                Err((line, problem)) if columns.strict => {
                    return Err(ReportError::BadRow { file: file.to_owned(), line, problem });
                }
                Err((line, problem)) => self.left_out.push(LeftOut { file: file.to_owned(), line, problem }),
            }
        }
        Ok(())
    }

    /// Totals per group, in order of the alphabet.
    pub(crate) fn by_group(&self) -> BTreeMap<&str, Total> {
        self.sums(|(_, group)| group)
    }

    /// Totals per month, in order of time; none without dates.
    pub(crate) fn by_month(&self) -> BTreeMap<&str, Total> {
        let mut months = self.sums(|(month, _)| month);
        months.remove("");
        months
    }

    fn sums<'a>(&'a self, key: impl Fn(&'a (String, String)) -> &'a String) -> BTreeMap<&'a str, Total> {
        let mut sums: BTreeMap<&str, Total> = BTreeMap::new();
        for (cell, total) in &self.cells {
            sums.entry(key(cell)).or_default().add(total.rows, total.sum);
        }
        sums
    }
}

fn positions(file: &str, headers: &StringRecord, columns: &Columns) -> Result<Positions, ReportError> {
    let find = |column: &str| {
        let exact = headers.iter().position(|header| header == column);
        let found = exact.or_else(|| headers.iter().position(|header| header.eq_ignore_ascii_case(column)));
        found.ok_or_else(|| ReportError::NoColumn {
            file: file.to_owned(),
            column: column.to_owned(),
            found: headers.iter().map(str::to_owned).collect(),
        })
    };
    Ok(Positions {
        group: find(&columns.group)?,
        amount: find(&columns.amount)?,
        date: columns.date.as_deref().map(find).transpose()?,
    })
}

/// Month, group and amount of one row, or what is wrong with it.
fn cell(record: &StringRecord, at: &Positions, columns: &Columns) -> Result<(String, String, Amount), String> {
    let value = |position: usize, column: &str| {
        record.get(position).ok_or_else(|| format!("the row has no value for `{column}`"))
    };
    let text = value(at.amount, &columns.amount)?;
    let amount = Amount::parse(text, columns.decimal).ok_or_else(|| format!("`{text}` is no amount"))?;
    let group = match value(at.group, &columns.group)?.trim() {
        "" => NAMELESS,
        group => group,
    };
    let month = match (at.date, &columns.date) {
        (Some(position), Some(column)) => {
            let date = value(position, column)?;
            month_of(date).ok_or_else(|| format!("`{date}` is no date of the form YYYY-MM-DD"))?
        }
        _ => String::new(),
    };
    Ok((month, group.to_owned(), amount))
}

/// `2026-05` of `2026-05-02`.
fn month_of(date: &str) -> Option<String> {
    let mut parts = date.trim().splitn(3, '-');
    let (year, month, day) = (parts.next()?, parts.next()?, parts.next()?);
    let number = |text: &str, digits: usize| -> Option<u16> {
        (text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let fits =
        number(year, 4).is_some() && matches!(number(month, 2), Some(1..=12)) && matches!(number(day, 2), Some(1..=31));
    fits.then(|| format!("{year}-{month}"))
}

fn bad_row(file: &str, line: u64, error: &csv::Error) -> ReportError {
    ReportError::BadRow { file: file.to_owned(), line, problem: plain(error) }
}

/// The one kind of error that reading from memory has left.
fn plain(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Utf8 { .. } => "the row is not UTF-8".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::month_of;

    #[test]
    fn months_are_taken_from_whole_dates_only() {
        assert_eq!(month_of(" 2026-05-31 ").as_deref(), Some("2026-05"));
        for date in ["", "2026-05", "2026-13-01", "2026-00-01", "2026-05-32", "26-05-01", "2026-5-1", "2026-05-01T10"] {
            assert_eq!(month_of(date), None, "{date}");
        }
    }
}
