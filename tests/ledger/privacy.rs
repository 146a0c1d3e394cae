//! Payloads at rest: sealed, opened, let go of by age, held for the law, and forgotten.

use std::sync::Arc;

use toolkeep::ambient::Ambient;
use toolkeep::ledger::{
    Class, Cutoffs, Discard, Durability, Hold, HoldOf, Keep, Ledger, LedgerOptions, Page, Pruned, SEALED, Scope,
    Settled, StatsBy, StatsFirst, StatsQuery,
};
use toolkeep::vault::{Identities, Part, Recipients, keygen};
use toolkeep_core::call::Status;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::CallId;
use toolkeep_core::tier::Tier;

use super::fixture::{Fixture, NOW_MS, acme, keyed, outcome, principal};

pub(super) const DAY_MS: u64 = 24 * 3600 * 1000;
/// Far after everything that a test writes.
pub(super) const LATER: u64 = NOW_MS + 10 * DAY_MS;
pub(super) const CANARY: &str = "CANARY-DE00-1234";

/// A ledger that encrypts to somebody, the file of who it is, and how it is opened again.
pub(super) async fn sealing_to(name: &str) -> (Fixture, String, LedgerOptions) {
    let (identity, recipient) = keygen(&Ambient::real());
    let recipients = Recipients::of(&[recipient]).expect("a recipient");
    let options = LedgerOptions { recipients: Some(recipients), ..LedgerOptions::default() };
    (Fixture::with(name, options.clone()).await, identity.to_string(), options)
}

/// A ledger that encrypts to somebody, and the file of who it is.
pub(super) async fn sealing(name: &str) -> (Fixture, String) {
    let (fixture, identity, _) = sealing_to(name).await;
    (fixture, identity)
}

/// A call full of what nobody should read.
pub(super) fn told(fixture: &Fixture) -> toolkeep::ledger::CallRow {
    let mut row = fixture.call();
    row.input = Arc::from(format!(r#"{{"iban":"{CANARY}"}}"#));
    row.input_digest = Digest::of(row.input.as_bytes());
    row.reply = Arc::from(row.reply.replacen('{', &format!(r#"{{"output":{{"of":"{CANARY}"}},"#), 1));
    row.recording = Some(Arc::from(format!(r#"{{"format":1,"of":"{CANARY}"}}"#)));
    row.output = Some(Arc::from(format!(r#""{CANARY}""#)));
    row
}

pub(super) fn files_with(fixture: &Fixture, what: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(fixture.place.path()).expect("a folder") {
        let path = entry.expect("an entry").path();
        let bytes = std::fs::read(&path).unwrap_or_default();
        if bytes.windows(what.len()).any(|window| window == what.as_bytes()) {
            found.push(path.file_name().expect("a name").to_string_lossy().into_owned());
        }
    }
    found
}

pub(super) async fn input_of(ledger: &Ledger, call: CallId) -> Option<String> {
    ledger.call(&acme(), call).await.expect("read").map(|stored| stored.row.input.to_string())
}

#[tokio::test]
async fn r42_nothing_of_a_payload_is_in_the_files_and_everything_reads_back_also_after_a_restart() {
    let (mut fixture, _) = sealing("sealed").await;
    let row = told(&fixture);
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let mut proposal = fixture.proposal(b"x");
    proposal.call = toolkeep::ledger::CallRow { recording: None, output: None, ..told(&fixture) };
    proposal.plan = fixture.plan(&proposal.call, b"x");
    let mut intent = fixture.intent(&proposal.plan);
    intent.reply_when_done = Arc::clone(&proposal.call.reply);
    intent.proposal = Some(Box::new(proposal.clone()));
    let id = fixture.ledger.intent(intent).await.expect("intent");
    assert_eq!(fixture.ledger.open_intents().await.expect("open").len(), 1, "recovery reads its reply");
    let mut row_2 = outcome(id, proposal.call.call, Settled::Committed);
    row_2.reply = Arc::clone(&proposal.call.reply);
    fixture.ledger.outcome(row_2, Durability::Durable).await.expect("outcome");
    for _ in 0..2 {
        let ledger = &fixture.ledger;
        let stored = ledger.call(&acme(), row.call).await.expect("read").expect("there").row;
        assert_eq!((&*stored.input, &*stored.reply), (&*row.input, &*row.reply));
        assert_eq!(ledger.recording(&acme(), row.call).await.expect("read"), row.recording);
        assert_eq!(ledger.output(&acme(), row.call).await.expect("read"), row.output);
        let stored = ledger.call(&acme(), proposal.call.call).await.expect("read").expect("there").row;
        assert_eq!(stored.reply, proposal.call.reply);
        assert_eq!(files_with(&fixture, CANARY), [] as [String; 0]);
        fixture.reopen().await;
    }
}

#[tokio::test]
async fn r42_what_the_daemon_let_go_of_opens_for_operators_alone() {
    let (fixture, file) = sealing("let-go").await;
    let row = told(&fixture);
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let held = fixture.held(b"open", 1);
    fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
    let ledger = &fixture.ledger;
    assert_eq!(ledger.let_go_of_keys(LATER).await.expect("asked"), 0, "a call of the day is not over");
    ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
    let day_end = (NOW_MS / DAY_MS + 1) * DAY_MS;
    assert_eq!(ledger.let_go_of_keys(day_end - 1).await.expect("asked"), 0, "the day is not over");
    assert_eq!(ledger.let_go_of_keys(day_end).await.expect("let go"), 1);
    let stored = ledger.call(&acme(), row.call).await.expect("read").expect("there").row;
    assert_eq!((&*stored.input, stored.readable_input()), (SEALED, None));
    assert!(stored.reply.contains("encrypted to the operators") && stored.reply.contains(&row.call.to_string()));
    assert_eq!(ledger.recording(&acme(), row.call).await.expect("read"), None);
    let payload = ledger.payload(&acme(), row.call).await.expect("read").expect("there");
    let identities = Identities::of(&file).expect("an identity");
    let (id, wrapped) = payload.keys.first().expect("one key");
    let key = identities.unwrap(*id, wrapped).expect("opened");
    let wanted = [row.input.to_string(), row.reply.to_string()];
    let opened = payload.parts.iter().take(2).map(|part| key.open(part.part, &part.text).expect("opened"));
    assert_eq!(opened.collect::<Vec<_>>(), wanted);
    assert_eq!(payload.parts[3].part, Part::Recording);
    // What is written from now on is readable again, under another key.
    let next = told(&fixture);
    ledger.record_call(next.clone()).expect("recorded");
    assert_eq!(input_of(ledger, next.call).await.as_deref(), Some(&*next.input));
    let foreign = Scope::Tenant("globex".parse().expect("name"));
    assert!(ledger.payload(&foreign, row.call).await.expect("read").is_none());
}

#[tokio::test]
async fn r42_each_class_goes_at_its_age_and_not_a_millisecond_before() {
    for class in Class::ALL.into_iter().filter(|class| *class != Class::Contents) {
        let fixture = Fixture::new("classes").await;
        let mut row = told(&fixture);
        let tier = match class {
            Class::Tier(tier) => tier,
            _ => Tier::Reversible,
        };
        row.tier = Some(tier);
        if class == Class::Refused {
            row.status = Status::Denied;
        }
        if class == Class::Keys {
            keyed(&mut row, "k");
        }
        let mut ended_ms = row.ended_ms;
        if class == Class::Expired {
            let held = fixture.held(b"held", 1);
            fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
            fixture.ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
            ended_ms = NOW_MS;
        } else {
            fixture.ledger.record_call(row.clone()).expect("recorded");
        }
        let keep = |since_ms: u64| {
            let mut cutoffs = Cutoffs::default();
            match class {
                Class::Keys => cutoffs.keys = Some(since_ms),
                Class::Payloads => cutoffs.payloads = Some(since_ms),
                Class::Recordings => cutoffs.recordings = Some(since_ms),
                Class::Refused => cutoffs.refused = Some(since_ms),
                Class::Expired => cutoffs.expired = Some(since_ms),
                Class::Tier(tier) => cutoffs.tiers[usize::from(tier.number())] = Some(since_ms),
                Class::Contents => {}
            }
            Keep { cutoffs, ..Keep::since(0) }
        };
        let ledger = &fixture.ledger;
        assert_eq!(ledger.prune(keep(ended_ms)).await.expect("pruned"), Pruned::default(), "{class:?}");
        let would = ledger.would_prune(keep(ended_ms + 1)).await.expect("rehearsed");
        let gone = ledger.prune(keep(ended_ms + 1)).await.expect("pruned");
        assert!(would == gone && !gone.is_nothing(), "{class:?}: {would:?} {gone:?}");
        assert!(ledger.prune(keep(LATER)).await.expect("pruned").is_nothing(), "{class:?}: once");
        let left = ledger.call(&acme(), row.call).await.expect("read");
        assert_eq!(left.is_some(), matches!(class, Class::Keys | Class::Payloads | Class::Recordings), "{class:?}");
        ledger.verify_audit(Vec::new()).await.expect("the chain is whole");
    }
}

#[tokio::test]
async fn r42_a_payload_that_is_gone_leaves_its_digest_and_its_bare_reply() {
    let fixture = Fixture::new("blank").await;
    let row = told(&fixture);
    fixture.ledger.record_call(row.clone()).expect("recorded");
    let cutoffs = Cutoffs { payloads: Some(LATER), recordings: Some(LATER), ..Cutoffs::default() };
    let gone = fixture.ledger.prune(Keep { cutoffs, ..Keep::since(0) }).await.expect("pruned");
    assert_eq!(gone, Pruned { payloads: 1, recordings: 1, ..Pruned::default() });
    let stored = fixture.ledger.call(&acme(), row.call).await.expect("read").expect("there").row;
    assert_eq!((&*stored.input, stored.input_digest), ("\"[expired]\"", row.input_digest));
    assert!(stored.reply.contains("not kept any more"), "{}", stored.reply);
    assert!(fixture.ledger.output(&acme(), row.call).await.expect("read").is_none());
    let entries = fixture.ledger.audit_entries(Page::default()).await.expect("entries").items;
    let reply = Digest::of(row.reply.as_bytes()).to_hex();
    assert!(entries.iter().any(|entry| entry.body.contains(&reply)), "the record still says what it was");
    // Nothing of it is in the database itself.
    fixture.ledger.close().await.expect("closed");
    assert_eq!(files_with(&fixture, CANARY), [] as [String; 0]);
}

#[tokio::test]
async fn r42_a_reply_that_a_key_names_and_what_is_held_for_the_law_stay() {
    let fixture = Fixture::new("needed").await;
    let (mut named, held, plain) = (told(&fixture), told(&fixture), told(&fixture));
    let claim = keyed(&mut named, "k");
    for row in [&named, &held, &plain] {
        fixture.ledger.record_call(row.clone()).expect("recorded");
    }
    let ledger = &fixture.ledger;
    let of = HoldOf::Call(held.call);
    let hold = Hold {
        of,
        tenant: "acme".parse().expect("name"),
        reason: Arc::from("a court"),
        set_by: "ada".parse().expect("name"),
        set_ms: NOW_MS,
    };
    assert!(ledger.hold_for_law(hold.clone(), "{}".to_owned()).await.expect("held"));
    assert!(!ledger.hold_for_law(hold.clone(), "{}".to_owned()).await.expect("held"), "once");
    let cutoffs = Cutoffs { payloads: Some(LATER), keys: Some(0), ..Cutoffs::default() };
    let gone = ledger.prune(Keep { cutoffs, ..Keep::since(LATER) }).await.expect("pruned");
    assert_eq!((gone.calls, gone.payloads, gone.keys), (1, 1, 0), "only what nobody needs");
    assert!(input_of(ledger, plain.call).await.is_none());
    let again = ledger.claim_key(claim).await.expect("claimed");
    assert!(matches!(again, toolkeep::ledger::Claimed::Stored { reply, .. } if reply == named.reply));
    assert_eq!(ledger.holds(&"acme".parse().expect("name")).await.expect("listed"), [hold]);
    assert!(!ledger.release_hold(of, &"globex".parse().expect("name"), "{}".to_owned()).await.expect("asked"));
    assert!(ledger.release_hold(of, &"acme".parse().expect("name"), "{}".to_owned()).await.expect("released"));
    let cutoffs = Cutoffs { keys: Some(LATER), ..cutoffs };
    let gone = ledger.prune(Keep { cutoffs, ..Keep::since(LATER) }).await.expect("pruned");
    assert_eq!((gone.calls, gone.keys), (2, 1), "what was left behind is looked at again");
}

#[tokio::test]
async fn r42_a_forgotten_tenant_is_gone_with_its_keys_and_another_is_untouched() {
    let (mut fixture, _) = sealing("forget").await;
    let (own, mut others) = (told(&fixture), told(&fixture));
    others.principal = principal("globex");
    fixture.ledger.record_call(own.clone()).expect("recorded");
    fixture.ledger.record_call(others.clone()).expect("recorded");
    let held = fixture.held(b"held", 1);
    fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
    let entries = fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries;
    let tenant = "acme".parse().expect("name");
    let facts = r#"{"what":"forget"}"#.to_owned();
    let asked = fixture.ledger.ask_to_forget(&tenant, None, facts).await.expect("noted");
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left, done.keys), (1, 1, 0), "what waits for people is not over");
    assert!(input_of(&fixture.ledger, own.call).await.is_none());
    // It goes on where it was, also after a restart.
    fixture.reopen().await;
    fixture.ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
    assert_eq!(fixture.ledger.to_forget().await.expect("read"), std::slice::from_ref(&asked));
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left, done.keys), (1, 0, 1));
    assert!(fixture.ledger.to_forget().await.expect("read").is_empty());
    assert_eq!(fixture.ledger.forget(&asked, Vec::new()).await.expect("nothing"), Default::default());
    let globex = Scope::Tenant("globex".parse().expect("name"));
    let stored = fixture.ledger.call(&globex, others.call).await.expect("read").expect("there").row;
    assert_eq!(stored.input, others.input);
    assert!(fixture.ledger.verify_audit(Vec::new()).await.expect("chain").entries >= entries + 2);
    fixture.ledger.close().await.expect("closed");
    let entry = own.call.to_string();
    assert_eq!(files_with(&fixture, &entry), ["ledger.sqlite"], "the audit names it");
}

#[tokio::test]
async fn r42_a_forgotten_person_is_gone_and_the_others_of_the_tenant_stay() {
    let fixture = Fixture::new("forget-user").await;
    let (own, mut others) = (told(&fixture), told(&fixture));
    others.principal.user = "grace".parse().expect("name");
    for row in [&own, &others] {
        fixture.ledger.record_call(row.clone()).expect("recorded");
    }
    let (tenant, user) = ("acme".parse().expect("name"), own.principal.user.clone());
    let asked = fixture.ledger.ask_to_forget(&tenant, Some(&user), "{}".to_owned()).await.expect("noted");
    let done = fixture.ledger.forget(&asked, Vec::new()).await.expect("forgotten");
    assert_eq!((done.calls, done.left), (1, 0));
    assert!(input_of(&fixture.ledger, own.call).await.is_none());
    assert_eq!(input_of(&fixture.ledger, others.call).await.as_deref(), Some(&*others.input));
}

#[tokio::test]
async fn r42_sums_are_those_of_the_calls_however_they_ended() {
    let fixture = Fixture::new("stats").await;
    for (status, wall_ms, count) in [(Status::Ok, 5, 3), (Status::Denied, 50, 2), (Status::Failed, 500, 1)] {
        for _ in 0..count {
            let mut row = fixture.call();
            row.status = status;
            row.usage.wall_ms = wall_ms;
            row.error_code = (status == Status::Denied).then_some(toolkeep_core::refusal::Code::Denied);
            fixture.ledger.record_call(row).expect("recorded");
        }
    }
    let held = fixture.held(b"held", 1);
    fixture.ledger.propose(held.clone(), Durability::Durable).await.expect("kept");
    let day = NOW_MS / DAY_MS;
    let query = |by, tenant: &str| StatsQuery {
        tenant: tenant.parse().expect("name"),
        by,
        first: StatsFirst::Calls,
        since_day: day,
        until_day: day,
    };
    let lines = fixture.ledger.stats(query(StatsBy::Tool, "acme")).await.expect("stats");
    let [line] = lines.as_slice() else { panic!("{lines:?}") };
    assert_eq!((line.calls, line.denied, line.failed, line.wall_max), (6, 2, 1, 500), "what waits is not counted");
    assert_eq!((line.wall_ms, line.classes), (3 * 5 + 2 * 50 + 500, [3, 2, 1, 0, 0]));
    fixture.ledger.discard(&acme(), held.plan.id(), Discard::Dropped).await.expect("discarded");
    let lines = fixture.ledger.stats(query(StatsBy::Code, "acme")).await.expect("stats");
    let counts: Vec<(&str, u64)> = lines.iter().map(|line| (line.name.as_str(), line.calls)).collect();
    assert_eq!(counts, [("", 5), ("denied", 2)], "once, when it is over");
    assert!(fixture.ledger.stats(query(StatsBy::Tool, "globex")).await.expect("stats").is_empty());
}
