//! Alerts that the ledger cannot keep now: sent at once, in a few attempts, and noted in the log alone.
//!
//! What a row would remember is remembered here, as long as the daemon lives: how often a fact happened, and whether it was
//! told. So one fact is told once here too, and where the rules want a number of occurrences first it waits for as many. Facts
//! that are remembered are bounded for each severity apart: warnings that an agent makes cannot mute what is critical.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use toolkeep_core::delivery::DeliveryKind;
use toolkeep_core::id::{ChannelName, TenantName};

use super::Severity;
use crate::ambient::Ambient;
use crate::channel::{Channels, NotTaken, Parcel};
use crate::egress::Clearance;
use crate::ledger::AlertRaised;
use crate::notify::Event;

/// Attempts to send one, and the pause after each.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_secs(5);
/// How long one attempt may take.
const ATTEMPT: Duration = Duration::from_secs(30);
/// Attempts under way at the same time, at most.
const SENDING_MAX: usize = 8;
/// Facts of one severity that are remembered, at most: each is one sending. What comes then is in the log.
const FACTS_MAX: usize = 1_000;

/// What happened, to what.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Fact {
    severity: Severity,
    event: Event,
    tenant: TenantName,
    subject: Arc<str>,
}

/// How often it happened.
#[derive(Debug)]
struct Seen {
    count: u64,
    told: bool,
    first_ms: u64,
    /// The end of the window within which it is the same fact.
    until_ms: u64,
}

struct Parts {
    channels: Channels,
    ambient: Ambient,
    facts: Mutex<HashMap<Fact, Seen>>,
    sending: Semaphore,
}

/// Sends what is not kept. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Direct(Arc<Parts>);

impl fmt::Debug for Direct {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Direct")
    }
}

impl Direct {
    /// By these channels.
    pub(super) fn new(channels: Channels, ambient: Ambient) -> Self {
        let (facts, sending) = (Mutex::default(), Semaphore::new(SENDING_MAX));
        Self(Arc::new(Parts { channels, ambient, facts, sending }))
    }

    /// Tell an alert by its deliveries, unless it was told or has not happened often enough. Whether it is told now.
    pub(super) fn tell(&self, raised: &AlertRaised) -> bool {
        let Some(times) = self.due(raised) else { return false };
        for (id, channel) in &raised.deliveries {
            let parcel = Parcel {
                id: *id,
                tenant: raised.tenant.clone(),
                kind: DeliveryKind::Alert,
                call: None,
                made_ms: self.0.ambient.now_ms(),
                message: raised.message(times),
                clearance: Clearance::default(),
            };
            self.send(channel.clone(), parcel);
        }
        true
    }

    /// Count a fact. Where it is to be told now: how often it happened, when first and when last.
    fn due(&self, raised: &AlertRaised) -> Option<(u64, u64, u64)> {
        let now_ms = self.0.ambient.now_ms();
        let (tenant, subject) = (raised.tenant.clone(), Arc::clone(&raised.subject));
        let fact = Fact { severity: raised.severity, event: raised.event, tenant, subject };
        let mut facts = self.0.facts.lock().unwrap_or_else(PoisonError::into_inner);
        facts.retain(|_, seen| seen.until_ms >= now_ms);
        let others = facts.keys().filter(|known| known.severity == raised.severity).count();
        let seen = match facts.entry(fact) {
            Entry::Vacant(_) if others >= FACTS_MAX => return None,
            entry => entry.or_insert(Seen { count: 0, told: false, first_ms: now_ms, until_ms: now_ms }),
        };
        seen.count += 1;
        seen.until_ms = now_ms.saturating_add(raised.window_ms);
        let due = !seen.told && seen.count >= u64::from(raised.threshold);
        seen.told |= due;
        due.then_some((seen.count, seen.first_ms, now_ms))
    }

    /// Send something by one channel, in a few attempts of which nothing is written down.
    pub(crate) fn send(&self, channel: ChannelName, parcel: Parcel) {
        let Ok(runtime) = Handle::try_current() else {
            tracing::error!(%channel, alert = parcel.message.subject, "an alert is told to nobody: nothing runs");
            return;
        };
        let direct = self.clone();
        runtime.spawn(async move { direct.attempts(&channel, &parcel).await });
    }

    async fn attempts(&self, channel: &ChannelName, parcel: &Parcel) {
        let alert = &parcel.message.subject;
        for attempt in 0..ATTEMPTS {
            let Ok(turn) = self.0.sending.acquire().await else { return };
            let sending = self.0.channels.send(channel, parcel, self.0.ambient.now_ms());
            let sent = tokio::time::timeout(ATTEMPT, sending).await;
            drop(turn);
            match sent {
                Ok(Ok(_taken)) => return,
                Ok(Err(NotTaken::Later { why, .. })) => {
                    tracing::error!(%why, attempt, %channel, alert, "an alert did not arrive");
                }
                Ok(Err(problem)) => {
                    tracing::error!(%problem, %channel, alert, "an alert could not be told");
                    return;
                }
                Err(_) => tracing::error!(attempt, %channel, alert, "an alert did not arrive in time"),
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use toolkeep_core::id::AlertId;

    use crate::egress::{Egress, EgressConfig, Resolver};
    use crate::secrets::Secrets;

    fn direct(ambient: &Ambient) -> Direct {
        let secrets = Secrets::new(BTreeMap::default(), ambient.clone());
        let egress = Egress::new(&EgressConfig { ca_file: None }, Resolver::system(), secrets).expect("an egress");
        Direct::new(Channels::new(BTreeMap::default(), egress), ambient.clone())
    }

    fn raised(severity: Severity, subject: &str) -> AlertRaised {
        AlertRaised {
            id: AlertId::new(uuid::Uuid::from_u128(1)),
            tenant: "acme".parse().expect("name"),
            event: Event::BoundaryBreach,
            subject: subject.into(),
            severity,
            threshold: 1,
            window_ms: 1_000,
            detail: "{}".into(),
            deliveries: Vec::new(),
        }
    }

    #[tokio::test]
    async fn r43_what_is_not_kept_is_told_once_within_its_window_and_at_its_threshold() {
        let ambient = Ambient::fixed(1_000, 1, BTreeMap::new());
        let direct = direct(&ambient);
        let (alert, mut third) = (raised(Severity::Warning, "a"), raised(Severity::Warning, "b"));
        third.threshold = 3;
        assert_eq!((direct.tell(&alert), direct.tell(&alert)), (true, false));
        assert_eq!([&third; 4].map(|third| direct.tell(third)), [false, false, true, false]);
        ambient.advance(Duration::from_millis(1_000));
        assert!(!direct.tell(&alert), "the window ends after its last millisecond");
        ambient.advance(Duration::from_millis(1_001));
        assert!(direct.tell(&alert));
    }

    #[tokio::test]
    async fn n_facts_are_remembered_and_warnings_do_not_mute_what_is_critical() {
        let ambient = Ambient::fixed(1_000, 1, BTreeMap::new());
        let direct = direct(&ambient);
        for number in 0..FACTS_MAX {
            assert!(direct.tell(&raised(Severity::Warning, &number.to_string())));
        }
        assert!(!direct.tell(&raised(Severity::Warning, "one more")));
        assert!(direct.tell(&raised(Severity::Critical, "the disk is full")));
        ambient.advance(Duration::from_millis(1_001));
        assert!(direct.tell(&raised(Severity::Warning, "one more")), "room again");
    }
}
