//! Sessions of the older era over HTTP: what an `initialize` said, for the requests that come after it.
//!
//! A session is no authority: every request shows its own token, and one of somebody else finds no session of this name (404),
//! as after its end. What it remembers is the revision, what the client can ask its user, which requests can be cancelled and
//! which questions are open. It ends when the client says so, after a time in which nothing of it happens, or when its owner
//! begins more than it may have: then the one goes that was idle for the longest, or used the longest ago.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::watch;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_core::refusal::{Code, Refusal};

use super::asks::Asks;
use super::capable::Capable;
use super::flights::Flights;
use crate::ambient::Ambient;
use crate::authenticate::Caller;

/// Sessions of all callers: each is some hundred bytes, and whoever has a token may open some.
const SESSIONS_MAX: usize = 1_024;
/// Sessions of one caller: an editor with several windows has some.
const OWN_MAX: usize = 16;
/// How long a session stands in which nothing happens, in milliseconds: an hour, after which a client begins another.
const IDLE_MS: u64 = 60 * 60 * 1_000;
/// Bytes of randomness in the name of a session: nobody guesses one.
const NAME_BYTES: usize = 32;

/// One session. Whoever works on a request or a stream of it holds it, and it is not idle.
#[derive(Debug)]
pub(super) struct Session {
    owner: (Principal, Origin),
    /// The revision that its handshake ended with.
    pub(super) version: &'static str,
    /// What its client can ask somebody.
    pub(super) capable: Capable,
    /// Requests that can be cancelled.
    pub(super) flights: Flights,
    /// Questions to its client.
    pub(super) asks: Asks,
    used_ms: AtomicU64,
    ended: watch::Sender<bool>,
    /// How many streams of changes were opened; only the last one goes on.
    streams: watch::Sender<u64>,
}

/// All sessions. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions(Arc<Mutex<HashMap<String, Arc<Session>>>>);

/// The sign that a stream of changes ends.
#[derive(Debug)]
pub(super) struct Until {
    number: u64,
    ended: watch::Receiver<bool>,
    streams: watch::Receiver<u64>,
}

impl Session {
    fn new(caller: &Caller, version: &'static str, capable: Capable, now_ms: u64) -> Self {
        let (principal, origin) = caller.who();
        Self {
            owner: (principal.clone(), origin.clone()),
            version,
            capable,
            flights: Flights::default(),
            asks: Asks::default(),
            used_ms: AtomicU64::new(now_ms),
            ended: watch::Sender::new(false),
            streams: watch::Sender::new(0),
        }
    }

    fn is_of(&self, caller: &Caller) -> bool {
        let (principal, origin) = caller.who();
        self.owner.0 == *principal && self.owner.1 == *origin
    }

    fn is_idle(self: &Arc<Self>) -> bool {
        Arc::strong_count(self) == 1
    }

    fn is_old(self: &Arc<Self>, now_ms: u64) -> bool {
        self.is_idle() && now_ms.saturating_sub(self.used_ms.load(Ordering::Relaxed)) >= IDLE_MS
    }

    /// Begin a stream of changes: the one before it ends, because nothing is told twice, and one that broke may not be noticed
    /// for a while.
    pub(super) fn stream(&self) -> Until {
        let mut number = 0;
        self.streams.send_modify(|count| {
            *count = count.saturating_add(1);
            number = *count;
        });
        Until { number, ended: self.ended.subscribe(), streams: self.streams.subscribe() }
    }
}

impl Until {
    /// Wait until the session ends or another stream takes the place of this one.
    pub(super) async fn over(&mut self) {
        let number = self.number;
        tokio::select! {
            _ = self.ended.wait_for(|ended| *ended) => {}
            _ = self.streams.wait_for(|count| *count != number) => {}
        }
    }
}

impl Sessions {
    fn book(&self) -> MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begin a session; its name.
    ///
    /// # Errors
    /// `overloaded`: there are too many, and none that can be let go of.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        (version, capable): (&'static str, Capable),
        ambient: &Ambient,
    ) -> Result<String, Refusal> {
        let now_ms = ambient.now_ms();
        let mut book = self.book();
        book.retain(|_, session| !session.is_old(now_ms));
        let own = book.iter().filter(|(_, session)| session.is_of(caller));
        if own.clone().count() >= OWN_MAX {
            // A stream whose client is gone may look as if somebody were there, so that is a reason to wait and not to refuse.
            let first = own.min_by_key(|(_, session)| (!session.is_idle(), session.used_ms.load(Ordering::Relaxed)));
            let name = first.map(|(name, _)| name.clone()).unwrap_or_default();
            end(&mut book, &name);
        }
        if book.len() >= SESSIONS_MAX {
            return Err(full());
        }
        let name = URL_SAFE_NO_PAD.encode(ambient.random::<NAME_BYTES>());
        book.insert(name.clone(), Arc::new(Session::new(caller, version, capable, now_ms)));
        Ok(name)
    }

    /// The session of this name, if it is the caller's and stands.
    pub(super) fn of(&self, caller: &Caller, name: &str, now_ms: u64) -> Option<Arc<Session>> {
        let mut book = self.book();
        if book.get(name)?.is_old(now_ms) {
            book.remove(name);
            return None;
        }
        let session = book.get(name).filter(|session| session.is_of(caller))?;
        session.used_ms.store(now_ms, Ordering::Relaxed);
        Some(Arc::clone(session))
    }

    /// End the session of this name, if it is the caller's; its streams end with it.
    pub(super) fn end(&self, caller: &Caller, name: &str) -> bool {
        let mut book = self.book();
        let own = book.get(name).is_some_and(|session| session.is_of(caller));
        if own {
            end(&mut book, name);
        }
        own
    }
}

fn end(book: &mut HashMap<String, Arc<Session>>, name: &str) {
    if let Some(session) = book.remove(name) {
        session.ended.send_replace(true);
    }
}

fn full() -> Refusal {
    Refusal::new(Code::Overloaded, "too many sessions are open").after_ms(1_000)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use toolkeep_core::principal::Credential;

    use super::*;

    fn caller(user: usize, uid: u32) -> Caller {
        let name = |text: String| text.parse().expect("a name");
        let principal = Principal {
            tenant: "t".parse().expect("a name"),
            user: name(format!("u{user}")),
            agent: "a".parse().expect("a name"),
        };
        Caller::resumed((&principal, &Origin::of(Credential::AgentUid(uid))), None)
    }

    const SAID: (&str, Capable) = ("2025-11-25", Capable { form: false, page: false });

    #[test]
    fn t_i3_a_session_is_its_callers_until_it_ends() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        let (mine, theirs) = (caller(1, 1), caller(2, 1));
        let name = sessions.begin(&mine, SAID, &ambient).expect("room");
        assert!(name.len() >= 40 && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name}");
        assert_ne!(sessions.begin(&mine, SAID, &ambient).expect("room"), name);
        assert!(sessions.of(&mine, &name, 0).is_some());
        for (who, asked) in [(&theirs, name.as_str()), (&caller(1, 2), &name), (&mine, "x"), (&mine, "")] {
            assert!(sessions.of(who, asked, 0).is_none() && !sessions.end(who, asked));
        }
        assert!(sessions.end(&mine, &name));
        assert!(sessions.of(&mine, &name, 0).is_none() && !sessions.end(&mine, &name));
    }

    #[test]
    fn a_session_stands_for_its_time_after_what_happened_last_and_longer_while_something_does() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        let mine = caller(1, 1);
        let name = sessions.begin(&mine, SAID, &ambient).expect("room");
        let busy = sessions.begin(&mine, SAID, &ambient).expect("room");
        let stream = sessions.of(&mine, &busy, 0).expect("its own");
        assert!(sessions.of(&mine, &name, IDLE_MS - 1).is_some(), "the last moment");
        assert!(sessions.of(&mine, &name, 2 * IDLE_MS - 1).is_none(), "one later");
        assert!(sessions.of(&mine, &busy, 3 * IDLE_MS).is_some(), "it is in use");
        drop(stream);
        ambient.advance(Duration::from_millis(4 * IDLE_MS));
        sessions.begin(&mine, SAID, &ambient).expect("room");
        assert_eq!(sessions.book().len(), 1, "what is old goes when another one begins");
    }

    #[test]
    fn n_sessions_of_one_caller_stand_and_the_next_takes_the_place_of_the_one_that_is_idle_for_longest() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        let mine = caller(1, 1);
        let names: Vec<String> = (0..OWN_MAX).map(|_| sessions.begin(&mine, SAID, &ambient).expect("room")).collect();
        for (at, name) in names.iter().enumerate() {
            assert!(sessions.of(&mine, name, 1 + u64::try_from(at).expect("small")).is_some(), "{at}");
        }
        let held = sessions.of(&mine, &names[0], 0).expect("its own");
        ambient.advance(Duration::from_millis(100));
        let next = sessions.begin(&mine, SAID, &ambient).expect("a place");
        assert!(sessions.of(&mine, &names[1], 100).is_none(), "idle for longest");
        assert!(sessions.of(&mine, &names[0], 100).is_some() && sessions.of(&mine, &next, 100).is_some());
        let other = caller(2, 1);
        assert!(sessions.begin(&other, SAID, &ambient).is_ok(), "others have their own");
        drop(held);
        // All of them look as if they were used: the one of longest ago goes, and what is held of it hears so.
        let all: Vec<_> = names.iter().chain([&next]).filter_map(|name| sessions.of(&mine, name, 100)).collect();
        assert_eq!(all.len(), OWN_MAX);
        assert!(sessions.of(&mine, &next, 99).is_some());
        assert!(sessions.begin(&mine, SAID, &ambient).is_ok());
        assert!(sessions.of(&mine, &next, 100).is_none());
        let ended = all.iter().filter(|session| *session.ended.borrow()).count();
        assert_eq!((ended, sessions.book().len()), (1, OWN_MAX + 1));
    }

    #[test]
    fn n_sessions_of_all_callers_stand_and_the_next_is_refused() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        for user in 0..SESSIONS_MAX {
            assert!(sessions.begin(&caller(user, 1), SAID, &ambient).is_ok(), "{user}");
        }
        let refused = sessions.begin(&caller(SESSIONS_MAX, 1), SAID, &ambient);
        assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::Overloaded));
        assert!(sessions.begin(&caller(0, 1), SAID, &ambient).is_err(), "nobody's own is in the way");
    }

    #[tokio::test]
    async fn a_stream_ends_with_its_session_and_when_another_takes_its_place() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        let mine = caller(1, 1);
        let name = sessions.begin(&mine, SAID, &ambient).expect("room");
        let session = sessions.of(&mine, &name, 0).expect("its own");
        let mut first = session.stream();
        assert!(tokio::time::timeout(Duration::from_millis(1), first.over()).await.is_err(), "it stands");
        let mut second = session.stream();
        first.over().await;
        assert!(tokio::time::timeout(Duration::from_millis(1), second.over()).await.is_err(), "it stands");
        sessions.end(&mine, &name);
        second.over().await;
    }
}
