//! Figures against promises: printed, and kept in `RESULTS.md`, one row each.
//!
//! A bench replaces its own rows, so that one that runs alone does not lose the others'.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// One figure.
#[derive(Debug, Clone)]
pub struct Row {
    /// `P1`, `G8`, …; a letter follows where one promise has several figures.
    pub id: &'static str,
    /// What was measured.
    pub what: &'static str,
    /// Our figure, with its unit.
    pub figure: String,
    /// The floor, with its unit; a dash if the promise is absolute.
    pub floor: String,
    /// What is compared with the promise, with its unit or `×`.
    pub compared: String,
    /// The promise.
    pub promise: String,
    /// Whether it is kept.
    pub met: bool,
}

impl Row {
    /// A figure that may be at most `promise` times its floor; both in `unit`.
    #[must_use]
    pub fn at_most_times(id: &'static str, what: &'static str, unit: &str, figures: [f64; 2], promise: f64) -> Self {
        let [figure, floor] = figures;
        let ratio = figure / floor;
        Self {
            id,
            what,
            figure: format!("{figure:.1} {unit}"),
            floor: format!("{floor:.1} {unit}"),
            compared: format!("{ratio:.2} ×"),
            promise: format!("≤ {promise} ×"),
            met: ratio <= promise,
        }
    }

    /// A figure that must be at least `promise` times its floor; both in `unit`.
    #[must_use]
    pub fn at_least_times(id: &'static str, what: &'static str, unit: &str, figures: [f64; 2], promise: f64) -> Self {
        let met = figures[0] / figures[1] >= promise;
        Self { promise: format!("≥ {promise} ×"), met, ..Self::at_most_times(id, what, unit, figures, promise) }
    }

    /// A figure that may be at most `promise`; both in `unit`.
    #[must_use]
    pub fn at_most(id: &'static str, what: &'static str, unit: &str, figure: f64, promise: f64) -> Self {
        Self {
            id,
            what,
            figure: format!("{figure:.1} {unit}"),
            floor: "–".to_owned(),
            compared: format!("{figure:.1} {unit}"),
            promise: format!("≤ {promise} {unit}"),
            met: figure <= promise,
        }
    }

    /// A figure that must be at least `promise`; both in `unit`.
    #[must_use]
    pub fn at_least(id: &'static str, what: &'static str, unit: &str, figure: f64, promise: f64) -> Self {
        let met = figure >= promise;
        Self { promise: format!("≥ {promise} {unit}"), met, ..Self::at_most(id, what, unit, figure, promise) }
    }

    fn line(&self) -> String {
        let verdict = if self.met { "kept" } else { "MISSED" };
        let Self { id, what, figure, floor, compared, promise, .. } = self;
        format!("| {id} | {what} | {figure} | {floor} | {compared} | {promise} | {verdict} | {} |", revision())
    }

    /// Position in the table: speed first, then reliability.
    fn rank(line: &str) -> (bool, u32, String) {
        let id = line.trim_start_matches("| ").split(' ').next().unwrap_or_default();
        let digits: String = id.chars().skip(1).take_while(char::is_ascii_digit).collect();
        (id.starts_with('G'), digits.parse().unwrap_or(u32::MAX), id.to_owned())
    }
}

/// Print rows, with `notes` below them, and keep the rows.
pub fn publish(rows: &[Row], notes: &[String]) {
    for row in rows {
        let verdict = if row.met { "kept" } else { "MISSED" };
        println!("{} {}", row.id, row.what);
        println!(
            "    figure {}   floor {}   {}   promise {}   {verdict}",
            row.figure, row.floor, row.compared, row.promise
        );
    }
    for note in notes {
        println!("    {note}");
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("RESULTS.md");
    let old = fs::read_to_string(&path).unwrap_or_default();
    let ours = |line: &str| rows.iter().any(|row| line.starts_with(&format!("| {} |", row.id)));
    let is_row = |line: &str| line.starts_with("| P") || line.starts_with("| G");
    let mut table: Vec<String> = old.lines().filter(|l| is_row(l) && !ours(l)).map(str::to_owned).collect();
    table.extend(rows.iter().map(Row::line));
    table.sort_by_key(|line| Row::rank(line));
    let head = "| # | what | figure | floor | compared | promise | | commit |\n|---|---|---|---|---|---|---|---|";
    let text = format!("{}\n\n{head}\n{}\n", machine(), table.join("\n"));
    fs::write(&path, text).expect("RESULTS.md");
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": ")).map_or("?", |m| m.1);
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let (kernel, load) = (read("/proc/sys/kernel/osrelease"), read("/proc/loadavg"));
    let load = load.split(' ').next().unwrap_or("?");
    format!(
        "# Results\n\nWritten by `make bench`; [docs/performance.md](../docs/performance.md) says what each figure is.\n\n\
         Machine of the last run: {model}, {cores} cores, Linux {}, load average {load} while measuring.",
        kernel.trim()
    )
}

fn revision() -> String {
    let git = |arguments: &[&str]| {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let output = Command::new("git").current_dir(here).args(arguments).output().ok()?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let dirty = git(&["status", "--porcelain", "--", "../host", "../wit"]).is_some_and(|text| !text.is_empty());
    let commit = git(&["rev-parse", "--short", "HEAD"]).filter(|text| !text.is_empty());
    format!("{}{}", commit.unwrap_or_else(|| "?".to_owned()), if dirty { " + edits" } else { "" })
}
