//! An outbox on a ledger of its own, whose clock only the test moves, over channels that lead to real peers.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use toolkeep::ambient::Ambient;
use toolkeep::channel::Channels;
use toolkeep::channel::config::ChannelText;
use toolkeep::egress::{Egress, EgressConfig, Resolver};
use toolkeep::ledger::{Delivery, Enqueue, Ledger, LedgerError, Scope};
use toolkeep::notify::{Notify, Route};
use toolkeep::outbox::Outbox;
use toolkeep::secrets::Secrets;
use toolkeep::secrets::config::SecretText;
use toolkeep_core::delivery::{BACKOFF_MOST_MS, DeliveryKind, DeliveryState, Message};
use toolkeep_core::id::{ChannelName, DeliveryId, SecretName};
use toolkeep_tests::support::scratch::Scratch;

use super::receiver::base64;

/// When every test begins: milliseconds since the epoch.
pub(super) const NOW_MS: u64 = 1_700_000_000_000;
/// How long a test waits for what must come: far more than a loaded machine needs.
const PATIENCE: Duration = Duration::from_secs(60);
/// The keys that sign, as bytes.
pub(super) const NEW_KEY: [u8; 32] = [7; 32];
pub(super) const OLD_KEY: [u8; 24] = [9; 24];

pub(super) struct World {
    pub(super) scratch: Scratch,
    pub(super) ambient: Ambient,
    channels: String,
    pub(super) ca_file: Option<std::path::PathBuf>,
    pub(super) routes: Vec<Route>,
    pub(super) open: Arc<AtomicBool>,
}

/// A ledger and what works on it; one life of the daemon.
pub(super) struct Life {
    pub(super) ledger: Ledger,
    pub(super) outbox: Outbox,
    pub(super) notify: Notify,
}

impl World {
    /// Channels as the configuration writes them.
    pub(super) fn new(channels: &str) -> Self {
        let scratch = Scratch::new();
        let secret = |name: &str, value: String| {
            scratch.put(name, value.as_bytes());
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(scratch.path().join(name), mode).expect("permissions");
        };
        secret("new", format!("whsec_{}\n", base64(&NEW_KEY)));
        secret("old", format!("whsec_{}", base64(&OLD_KEY)));
        secret("password", "open sesame".to_owned());
        Self {
            scratch,
            ambient: Ambient::fixed(NOW_MS, 1, BTreeMap::new()),
            channels: channels.to_owned(),
            ca_file: None,
            routes: Vec::new(),
            open: Arc::new(AtomicBool::new(true)),
        }
    }

    pub(super) fn channels(&self) -> Channels {
        let texts: BTreeMap<ChannelName, ChannelText> = toml::from_str(&self.channels).expect("channels");
        let base = Some(self.scratch.path());
        let checked = texts.iter().map(|(name, text)| (name.clone(), text.check(name, base).expect("a channel")));
        let secrets = ["new", "old", "password"].map(|name| {
            let path = self.scratch.path().join(name);
            let text = format!("source = \"file\"\npath = \"{}\"\nchannels = [\"ops\", \"mail\"]", path.display());
            let (text, name): (SecretText, SecretName) =
                (toml::from_str(&text).expect("text"), name.parse().expect("name"));
            let config = text.check(&name, &"local".parse().expect("name")).expect("a secret");
            (name, config)
        });
        let secrets = Secrets::new(secrets.into_iter().collect(), self.ambient.clone());
        let config = EgressConfig { ca_file: self.ca_file.clone() };
        let egress = Egress::new(&config, Resolver::system(), secrets).expect("an egress");
        Channels::new(checked.collect(), egress)
    }

    /// Open the ledger, which may still be in the hands of a life that was cut off.
    pub(super) async fn ledger(&self) -> Ledger {
        loop {
            match Ledger::open(&self.scratch.path().join("ledger"), self.ambient.clone()).await {
                Err(LedgerError::Locked(_)) => tokio::time::sleep(Duration::from_millis(5)).await,
                opened => return opened.expect("ledger"),
            }
        }
    }

    /// Open the ledger and start the outbox.
    pub(super) async fn live(&self) -> Life {
        let ledger = self.ledger().await;
        self.start(ledger).await
    }

    pub(super) async fn start(&self, ledger: Ledger) -> Life {
        let channels = self.channels();
        let notify = Notify::new(self.routes.clone(), channels.clone(), ledger.clone(), self.ambient.clone());
        let open = Arc::clone(&self.open);
        let gate = Arc::new(move |_: &_| open.load(Ordering::SeqCst));
        let outbox = Outbox::start(ledger.clone(), channels, notify.clone(), self.ambient.clone(), gate).await;
        Life { ledger, outbox: outbox.expect("an outbox"), notify }
    }

    /// A message for a channel.
    pub(super) fn message(&self, channel: &str) -> Enqueue {
        Enqueue {
            id: DeliveryId::new(self.ambient.uuid_v7()),
            tenant: "acme".parse().expect("name"),
            kind: DeliveryKind::Message,
            channel: channel.parse().expect("name"),
            call: None,
            message: Message {
                to: vec!["ann@example.com".to_owned()],
                subject: "Close of Märch".to_owned(),
                media_type: "text/plain; charset=utf-8".to_owned(),
                body: Arc::from("The books are closed.\n.\n".as_bytes()),
            },
        }
    }
}

impl Life {
    /// Enqueue a message and say which it is.
    pub(super) fn send(&self, what: Enqueue) -> DeliveryId {
        let id = what.id;
        self.ledger.enqueue_delivery(what).expect("enqueued");
        id
    }

    pub(super) async fn delivery(&self, id: DeliveryId) -> Delivery {
        self.ledger.delivery(&Scope::Operator, id).await.expect("read").expect("there")
    }

    /// Wait until a delivery is in this state, and give it.
    pub(super) async fn until(&self, id: DeliveryId, state: DeliveryState) -> Delivery {
        let look = async {
            loop {
                let delivery = self.delivery(id).await;
                if delivery.progress.state == state {
                    return delivery;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(delivery) => delivery,
            Err(_) => panic!("gave up waiting until {state}: {:?}", self.delivery(id).await),
        }
    }

    /// Wait until so many attempts have ended without the delivery being at rest, and give it.
    pub(super) async fn until_failed(&self, id: DeliveryId, attempts: u32) -> Delivery {
        let look = async {
            loop {
                let delivery = self.delivery(id).await;
                if delivery.progress.attempts == attempts && delivery.progress.state == DeliveryState::Queued {
                    return delivery;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        match tokio::time::timeout(PATIENCE, look).await {
            Ok(delivery) => delivery,
            Err(_) => panic!("gave up waiting for attempt {attempts}: {:?}", self.delivery(id).await),
        }
    }

    /// Let the longest pause pass.
    pub(super) fn wait_out(&self, world: &World) {
        world.ambient.advance(Duration::from_millis(BACKOFF_MOST_MS));
        self.outbox.wake();
    }

    pub(super) async fn end(self) {
        assert!(self.outbox.close(PATIENCE).await, "attempts end");
        self.ledger.close().await.expect("closed");
    }
}

/// Wait until something is so.
pub(super) async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let look = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, look).await.is_ok(), "gave up waiting until {what}");
}
