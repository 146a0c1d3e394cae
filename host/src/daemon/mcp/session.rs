//! Sessions of the older era over HTTP: what an `initialize` said, for the requests that come after it.
//!
//! A session is no authority: every request shows its own token, and one of somebody else finds no session of this name (404),
//! as after its end. What it remembers is the revision, what the client can ask its user, which requests can be cancelled and
//! which questions are open. It ends when the client says so, after a time in which nothing of it happens, or when its principal
//! begins more than it may have: then the one goes that was idle for the longest, or used the longest ago. Where a tenant, or all of
//! them, have too many, an idle one goes of whoever has the most. What is under way in a session ends with it.

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
/// Sessions of one tenant: a quarter, however many principals and credentials it has.
const TENANT_MAX: usize = SESSIONS_MAX / 4;
/// Sessions of one principal, with whatever credentials: an editor with several windows has some.
pub(super) const OWN_MAX: usize = 16;
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

    /// Wait until it ends.
    pub(super) async fn over(&self) {
        let mut ended = self.ended.subscribe();
        // The sender is the session's own, so this never fails.
        let _ended = ended.wait_for(|ended| *ended).await;
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
    /// `overloaded`: there are too many of the tenant or in all, and none that can be let go of.
    pub(super) fn begin(
        &self,
        caller: &Caller,
        (version, capable): (&'static str, Capable),
        ambient: &Ambient,
    ) -> Result<String, Refusal> {
        let now_ms = ambient.now_ms();
        let mut book = self.book();
        book.retain(|_, session| !session.is_old(now_ms));
        // Delegated credentials are of the same principal: nobody makes room for itself by making more of them.
        let principal = caller.principal();
        let own = book.values().filter(|session| session.owner.0 == *principal).count();
        // A stream whose client is gone may look as if somebody were there, so that is a reason to wait and not to refuse.
        let least = (own >= OWN_MAX).then(|| least_used(&book, principal, true)).flatten();
        if let Some(name) = least {
            end(&mut book, &name);
        }
        let tenant = |session: &&Arc<Session>| session.owner.0.tenant == principal.tenant;
        let crowd = match book.values().filter(tenant).count() >= TENANT_MAX {
            true => Some(greediest(&book, |owner| owner.tenant == principal.tenant)),
            false => (book.len() >= SESSIONS_MAX).then(|| greediest(&book, |_| true)),
        };
        if let Some(greediest) = crowd {
            let idle = greediest.and_then(|greediest| least_used(&book, &greediest, false));
            end(&mut book, &idle.ok_or_else(full)?);
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

/// The principal with the most sessions, if it has more than one, among those that this is true of.
fn greediest(book: &HashMap<String, Arc<Session>>, among: impl Fn(&Principal) -> bool) -> Option<Principal> {
    let mut counts: HashMap<&Principal, usize> = HashMap::new();
    for session in book.values().filter(|session| among(&session.owner.0)) {
        let count = counts.entry(&session.owner.0).or_default();
        *count = count.saturating_add(1);
    }
    let most = counts.into_iter().filter(|(_, count)| *count > 1).max_by_key(|(_, count)| *count);
    most.map(|(principal, _)| principal.clone())
}

/// The session of a principal that was idle for the longest; where `any`, else the one that was used the longest ago.
fn least_used(book: &HashMap<String, Arc<Session>>, of: &Principal, any: bool) -> Option<String> {
    let own = book.iter().filter(|(_, session)| session.owner.0 == *of && (any || session.is_idle()));
    let first = own.min_by_key(|(_, session)| (!session.is_idle(), session.used_ms.load(Ordering::Relaxed)));
    first.map(|(name, _)| name.clone())
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
        of_tenant("t", user, uid)
    }

    fn of_tenant(tenant: &str, user: usize, uid: u32) -> Caller {
        let principal = Principal {
            tenant: tenant.parse().expect("a name"),
            user: format!("u{user}").parse().expect("a name"),
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
    fn n_sessions_of_a_tenant_stand_and_the_next_is_refused_or_takes_an_idle_one_of_who_has_the_most() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        for user in 0..TENANT_MAX {
            assert!(sessions.begin(&caller(user, 1), SAID, &ambient).is_ok(), "{user}");
        }
        let refused = sessions.begin(&caller(TENANT_MAX, 1), SAID, &ambient);
        assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::Overloaded), "each has one");
        let names: Vec<String> = sessions
            .book()
            .iter()
            .filter(|(_, s)| s.owner.0 == *caller(7, 1).principal())
            .map(|(name, _)| name.clone())
            .collect();
        assert!(sessions.end(&caller(7, 1), &names[0]));
        let two = sessions.begin(&caller(8, 1), SAID, &ambient).expect("the place that is free");
        let held = sessions.of(&caller(8, 1), &two, 0).expect("its own");
        assert!(sessions.begin(&caller(TENANT_MAX, 1), SAID, &ambient).is_ok(), "the idle one of the two goes");
        drop(held);
        assert!(sessions.of(&caller(8, 1), &two, 0).is_some());
        assert!(sessions.begin(&caller(7, 1), SAID, &ambient).is_err(), "each has one again");
    }

    #[test]
    fn n_sessions_of_all_tenants_stand_and_the_next_is_refused() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        for at in 0..SESSIONS_MAX {
            let other = of_tenant(&format!("t{}", at / TENANT_MAX), at, 1);
            assert!(sessions.begin(&other, SAID, &ambient).is_ok(), "{at}");
        }
        let refused = sessions.begin(&of_tenant("another", 0, 1), SAID, &ambient);
        assert_eq!(refused.map_err(|refusal| refusal.code), Err(Code::Overloaded));
    }

    #[test]
    fn credentials_that_an_agent_makes_for_itself_make_no_room_for_it() {
        let (sessions, ambient) = (Sessions::default(), Ambient::fixed(0, 1, BTreeMap::new()));
        for uid in 0..200 {
            assert!(sessions.begin(&caller(1, uid), SAID, &ambient).is_ok(), "{uid}");
        }
        assert_eq!(sessions.book().len(), OWN_MAX);
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
