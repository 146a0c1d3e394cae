//! What the sections of a configuration mean, at their bounds.

use super::*;

fn ledger(lines: &str) -> Result<LedgerBounds, ConfigError> {
    let text: ConfigText = toml::from_str(&format!("[ledger]\n{lines}\n")).expect("shape");
    check_ledger(&text)
}

#[test]
fn the_ledgers_bounds_are_what_is_written_or_a_quarter_of_a_year() {
    assert_eq!(ledger("").expect("defaults"), LedgerBounds::default());
    let written = ledger("keep_days = 1\nundo_days = 2\nmax_bytes = 16777216").expect("bounds");
    assert_eq!(written, LedgerBounds { keep_ms: DAY_MS, undo_ms: Some(2 * DAY_MS), max_bytes: LEDGER_MIN_BYTES });
    assert!(ledger("keep_days = 36500").is_ok() && ledger("undo_days = 36500").is_ok());
    let refused = ["keep_days = 0", "keep_days = 36501", "undo_days = 0", "undo_days = 36501", "max_bytes = 16777215"];
    for line in refused {
        let key = line.split(' ').next().expect("key");
        let error = ledger(line).expect_err(line).to_string();
        assert!(error.contains(&format!("ledger.{key}")), "{error}");
    }
    assert!(ledger(&format!("max_bytes = {LEDGER_MAX_BYTES}")).is_ok());
    assert!(ledger(&format!("max_bytes = {}", LEDGER_MAX_BYTES + 1)).is_err());
    let template: ConfigText = toml::from_str(TEMPLATE).expect("shape");
    assert_eq!(check_ledger(&template).expect("bounds"), LedgerBounds::default(), "the template says the defaults");
}
