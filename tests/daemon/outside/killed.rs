//! kill -9 at every phase of a commit that sends a request, changes a file and keys, and sends a message.
//!
//! The peer stands still at each moment of an exchange, and the daemon is killed there; all phases between are hit by kills
//! at any time after the consent, after the answer, and again while the next life recovers. What a call came to is held against
//! the book of the peer and the mail server's. `TOOLKEEP_HARD=1` kills more often.

mod live;

use std::collections::{BTreeMap, BTreeSet};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::mail_server::{MailServer, Manner};
use toolkeep_tests::support::proof::{is_over, seed, size, told};

use super::super::world::{Reply, World};
use super::peer::{Moment, Peer};
use super::{add, agree, awake, consent, count, grant, held, message, now, reach, resolve, send, write};
use crate::doors::running::until;
use crate::hard::program::Dice;

/// Kills of an ordinary run, and of a hard one.
const SAMPLE: usize = 33;
const HARD: usize = 220;
/// Longest time from the consent to a kill, in microseconds: longer than a commit takes.
const COMMIT_US: usize = 60_000;
/// Longest time from the answer to a kill, in microseconds: longer than a delivery takes.
const DELIVERY_US: usize = 90_000;
/// Longest life of a daemon that is killed while it recovers, in microseconds.
const RECOVERY_US: usize = 150_000;
/// How long the mail server takes for each of its answers.
const SLOW: Duration = Duration::from_millis(5);

const MOMENTS: [Moment; 5] = [Moment::Accepted, Moment::HalfRead, Moment::Read, Moment::HalfAnswered, Moment::Answered];

/// When the daemon is killed.
#[derive(Debug, Clone, Copy)]
enum Kill {
    /// When the peer stands still.
    At(Moment),
    /// So many microseconds after the consent was given.
    Within(u64),
    /// So many after the call was answered.
    After(u64),
}

/// A daemon, and who it talks to.
struct Scene {
    world: World,
    peer: Peer,
    mail: MailServer,
}

impl Scene {
    fn new() -> Self {
        let (peer, mail) = (Peer::new(), MailServer::new(Manner::Slow(SLOW)));
        let channel = format!(
            "[channel.mail]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {}\ntls = \"none\"\nfrom = \"toolkeep@example.com\"\n\
             allow_private = true\nattempts = 20\n",
            mail.port()
        );
        let rest = format!(
            "tier = 3\n[limits]\nfuel = 1_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}\
             [[message]]\nchannel = \"mail\"\nto = [\"*@example.com\"]\n[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n",
            grant("shop", &peer.origin(), "first_byte_ms = 20000\ntotal_ms = 60000\n"),
        );
        let world = awake(&channel, &[("reach", "reach", rest)]);
        std::fs::create_dir(world.path("books/rounds")).expect("folder");
        Self { world, peer, mail }
    }

    fn path(round: usize) -> String {
        format!("/orders/{round}")
    }

    /// A call with everything in it, which waits for consent.
    fn call(&self, round: usize) -> Reply {
        let order = format!("{}{}", self.peer.origin(), Self::path(round));
        let steps = [
            write(&format!("rounds/{round}.txt"), "x"),
            send("POST", &order, "b"),
            add("total", 1),
            add(&format!("round-{round}"), 1),
            message("mail", &format!("Round {round}")),
        ];
        held(reach(&mut self.world.agent(), "reach", &steps))
    }

    /// Agree to the call, and kill the daemon where it is wanted.
    fn cut(&mut self, waits: &Reply, kill: Kill) {
        let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(waits)});
        let mut admin = self.world.admin();
        if let Kill::At(moment) = kill {
            self.peer.stop_at(Some(moment));
        }
        admin.0.send(format!("{line}\n").as_bytes());
        match kill {
            Kill::At(moment) => assert!(self.peer.stands(Duration::from_secs(60)), "{moment:?} is reached"),
            Kill::Within(us) => thread::sleep(Duration::from_micros(us)),
            Kill::After(us) => {
                assert_eq!(admin.0.line().expect("an answer")["result"]["reply"]["outcome"], "committed");
                thread::sleep(Duration::from_micros(us));
            }
        }
        self.world.kill();
        self.peer.stop_at(None);
    }

    /// What the call came to, once the daemon has gone through everything that the last life left. A call that is still
    /// `pending` is one that was never agreed to: what was begun says that it is not known.
    fn settled(&self, call: &str) -> String {
        let mut found = String::new();
        until("the call is settled", || {
            found = now(&self.world, call).text("/outcome").to_owned();
            found != "unknown" || self.is_asked(call)
        });
        found
    }

    /// Whether an operator is asked about this call.
    fn is_asked(&self, call: &str) -> bool {
        let listed = self.world.admin().ok("outcomes.list", json!({}));
        listed["outcomes"].as_array().expect("outcomes").iter().any(|outcome| outcome["call_id"] == call)
    }

    /// Nothing of a round is there, or all of it.
    fn whole(&self, round: usize, committed: bool) {
        let file = self.world.path(&format!("books/rounds/{round}.txt")).exists();
        let key = count(&mut self.world.agent(), "reach", &format!("round-{round}"));
        assert_eq!((file, key.is_some()), (committed, committed), "round {round} is torn: {key:?}");
        assert!(key.is_none_or(|key| key == "1"), "round {round} was counted twice");
    }

    /// One call that is cut, and what it comes to. Says what was found after the kill.
    fn round(&mut self, round: usize, kill: Kill, again: Option<u64>) -> (String, bool) {
        let waits = self.call(round);
        self.cut(&waits, kill);
        if let Some(us) = again {
            self.world.spawn();
            thread::sleep(Duration::from_micros(us));
            self.world.kill();
        }
        self.world.start();
        let found = self.settled(waits.call());
        let reads = self.peer.reads_of(&Self::path(round));
        let done = reads.iter().any(|read| read.done);
        assert!(reads.len() <= 1, "round {round} was sent {} times", reads.len());
        self.whole(round, found == "committed");
        let committed = match found.as_str() {
            "committed" => {
                assert!(done, "round {round}");
                true
            }
            "pending" => {
                assert!(!done, "round {round} was sent without consent");
                agree(&mut self.world.admin(), &waits).must("ok", "committed", "");
                true
            }
            "unknown" => {
                let now = resolve(&mut self.world.admin(), waits.call(), done);
                let wanted = if done { ("ok", "committed", "") } else { ("failed", "discarded", "effect_refused") };
                assert_eq!(now.ended(), wanted, "round {round}");
                done
            }
            other => panic!("round {round} ended as {other}"),
        };
        if matches!(kill, Kill::At(Moment::Accepted | Moment::HalfRead | Moment::Read | Moment::HalfAnswered)) {
            assert_eq!(found, "unknown", "round {round}: nobody could know");
        }
        self.whole(round, committed);
        assert_eq!(self.peer.reads_of(&Self::path(round)).len(), usize::from(committed).max(reads.len()));
        (found, committed)
    }

    /// Every message of a committed round arrives, under one id; none of any other.
    fn mails(&self, committed: &BTreeSet<usize>) -> usize {
        let ids = || {
            let mut ids = BTreeMap::<String, Vec<String>>::new();
            for mail in self.mail.mails() {
                let subject = mail.field("subject").concat();
                ids.entry(subject).or_default().extend(mail.field("message-id"));
            }
            ids
        };
        let wanted: BTreeSet<String> = committed.iter().map(|round| format!("Round {round}")).collect();
        until("every message has arrived", || ids().keys().cloned().collect::<BTreeSet<_>>() == wanted);
        until("nothing is under way", || {
            let health = self.world.admin().ok("health.get", json!({}));
            health["outbox"]["queued"] == json!(0)
        });
        let ids = ids();
        assert_eq!(ids.keys().cloned().collect::<BTreeSet<_>>(), wanted);
        for (subject, ids) in &ids {
            assert!(ids.iter().all(|id| id == &ids[0]), "{subject} has more than one id: {ids:?}");
        }
        ids.values().map(|ids| ids.len() - 1).sum()
    }
}

fn kills(seed: u64, total: usize) -> Vec<(Kill, Option<u64>)> {
    let mut dice = Dice::new(seed);
    let below = |dice: &mut Dice, most: usize| u64::try_from(dice.below(most)).expect("small");
    let one = |number: usize| {
        let kill = match number % 11 {
            at @ 0..=4 => Kill::At(MOMENTS[at]),
            5..=8 => Kill::Within(below(&mut dice, COMMIT_US)),
            _ => Kill::After(below(&mut dice, DELIVERY_US)),
        };
        (kill, (number % 3 == 2).then(|| below(&mut dice, RECOVERY_US)))
    };
    (0..total).map(one).collect()
}

#[test]
fn g1_g7_a_commit_killed_at_every_phase_of_a_request_and_of_a_message_is_never_torn_or_made_twice() {
    let total = size(SAMPLE, HARD);
    let mut scene = Scene::new();
    // Compile before the first kill.
    let first = scene.call(total);
    agree(&mut scene.world.admin(), &first).must("ok", "committed", "");
    let (mut committed, mut found) = (BTreeSet::from([total]), BTreeMap::<String, usize>::new());
    let mut twice = 0;
    for (round, (kill, again)) in kills(seed(), total).into_iter().enumerate() {
        if is_over() {
            break;
        }
        let (state, done) = scene.round(round, kill, again);
        *found.entry(state).or_default() += 1;
        twice += usize::from(again.is_some());
        if done {
            committed.insert(round);
        }
    }
    let again = scene.mails(&committed);
    let total_key = count(&mut scene.world.agent(), "reach", "total");
    assert_eq!(total_key, Some(committed.len().to_string()), "the sum of all");
    let residue: Vec<String> = scene.world.snapshot().into_keys().filter(|name| name.contains(".toolkeep-")).collect();
    assert_eq!(residue, Vec::<String>::new());
    scene.world.verified();
    let more = format!(
        "{twice} killed again soon after their next start, found {found:?}, {again} mails made again under their id"
    );
    let done = found.values().sum();
    told("G7 kills of a commit with a request and a message", done, "torn or made twice", &more);
    assert!(found.contains_key("unknown") && found.contains_key("committed"), "{found:?}");
}

#[test]
fn g07_a_request_that_may_be_repeated_is_repeated_after_a_kill_with_the_same_key() {
    let peer = Peer::new();
    let rest = format!("tier = 3\n{}", grant("shop", &peer.origin(), "idempotent = true\nfirst_byte_ms = 20000\n"));
    let mut world = awake("", &[("reach", "reach", rest)]);
    let step = send("POST", &format!("{}/orders/1", peer.origin()), "b");
    let keyed = json!({"tool": "reach", "input": {"steps": [step]}, "idempotency_key": "order-1"});
    let waits = held(world.agent().reply("calls.execute", keyed.clone()));
    // What a restart between consent and commit loads must give the same key.
    world.restart();
    peer.stop_at(Some(Moment::Read));
    let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&waits)});
    let mut admin = world.admin();
    admin.0.send(format!("{line}\n").as_bytes());
    assert!(peer.stands(Duration::from_secs(60)));
    world.kill();
    peer.stop_at(None);
    world.start();
    until("it is settled", || now(&world, waits.call()).text("/outcome") == "committed");
    let reads = peer.reads();
    assert_eq!(reads.len(), 2, "{reads:?}");
    assert_eq!((&reads[0].key, &reads[0].body), (&reads[1].key, &reads[1].body), "one key, however often");
    let again: Value = world.agent().reply("calls.execute", keyed).must("ok", "committed", "").value;
    assert_eq!(again["usage"]["http_requests"], 1, "{again}");
    assert_eq!(peer.reads().len(), 2);
}
