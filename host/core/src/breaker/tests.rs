//! Every event in every phase, the edges of each rule, and any life of a circuit against a plain list of what happened.

use proptest::prelude::*;

use super::*;

const RULES: BreakerRules = BreakerRules { failures: 3, window_ms: 1_000, open_ms: 500 };

fn failed(breaker: Breaker, now_ms: u64) -> Breaker {
    breaker.after(BreakerEvent::Failure(Let::Through), now_ms)
}

fn worked(breaker: Breaker, now_ms: u64) -> Breaker {
    breaker.after(BreakerEvent::Success(Let::Through), now_ms)
}

fn opened() -> Breaker {
    (0..3).fold(Breaker::new(RULES), failed)
}

#[test]
fn r30_n_minus_one_failures_leave_it_closed_and_the_nth_opens_it() {
    let almost = (0..2).fold(Breaker::new(RULES), failed);
    assert!(almost.look(2).is_ok());
    let open = failed(almost, 2);
    assert_eq!(open.phase(), Phase::Open { until_ms: Some(502) });
    assert_eq!((open.look(2), open.look(501), open.look(502)), (Err(Some(500)), Err(Some(1)), Ok(())));
}

#[test]
fn r30_failures_count_within_the_window_and_not_a_moment_longer() {
    let first = failed(Breaker::new(RULES), 0);
    let within = failed(failed(first, 1), 999);
    assert_eq!(within.phase().word(), "open");
    let after = failed(failed(first, 1), 1_000);
    assert_eq!(after.phase(), Phase::Closed { since_ms: 1_000, failures: 1, successes: 0 });
    assert!(worked(first, 1_000).is_quiet() && !worked(first, 999).is_quiet());
}

#[test]
fn r30_where_most_calls_work_it_stays_closed() {
    let first = failed(Breaker::new(RULES), 0);
    let busy = (0..4).fold(first, |breaker, _| worked(breaker, 1));
    let still = failed(failed(busy, 2), 3);
    assert!(still.look(3).is_ok(), "three of seven failed");
    assert_eq!(failed(still, 4).phase().word(), "open", "four of eight did");
}

#[test]
fn r30_after_its_rest_one_probe_is_let_through_and_decides() {
    let (probing, as_what) = opened().ask(600).expect("its rest is over");
    assert_eq!(as_what, Let::AsProbe);
    assert_eq!(probing.look(601), Err(Some(499)), "one at a time");
    assert!(probing.after(BreakerEvent::Success(Let::AsProbe), 700).is_quiet());
    let again = probing.after(BreakerEvent::Failure(Let::AsProbe), 700);
    assert_eq!(again.phase(), Phase::Open { until_ms: Some(1_200) });
    let lost = probing.after(BreakerEvent::Nothing(Let::AsProbe), 700);
    assert!(matches!(lost.ask(700), Ok((_, Let::AsProbe))), "the next is the probe");
    assert!(
        matches!(probing.ask(1_100), Ok((_, Let::AsProbe))),
        "one that is never heard of does not block it for ever"
    );
}

#[test]
fn r30_an_operator_opens_and_closes_whatever_it_is() {
    let probing = opened().ask(600).expect("its rest is over").0;
    for breaker in [Breaker::new(RULES), opened(), probing, failed(Breaker::new(RULES), 0)] {
        let held = breaker.after(BreakerEvent::Open, 700);
        assert_eq!(held.look(u64::MAX), Err(None), "it does not open by itself");
        assert_eq!(held.after(BreakerEvent::Success(Let::AsProbe), 701), held);
        assert!(held.after(BreakerEvent::Close, 800).is_quiet() && breaker.after(BreakerEvent::Close, 800).is_quiet());
    }
}

#[test]
fn r30_no_failures_never_open_it_and_wrong_rules_are_refused() {
    let never = BreakerText { failures: Some(0), ..BreakerText::default() }.check(RULES).expect("rules");
    let breaker = (0..100_000).fold(Breaker::new(never), |breaker, _| failed(breaker, 0));
    assert!(breaker.look(0).is_ok());
    let key = |text: BreakerText| text.check(RULES).map_err(|bad| bad.key);
    let seconds = |value| BreakerText { window_s: Some(value), ..BreakerText::default() };
    assert!(key(seconds(1)).is_ok() && key(seconds(SECONDS_MAX)).is_ok());
    assert_eq!(key(seconds(0)), Err("breaker.window_s".to_owned()));
    assert_eq!(key(seconds(SECONDS_MAX + 1)), Err("breaker.window_s".to_owned()));
    let open = BreakerText { open_s: Some(0), ..BreakerText::default() };
    assert_eq!(key(open), Err("breaker.open_s".to_owned()));
    let failures = |value| BreakerText { failures: Some(value), ..BreakerText::default() };
    assert!(key(failures(FAILURES_MAX)).is_ok() && key(failures(FAILURES_MAX + 1)).is_err());
    assert_eq!(key(BreakerText::default()), Ok(RULES));
}

const EVENTS: [BreakerEvent; 8] = [
    BreakerEvent::Success(Let::Through),
    BreakerEvent::Success(Let::AsProbe),
    BreakerEvent::Failure(Let::Through),
    BreakerEvent::Failure(Let::AsProbe),
    BreakerEvent::Nothing(Let::Through),
    BreakerEvent::Nothing(Let::AsProbe),
    BreakerEvent::Open,
    BreakerEvent::Close,
];

#[test]
fn r30_in_every_phase_every_event_leads_where_it_should() {
    let closed = failed(Breaker::new(RULES), 0);
    let open = opened();
    let probing = open.ask(600).expect("its rest is over").0;
    for event in EVENTS {
        let words = [closed, open, probing].map(|breaker| breaker.after(event, 601).phase().word());
        let wanted = match event {
            BreakerEvent::Open => ["open", "open", "open"],
            BreakerEvent::Close => ["closed", "closed", "closed"],
            BreakerEvent::Success(Let::AsProbe) => ["closed", "open", "closed"],
            BreakerEvent::Failure(Let::AsProbe) => ["closed", "open", "open"],
            _ => ["closed", "open", "half-open"],
        };
        assert_eq!(words, wanted, "{event:?}");
    }
}

proptest! {
    #[test]
    fn r30_whatever_happens_at_most_one_probe_runs_and_an_open_circuit_lets_nobody_through(
        steps in prop::collection::vec((0_u64..400, 0_usize..12), 1..200),
    ) {
        let (mut breaker, mut now, mut probes, mut rests_until) = (Breaker::new(RULES), 0_u64, Vec::new(), 0_u64);
        for (gap, step) in steps {
            now += gap;
            // A probe that is older than a rest counts as lost.
            probes.retain(|since| now < *since + RULES.open_ms);
            match EVENTS.get(step) {
                None => match breaker.ask(now) {
                    Ok((next, Let::AsProbe)) => {
                        prop_assert!(probes.is_empty(), "two probes");
                        prop_assert!(now >= rests_until);
                        probes.push(now);
                        breaker = next;
                    }
                    Ok((next, Let::Through)) => {
                        prop_assert_eq!(next.phase().word(), "closed");
                        breaker = next;
                    }
                    Err(Some(wait)) => {
                        prop_assert!(wait > 0);
                        prop_assert!(breaker.look(now + wait).is_ok() && breaker.look(now + wait - 1).is_err());
                    }
                    Err(None) => prop_assert_eq!(breaker.phase(), Phase::Open { until_ms: None }),
                },
                Some(event) => {
                    let before = breaker.phase().word();
                    breaker = breaker.after(*event, now);
                    if breaker.phase().word() == "open" && before != "open" && *event != BreakerEvent::Open {
                        rests_until = now + RULES.open_ms;
                    }
                    if !matches!(event, BreakerEvent::Success(Let::Through) | BreakerEvent::Failure(Let::Through) | BreakerEvent::Nothing(Let::Through)) {
                        probes.clear();
                    }
                    if matches!(event, BreakerEvent::Open | BreakerEvent::Close) {
                        rests_until = now;
                    }
                }
            }
        }
    }
}
