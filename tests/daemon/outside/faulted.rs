//! G7: two thousand requests that change something, each met with another fault: none is sent twice, none is said to be
//! done that was not, none to be not done that was, and where nobody can know, that is said.
//!
//! What is true is in the peer's book. `TOOLKEEP_HARD=1` runs all of them, `TOOLKEEP_SEED` repeats a run.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::thread;

use toolkeep_tests::support::proof::{is_over, seed, size, told};

use super::super::world::{Agent, Reply, World};
use super::peer::{Deaf, Fault, Peer};
use super::{agree, awake, grant, held, reach, resolve, send, write};
use crate::hard::program::Dice;

/// Requests of a hard run.
const REQUESTS: usize = 2_000;
/// Requests of an ordinary run.
const SAMPLE: usize = 160;
/// Agents at one time.
const AGENTS: usize = 8;
/// Attempts of a request whose endpoint is idempotent.
const ATTEMPTS: usize = 3;

/// Statuses of answers that the peer gives.
const STATUSES: [u16; 25] = [
    200, 201, 202, 204, 299, 300, 301, 302, 303, 307, 308, 400, 401, 403, 404, 408, 409, 410, 422, 429, 451, 500, 502,
    503, 599,
];
/// What else goes wrong. Nobody listens where there is no fault.
const FAULTS: [Option<Fault>; 19] = [
    None,
    Some(Fault::ResetsUnread),
    Some(Fault::ClosesUnread),
    Some(Fault::ResetsHalfRead),
    Some(Fault::ResetsRead),
    Some(Fault::ClosesRead),
    Some(Fault::HalfHead),
    Some(Fault::Garbage),
    Some(Fault::Hangs),
    Some(Fault::Dribbles),
    Some(Fault::Slow),
    Some(Fault::CutBody),
    Some(Fault::NoBody),
    Some(Fault::TooLarge),
    Some(Fault::HugeHead),
    Some(Fault::BadChunk),
    Some(Fault::OldProtocol),
    Some(Fault::Continues),
    Some(Fault::Switches),
];
const METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// Faults after which the request to an idempotent endpoint is repeated.
const REPEATED: [Fault; 4] = [Fault::ResetsRead, Fault::ClosesRead, Fault::Garbage, Fault::Answers(503)];

/// One request and what it meets.
#[derive(Debug, Clone)]
struct Case {
    number: usize,
    method: &'static str,
    /// Bytes of its body.
    bytes: usize,
    meets: Meets,
}

#[derive(Debug, Clone)]
enum Meets {
    /// Nobody.
    Nobody,
    /// A peer that goes wrong once.
    Once(Fault),
    /// A peer that goes wrong so often and then answers, where a repetition has no further effect.
    Repeated(Fault, usize),
}

fn cases(seed: u64) -> Vec<Case> {
    let mut dice = Dice::new(seed);
    let one = |number| {
        let meets = match dice.below(100) {
            0..35 => Meets::Once(Fault::Answers(*dice.pick(&STATUSES))),
            35..88 => dice.pick(&FAULTS).map_or(Meets::Nobody, Meets::Once),
            _ => Meets::Repeated(*dice.pick(&REPEATED), 1 + dice.below(ATTEMPTS)),
        };
        let bytes = if dice.often(20) { 1 + dice.below(100_000) } else { dice.below(200) };
        Case { number, method: METHODS[dice.below(METHODS.len())], bytes, meets }
    };
    (0..REQUESTS).map(one).collect()
}

/// Who is asked, by whom.
struct Scene {
    world: World,
    peer: Peer,
    deaf: Deaf,
}

impl Scene {
    fn new() -> Self {
        let (peer, deaf) = (Peer::new(), Deaf::new());
        let patient = "first_byte_ms = 20000\nidle_ms = 20000\ntotal_ms = 60000\nresponse_bytes = 1000\n";
        let hasty = "first_byte_ms = 200\nidle_ms = 200\ntotal_ms = 400\nresponse_bytes = 1000\n";
        let with = |more: &str| {
            let paths = |paths: &str, more: &str| format!("paths = [\"{paths}/**\"]\n{more}");
            format!(
                "tier = 3\n[limits]\nfuel = 1_000_000_000\n[[workspace]]\nname = \"books\"\naccess = \"write\"\n{}{}{}{more}",
                grant("patient", &peer.origin(), &paths("/patient", patient)),
                grant("hasty", &peer.origin(), &paths("/hasty", hasty)),
                grant("again", &peer.origin(), &paths("/again", &format!("idempotent = true\n{patient}"))),
            )
        };
        let tools = [("reach", "reach", with(&grant("deaf", &deaf.origin, "connect_ms = 5000\n")))];
        // A peer that fails so often would not be asked any more.
        let world = awake("[breaker]\nfailures = 0\n", &tools);
        std::fs::create_dir(world.path("books/g7")).expect("folder");
        Self { world, peer, deaf }
    }

    fn path(case: &Case) -> String {
        let grant = match case.meets {
            Meets::Nobody => "nobody",
            // Whoever is never answered has little patience; everybody else has as much as a loaded machine needs.
            Meets::Once(Fault::Hangs | Fault::Dribbles) => "hasty",
            Meets::Once(_) => "patient",
            Meets::Repeated(..) => "again",
        };
        format!("/{grant}/{}", case.number)
    }

    /// Make one request, and hold what is said of it against what the peer knows.
    fn judge(&self, case: &Case, (agent, admin): (&mut Agent, &mut Agent)) -> String {
        let path = Self::path(case);
        let origin = match &case.meets {
            Meets::Nobody => self.deaf.origin.clone(),
            Meets::Once(fault) => {
                self.peer.meets(&path, &[*fault]);
                self.peer.origin()
            }
            Meets::Repeated(fault, times) => {
                let mut faults = vec![*fault; *times];
                faults.push(Fault::Answers(200));
                self.peer.meets(&path, &faults);
                self.peer.origin()
            }
        };
        let file = format!("g7/{}.txt", case.number);
        let steps = [write(&file, "x"), send(case.method, &format!("{origin}{path}"), &"b".repeat(case.bytes))];
        let waits = held(reach(agent, "reach", &steps));
        let reply = agree(admin, &waits);
        let said = reply.text("/outcome").to_owned();
        self.hold_against(case, &said, &reply);
        let there = || self.world.path(&format!("books/{file}")).exists();
        assert_eq!(there(), said == "committed", "{case:?}: the file goes with the request: {}", reply.value);
        if said == "unknown" {
            let done = self.peer.reads_of(&path).iter().any(|read| read.done);
            let now = resolve(admin, waits.call(), done);
            let wanted = if done { ("ok", "committed", "") } else { ("failed", "discarded", "effect_refused") };
            assert_eq!(now.ended(), wanted, "{case:?}: {}", now.value);
            assert_eq!(there(), done, "{case:?}");
        }
        said
    }

    fn hold_against(&self, case: &Case, said: &str, reply: &Reply) {
        let reads = self.peer.reads_of(&Self::path(case));
        let done = reads.iter().filter(|read| read.done).count();
        let wanted: &[&str] = match case.meets {
            Meets::Nobody => &["discarded"],
            Meets::Once(fault) => fault.may_end(),
            Meets::Repeated(_, times) if times < ATTEMPTS => &["committed"],
            Meets::Repeated(..) => &["unknown"],
        };
        assert!(wanted.contains(&said), "{case:?} ended as {}", reply.value);
        match case.meets {
            Meets::Repeated(_, times) => {
                assert_eq!(reads.len(), (times + 1).min(ATTEMPTS), "{case:?}");
                assert!(reads.iter().all(|read| read.key == reads[0].key && read.body == reads[0].body), "{case:?}");
            }
            _ => assert!(reads.len() <= 1, "{case:?} was sent {} times", reads.len()),
        }
        match said {
            "committed" => assert!(done >= 1, "{case:?} is said to be done"),
            "discarded" => assert_eq!(done, 0, "{case:?} is said not to be done"),
            _ => {}
        }
        assert!(reads.iter().all(|read| read.key.len() == 64), "{case:?}: the host's key goes along");
    }
}

#[test]
fn g07_of_two_thousand_faulted_requests_none_is_sent_twice_and_every_ambiguous_one_is_unknown() {
    let mut cases = cases(seed());
    cases.truncate(size(SAMPLE, REQUESTS));
    let scene = Scene::new();
    let tally = Mutex::new(BTreeMap::<String, usize>::new());
    let left = Mutex::new(cases);
    thread::scope(|scope| {
        for _ in 0..AGENTS {
            scope.spawn(|| {
                let (mut agent, mut admin) = (scene.world.agent(), scene.world.admin());
                while !is_over() {
                    let Some(case) = left.lock().expect("cases").pop() else { return };
                    let said = scene.judge(&case, (&mut agent, &mut admin));
                    *tally.lock().expect("tally").entry(said).or_default() += 1;
                }
            });
        }
    });
    let tally = tally.into_inner().expect("tally");
    told("G7 faulted requests", tally.values().sum(), "sent twice or wrongly told", &format!("{tally:?}"));
    assert_eq!(tally.len(), 3, "{tally:?}");
    let mut keys: Vec<String> =
        scene.peer.reads().into_iter().map(|read| format!("{} {}", read.key, read.line)).collect();
    keys.sort();
    keys.dedup();
    let mut only: Vec<&str> = keys.iter().filter_map(|line| line.split(' ').next()).collect();
    only.dedup();
    assert_eq!(only.len(), keys.len(), "no two requests have one key");
    scene.world.verified();
}
