//! Names to addresses, once per connection.
//!
//! The operating system's resolver answers, in a blocking task with a bound on their number. It cannot be cancelled, so one
//! that hangs keeps its place until it gives up by itself. Tests write down what is answered instead, call by call.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Semaphore;
use toolkeep_core::net::origin::HostName;

use super::Reason;

/// Names that are resolved at one time: each takes a thread.
const RESOLVING_MAX: usize = 32;
/// Most addresses of one name that are looked at: the largest public services give a dozen.
pub(super) const ADDRESSES_MAX: usize = 64;

/// Where addresses come from.
#[derive(Debug, Clone)]
pub struct Resolver(Kind);

#[derive(Debug, Clone)]
enum Kind {
    System(Arc<Semaphore>),
    Scripted(Arc<Script>),
}

/// What a scripted resolver answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These addresses, in this order.
    Addresses(Vec<IpAddr>),
    /// That there is no such name.
    NoName,
    /// Nothing, for ever.
    Silence,
}

/// Answers by name: each is given once, the last for ever after.
#[derive(Debug, Default)]
pub struct Script {
    answers: Mutex<BTreeMap<String, VecDeque<Answer>>>,
    asked: AtomicU64,
}

impl Script {
    /// A script from names and their answers.
    #[must_use]
    pub fn new(answers: impl IntoIterator<Item = (String, Vec<Answer>)>) -> Self {
        let answers = answers.into_iter().map(|(name, answers)| (name, answers.into())).collect();
        Self { answers: Mutex::new(answers), asked: AtomicU64::new(0) }
    }

    /// How often a name was resolved.
    #[must_use]
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    fn next(&self, name: &str) -> Answer {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut answers = self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(answers) = answers.get_mut(name) else { return Answer::NoName };
        if answers.len() > 1 { answers.pop_front() } else { answers.front().cloned() }.unwrap_or(Answer::NoName)
    }
}

impl Resolver {
    /// The operating system's: hosts file, DNS, whatever it is configured to ask.
    #[must_use]
    pub fn system() -> Self {
        Self(Kind::System(Arc::new(Semaphore::new(RESOLVING_MAX))))
    }

    /// For tests.
    #[must_use]
    pub const fn scripted(script: Arc<Script>) -> Self {
        Self(Kind::Scripted(script))
    }

    /// Every address of a host. An address is its own answer and asks nobody.
    pub(super) async fn resolve(&self, host: &HostName) -> Result<Vec<IpAddr>, Reason> {
        let name = match host {
            HostName::Address(address) => return Ok(vec![*address]),
            HostName::Domain(name) => name.clone(),
        };
        let addresses = match &self.0 {
            Kind::System(places) => {
                let place = Arc::clone(places).acquire_owned().await.map_err(|_| Reason::Resolve)?;
                let lookup = move || {
                    let _place = place;
                    let answers = (name.as_str(), 0_u16).to_socket_addrs()?;
                    Ok::<_, std::io::Error>(answers.map(|answer| answer.ip()).take(ADDRESSES_MAX + 1).collect())
                };
                let answered = tokio::task::spawn_blocking(lookup).await.map_err(|_| Reason::Resolve)?;
                answered.map_err(|_| Reason::Resolve)?
            }
            Kind::Scripted(script) => match script.next(&name) {
                Answer::Addresses(addresses) => addresses,
                Answer::NoName => return Err(Reason::Resolve),
                Answer::Silence => std::future::pending().await,
            },
        };
        match addresses.len() {
            0 => Err(Reason::NoAddress),
            1..=ADDRESSES_MAX => Ok(addresses),
            _ => Err(Reason::TooManyAddresses),
        }
    }
}
