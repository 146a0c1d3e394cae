//! What a proof has shown, judged by its own lines and by what it promises: `make hard` is this and the running of processes.
//!
//! A line counts its cases after `: 0 of `. A proof with a line that counts none has shown nothing, and one below its floor
//! too little; what it could not begin on this machine it says in a line that begins with `skipped:`.

/// What the test harness writes before the first line of a test that runs alone.
const HARNESS: &str = " ... ";

/// A line without what the test harness writes before it.
fn bare(line: &str) -> &str {
    if line.starts_with("test ") { line.split_once(HARNESS).map_or(line, |(_, rest)| rest) } else { line }
}

/// What a proof says of itself: `G` and a number first.
#[must_use]
pub fn line_of(line: &str) -> Option<&str> {
    let line = bare(line);
    let number = line.strip_prefix('G')?.split_once(' ')?.0;
    number.parse::<u8>().is_ok().then_some(line)
}

/// Why a proof could not begin.
#[must_use]
pub fn skipped(line: &str) -> Option<&str> {
    Some(bare(line)).filter(|line| line.starts_with("skipped:"))
}

/// How many cases a line counts.
#[must_use]
pub fn cases(line: &str) -> Option<usize> {
    let (_, rest) = line.split_once(": 0 of ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Why what a proof has said shows too little for `floor` cases in all; nothing where it shows enough.
#[must_use]
pub fn lack(test: &str, said: &[String], floor: usize) -> Option<String> {
    if said.is_empty() {
        return Some("it said nothing".to_owned());
    }
    if let Some(empty) = said.iter().find(|line| cases(line).is_none_or(|cases| cases == 0)) {
        return Some(format!("it did nothing: `{empty}`"));
    }
    let all: usize = said.iter().filter_map(|line| cases(line)).sum();
    (all < floor).then(|| {
        format!("short: {all} cases of the {floor} that are promised; `make hard PROOFS={test}` gives it all the time")
    })
}

/// Which of `tests` are wanted, by parts of their names: all where nothing is said.
///
/// # Errors
/// A part that is in no name.
pub fn chosen<'a>(tests: &[&'a str], parts: &[String]) -> Result<Vec<&'a str>, String> {
    if let Some(part) = parts.iter().find(|part| part.is_empty() || !tests.iter().any(|test| test.contains(*part))) {
        return Err(format!("`{part}` is in the name of no proof; there are:\n  {}", tests.join("\n  ")));
    }
    let wanted = |test: &&&str| parts.is_empty() || parts.iter().any(|part| test.contains(part.as_str()));
    Ok(tests.iter().filter(wanted).copied().collect())
}
