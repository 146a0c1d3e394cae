//! `[recording]`: how much of calls is recorded, which share of it is looked at again, and when a suite drifts.
//!
//! The manifest of a tool may record more or less. Nothing is checked unless a share is set.

use serde::Deserialize;
use toolkeep_core::event::Depth;

use super::ConfigError;

/// Largest share, in thousandths.
const WHOLE_PERMILLE: u32 = 1_000;

/// `[recording]` as it is written.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordingText {
    /// `full`, `hashes` or `off`, where a manifest does not say.
    pub depth: Option<Depth>,
    /// Recorded calls of 1,000 that are looked at again.
    pub check_permille: Option<u32>,
    /// Golden cases of 1,000 that have to pass, or operators are told.
    pub pass_permille: Option<u32>,
}

/// How calls are recorded and checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingConfig {
    /// How much is recorded where a manifest does not say.
    pub depth: Depth,
    /// Recorded calls of 1,000 that are looked at again; 0 for none.
    pub check_permille: u32,
    /// Golden cases of 1,000 that have to pass.
    pub pass_permille: u32,
}

impl Default for RecordingConfig {
    fn default() -> Self {
        Self { depth: Depth::Full, check_permille: 0, pass_permille: WHOLE_PERMILLE }
    }
}

impl RecordingText {
    /// What it means.
    ///
    /// # Errors
    /// A share is more than everything.
    pub fn check(&self) -> Result<RecordingConfig, ConfigError> {
        let share = |key: &str, value: Option<u32>, default: u32| match value {
            Some(value) if value > WHOLE_PERMILLE => {
                let problem = format!("{value} of {WHOLE_PERMILLE} is more than all; write at most {WHOLE_PERMILLE}");
                Err(ConfigError::value(format!("recording.{key}"), problem))
            }
            value => Ok(value.unwrap_or(default)),
        };
        let default = RecordingConfig::default();
        Ok(RecordingConfig {
            depth: self.depth.unwrap_or(default.depth),
            check_permille: share("check_permille", self.check_permille, default.check_permille)?,
            pass_permille: share("pass_permille", self.pass_permille, default.pass_permille)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r59_a_share_is_at_most_everything() {
        let text = |permille| RecordingText { check_permille: Some(permille), ..RecordingText::default() };
        assert_eq!(text(WHOLE_PERMILLE).check().expect("all of it").check_permille, WHOLE_PERMILLE);
        assert!(text(WHOLE_PERMILLE + 1).check().is_err());
        assert_eq!(RecordingText::default().check().expect("defaults"), RecordingConfig::default());
    }
}
