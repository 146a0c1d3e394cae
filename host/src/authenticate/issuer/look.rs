//! One look at the keys of every issuer, for `toolkeep doctor`: whether they can be read now, how many of them are of use, and
//! how far the clock of whoever publishes them is from this machine's.
//!
//! Nothing is kept: the daemon's own keys stay what they are. A file says nothing of a clock.

use std::time::Duration;

use tokio::task::JoinSet;

use super::{Issuer, Issuers, KeySource, Keys, read_file};
use crate::ambient::Ambient;
use crate::egress::{Egress, Incoming};

/// How long one look may take; all issuers are looked at together.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// How exact the field `Date` is, in milliseconds (RFC 9110, section 5.6.7).
const DATE_MS: u64 = 1_000;

/// What looking at one issuer came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// What the configuration calls it.
    pub name: String,
    /// Keys that are of use; or why they cannot be read.
    pub keys: Result<usize, String>,
    /// How far the server's clock is from ours, in milliseconds, if it said its time.
    pub apart_ms: Option<u64>,
    /// How far it may be, in milliseconds.
    pub leeway_ms: u64,
    /// Whether its keys are in a file of this machine.
    pub is_file: bool,
}

impl Issuers {
    /// Look at all of them now. Takes as long as one look may take.
    pub async fn look(&self, egress: &Egress, ambient: &Ambient) -> Vec<Look> {
        let mut looks = JoinSet::new();
        for (at, issuer) in self.0.iter().enumerate() {
            let (issuer, egress, ambient) = (std::sync::Arc::clone(issuer), egress.clone(), ambient.clone());
            looks.spawn(async move { (at, issuer.look(&egress, &ambient).await) });
        }
        let mut found = looks.join_all().await;
        found.sort_by_key(|(at, _)| *at);
        found.into_iter().map(|(_, look)| look).collect()
    }
}

impl Issuer {
    async fn look(&self, egress: &Egress, ambient: &Ambient) -> Look {
        let mut apart_ms = None;
        let reading = async {
            let text = match &self.config.keys {
                KeySource::File(path) => read_file(path.clone()).await?,
                KeySource::Url { url, network } => {
                    let answer = self.ask(egress, url, *network).await?;
                    apart_ms = date_ms(&answer).map(|theirs| apart(theirs, ambient.now_ms()));
                    answer.body.to_vec()
                }
            };
            Keys::read(&text, &self.config.algorithms).map(|keys| keys.len()).map_err(|bad| bad.to_string())
        };
        let late = || Err(format!("there is no answer within {} s", LOOK_TIMEOUT.as_secs()));
        let keys = tokio::time::timeout(LOOK_TIMEOUT, reading).await.unwrap_or_else(|_| late());
        let is_file = matches!(self.config.keys, KeySource::File(_));
        Look { name: self.config.name.clone(), keys, apart_ms, leeway_ms: self.config.leeway_ms, is_file }
    }
}

/// When the server says that it answered, in milliseconds since the Unix epoch.
fn date_ms(answer: &Incoming) -> Option<u64> {
    let field = answer.headers.iter().find(|field| field.name == "date")?;
    let text = std::str::from_utf8(field.value.as_ref()).ok()?;
    let zoned = jiff::fmt::rfc2822::parse(text).ok()?;
    u64::try_from(zoned.timestamp().as_millisecond()).ok()
}

/// How far two clocks are apart at least, when one of them tells whole seconds only.
fn apart(theirs_ms: u64, ours_ms: u64) -> u64 {
    theirs_ms.abs_diff(ours_ms).saturating_sub(DATE_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_are_apart_by_what_whole_seconds_do_not_explain() {
        assert_eq!((apart(10_000, 10_999), apart(10_000, 11_000), apart(10_000, 11_001)), (0, 0, 1));
        assert_eq!(apart(50_000, 10_000), 39_000, "in either direction");
    }
}
