//! The same for requests that a tool waits for: its call goes on after whatever was cut, with the answer that was given, and
//! the request leaves once.

use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use toolkeep_tests::support::proof::{is_over, seed, size, told};

use super::super::super::world::{Reply, World};
use super::super::peer::{Moment, Peer};
use super::super::{agree, awake, consent, grant, held, now, resolve, send, write};
use super::MOMENTS;
use crate::doors::running::until;
use crate::hard::program::Dice;

/// Kills of an ordinary run, and of a hard one.
const SAMPLE: usize = 16;
const HARD: usize = 120;
/// Longest time from the consent to a kill, in microseconds: longer than the request and what follows take.
const LIFE_US: usize = 80_000;

/// A daemon with a tool that needs an answer.
struct Scene {
    world: World,
    peer: Peer,
}

impl Scene {
    fn new() -> Self {
        let peer = Peer::new();
        let rest = format!(
            "tier = 3\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}",
            grant("shop", &peer.origin(), "delivery = \"live\"\nfirst_byte_ms = 20000\n")
        );
        let world = awake("", &[("reach", "reach", rest)]);
        std::fs::create_dir(world.path("books/live")).expect("folder");
        Self { world, peer }
    }

    fn params(&self, round: usize) -> Value {
        let url = format!("{}/live/{round}", self.peer.origin());
        let steps = [send("POST", &url, "b"), write(&format!("live/{round}.txt"), "x")];
        json!({"tool": "reach", "input": {"steps": steps}, "idempotency_key": format!("live-{round}")})
    }

    /// The call as it stands once the daemon has gone on with whatever was left: ended, asked about, or held anew.
    fn settled(&self, call: &str, first: &Reply) -> Reply {
        let mut found = None;
        until("the call stands still", || {
            let reply = now(&self.world, call);
            let asked = self.asked().is_some();
            let still = match reply.text("/status") {
                "unknown" => asked,
                "held" => reply.approval() != first.approval() || self.is_pending(first.approval()),
                _ => true,
            };
            found = Some(reply);
            still
        });
        found.expect("a reply")
    }

    /// The call of the request that an operator is asked about.
    fn asked(&self) -> Option<String> {
        let listed = self.world.admin().ok("outcomes.list", json!({}));
        listed["outcomes"][0]["call_id"].as_str().map(str::to_owned)
    }

    fn is_pending(&self, approval: &str) -> bool {
        self.world.agent().ok("approvals.get", json!({"approval": approval}))["state"] == "pending"
    }

    /// One call that is cut. Says what was found after the kill.
    fn round(&mut self, round: usize, kill: Option<Moment>, us: u64) -> String {
        let params = self.params(round);
        let first = held(self.world.agent().reply("calls.execute", params.clone()));
        let call = first.call().to_owned();
        let mut admin = self.world.admin();
        if let Some(moment) = kill {
            self.peer.stop_at(Some(moment));
        }
        let line = json!({"jsonrpc": "2.0", "id": 9, "method": "approvals.approve", "params": consent(&first)});
        admin.0.send(format!("{line}\n").as_bytes());
        match kill {
            Some(moment) => assert!(self.peer.stands(Duration::from_secs(60)), "{moment:?} is reached"),
            None => thread::sleep(Duration::from_micros(us)),
        }
        self.world.kill();
        self.peer.stop_at(None);
        self.world.start();
        let mut reply = self.settled(&call, &first);
        let path = format!("/live/{round}");
        let done = self.peer.reads_of(&path).iter().any(|read| read.done);
        let found = format!("{} {}", reply.text("/status"), if done { "done" } else { "not done" });
        if reply.text("/status") == "unknown" {
            let part = self.asked().expect("the request is asked about");
            resolve(&mut self.world.admin(), &part, done);
            until("the call goes on", || now(&self.world, &call).text("/status") != "unknown");
            reply = now(&self.world, &call);
            if !done {
                reply = reply.must("failed", "none", "effect_refused");
            }
        } else if reply.approval() == first.approval() {
            assert!(!done, "round {round} was sent without consent");
            agree(&mut self.world.admin(), &reply).must("ok", "committed", "");
            reply = self.settled(&call, &first);
        }
        // With the answer the tool goes on, and what it wants then is asked about like anything else.
        if reply.text("/status") == "held" {
            assert_ne!(reply.approval(), first.approval());
            assert!(!self.world.path(&format!("books/live/{round}.txt")).exists());
            reply = agree(&mut self.world.admin(), &reply).must("ok", "committed", "");
            assert!(reply.value["warnings"].to_string().contains("sent while the tool ran"), "{}", reply.value);
        }
        let committed = reply.text("/outcome") == "committed";
        assert_eq!(self.world.path(&format!("books/live/{round}.txt")).exists(), committed, "round {round}");
        let reads = self.peer.reads_of(&path);
        assert_eq!(reads.len(), usize::from(committed), "round {round}: {reads:?}");
        let again = self.world.agent().reply("calls.execute", params);
        assert_eq!((&again.value, again.replayed), (&reply.value, true), "round {round}: a retry is told the same");
        found
    }
}

#[test]
fn r07_g1_g7_a_call_killed_at_every_phase_of_a_request_that_it_waits_for_goes_on_and_sends_it_once() {
    let total = size(SAMPLE, HARD);
    let (mut scene, mut dice) = (Scene::new(), Dice::new(seed()));
    let mut found = BTreeMap::<String, usize>::new();
    for round in 0..total {
        if is_over() {
            break;
        }
        let us = u64::try_from(dice.below(LIFE_US)).expect("small");
        let state = scene.round(round, MOMENTS.get(round % 8).copied(), us);
        *found.entry(state).or_default() += 1;
    }
    scene.world.verified();
    let done = found.values().sum();
    told("G7 kills around a request that a tool waits for", done, "torn or made twice", &format!("found {found:?}"));
}
