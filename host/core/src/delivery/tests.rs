//! Every event in every state, the bounds of the pause, and every life that a delivery can have.

use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_700_000_000_000;
const MOST: u32 = 3;

fn events() -> Vec<DeliveryEvent> {
    vec![
        DeliveryEvent::Claim,
        DeliveryEvent::Withhold,
        DeliveryEvent::Accept,
        DeliveryEvent::Fail { draw: u64::MAX, wait_ms: None },
        DeliveryEvent::Refuse,
        DeliveryEvent::Lose,
        DeliveryEvent::Retry,
        DeliveryEvent::Discard,
    ]
}

/// What each event makes of each state, while attempts are left and after the last one.
fn expected(state: DeliveryState, event: DeliveryEvent, spent: bool) -> Option<DeliveryState> {
    use DeliveryState::{Dead, Delivered, Discarded, Queued, Sending};
    match (state, event, spent) {
        (Queued, DeliveryEvent::Claim, _) => Some(Sending),
        (Sending, DeliveryEvent::Withhold, _) => Some(Queued),
        (Sending, DeliveryEvent::Accept, _) => Some(Delivered),
        (Sending, DeliveryEvent::Refuse, _) => Some(Dead),
        (Sending, DeliveryEvent::Fail { .. } | DeliveryEvent::Lose, true) => Some(Dead),
        (Sending, DeliveryEvent::Fail { .. } | DeliveryEvent::Lose, false) => Some(Queued),
        (Dead, DeliveryEvent::Retry, _) => Some(Queued),
        (Dead, DeliveryEvent::Discard, _) => Some(Discarded),
        _ => None,
    }
}

#[test]
fn every_event_in_every_state_has_the_answer_of_the_table() {
    for state in DeliveryState::ALL {
        for event in events() {
            for attempts in [MOST - 1, MOST] {
                let before = Progress { state, attempts, next_ms: 7 };
                let after = before.after(event, NOW, MOST).map(|after| after.state);
                assert_eq!(
                    after,
                    expected(state, event, attempts == MOST).ok_or(OutOfPlace(state)),
                    "{event:?} in {state} after {attempts} attempts"
                );
            }
        }
    }
}

#[test]
fn attempts_are_counted_when_they_begin_and_given_back_when_nothing_was_sent() {
    let claimed = Progress::new(NOW).after(DeliveryEvent::Claim, NOW, MOST).expect("claimed");
    assert_eq!((claimed.state, claimed.attempts), (DeliveryState::Sending, 1));
    let withheld = claimed.after(DeliveryEvent::Withhold, NOW + 5, MOST).expect("withheld");
    assert_eq!((withheld.attempts, withheld.next_ms), (0, NOW + 5));
    let dead = claimed.after(DeliveryEvent::Refuse, NOW, MOST).expect("dead");
    let retried = dead.after(DeliveryEvent::Retry, NOW + 9, MOST).expect("retried");
    assert_eq!(retried, Progress::new(NOW + 9));
}

#[test]
fn a_receiver_that_asks_for_time_gets_it_up_to_the_longest_pause() {
    let sending = Progress { state: DeliveryState::Sending, attempts: 1, next_ms: NOW };
    let wait =
        |wait_ms| sending.after(DeliveryEvent::Fail { draw: 0, wait_ms }, NOW, MOST).expect("queued").next_ms - NOW;
    assert_eq!((wait(None), wait(Some(60_000))), (0, 60_000));
    assert_eq!((wait(Some(BACKOFF_MOST_MS)), wait(Some(BACKOFF_MOST_MS + 1))), (BACKOFF_MOST_MS, BACKOFF_MOST_MS));
}

#[test]
fn the_longest_pauses_of_all_attempts_are_about_a_day() {
    let windows: Vec<u64> = (1..ATTEMPTS_DEFAULT).map(backoff_window_ms).collect();
    assert_eq!(windows, [5_000, 30_000, 180_000, 1_080_000, 6_480_000, 38_880_000, 43_200_000]);
    let day = 24 * 3_600 * 1_000;
    let all: u64 = windows.iter().sum();
    assert!(all > day && all < day + 2 * 3_600 * 1_000, "{all}");
    assert_eq!(backoff_window_ms(u32::MAX), BACKOFF_MOST_MS);
}

#[test]
fn words_name_states_and_kinds() {
    for state in DeliveryState::ALL {
        assert_eq!(DeliveryState::from_word(state.word()), Some(state));
        assert_eq!(serde_json::to_value(state).expect("text"), state.word());
    }
    for kind in DeliveryKind::ALL {
        assert_eq!(DeliveryKind::from_word(kind.word()), Some(kind));
        assert_eq!(serde_json::to_value(kind).expect("text"), kind.word());
    }
    assert_eq!((DeliveryState::from_word("Dead"), DeliveryKind::from_word("")), (None, None));
}

fn message() -> Message {
    Message {
        to: vec!["ann@example.com".to_owned()],
        subject: "Done".to_owned(),
        media_type: "text/plain; charset=utf-8".to_owned(),
        body: Arc::from(b"line\r\nline".as_slice()),
    }
}

#[test]
fn t_n6_nothing_in_a_head_can_end_a_line() {
    assert_eq!(message().check(), Ok(()));
    for bad in ["a\nBcc: x@y", "a\r\nBcc: x", "a\0", "a\u{85}b", "a\u{2028}b", "a\u{2029}b", "a\x1b[0m"] {
        let subject = Message { subject: bad.to_owned(), ..message() };
        let to = Message { to: vec![bad.to_owned()], ..message() };
        let media_type = Message { media_type: format!("text/{bad}"), ..message() };
        for (what, message) in [("subject", subject), ("to", to), ("media_type", media_type)] {
            assert_eq!(message.check(), Err(BadMessage::Control(what)), "{bad:?}");
        }
    }
    for bad in [
        "",
        "text",
        "text/",
        "/plain",
        "text/plain; x",
        "text/plain;charset=",
        "text/plain;",
        "te xt/plain",
        "a/b, c/d",
    ] {
        let message = Message { media_type: bad.to_owned(), ..message() };
        assert_eq!(message.check(), Err(BadMessage::MediaType(bad.to_owned())));
    }
    let several = Message { media_type: "text/plain; format=flowed;charset=utf-8".to_owned(), ..message() };
    assert_eq!(several.check(), Ok(()));
}

#[test]
fn each_bound_of_a_message_holds_at_n_and_not_at_n_plus_1() {
    let with = |to: usize, receiver: usize, subject: usize, body: usize| {
        let message = Message {
            to: vec!["r".repeat(receiver); to],
            subject: "s".repeat(subject),
            body: vec![0; body].into(),
            ..message()
        };
        message.check()
    };
    assert_eq!(with(RECEIVERS_MAX, RECEIVER_MAX_BYTES, SUBJECT_MAX_BYTES, BODY_MAX_BYTES), Ok(()));
    assert_eq!(with(RECEIVERS_MAX + 1, 1, 0, 0), Err(BadMessage::TooMany(RECEIVERS_MAX + 1)));
    assert_eq!(with(1, 0, 0, 0), Err(BadMessage::NoReceiver));
    for (wrong, name) in [
        (with(1, RECEIVER_MAX_BYTES + 1, 0, 0), "to"),
        (with(1, 1, SUBJECT_MAX_BYTES + 1, 0), "subject"),
        (with(1, 1, 0, BODY_MAX_BYTES + 1), "body"),
    ] {
        assert!(matches!(wrong, Err(BadMessage::TooLong { what, .. }) if what == name), "{name}");
    }
}

proptest! {
    #[test]
    fn a_pause_is_anywhere_in_its_window(attempts in 0_u32..100, draw: u64) {
        prop_assert!(backoff_ms(attempts, draw) <= backoff_window_ms(attempts));
        prop_assert_eq!(backoff_ms(attempts, 0), 0);
        prop_assert_eq!(backoff_ms(attempts, u64::MAX), backoff_window_ms(attempts));
    }

    /// Whatever happens in whatever order, a delivery is somewhere, and has begun no more attempts than it may.
    #[test]
    fn no_life_has_more_attempts_than_it_may_or_ends_in_nothing(life in prop::collection::vec(0_usize..8, 0..200)) {
        let mut progress = Progress::new(NOW);
        for step in life {
            let Some(event) = events().get(step).copied() else { continue };
            if let Ok(next) = progress.after(event, NOW, MOST) {
                if event == DeliveryEvent::Claim {
                    prop_assert!(next.attempts <= MOST, "{:?}", next);
                }
                progress = next;
            }
        }
        prop_assert!(progress.attempts <= MOST);
    }
}

#[test]
fn an_effect_has_one_id_for_ever_and_no_other_effect_has_it() {
    let plan = |n| crate::id::PlanId::new(uuid::Uuid::from_u128(n));
    assert_eq!(delivery_id(plan(1), 0).to_string(), "msg_c5dd1f15-ce56-8504-8617-ec56c359b546");
    assert_ne!(delivery_id(plan(1), 0), delivery_id(plan(1), 1));
    assert_ne!(delivery_id(plan(1), 0), delivery_id(plan(2), 0));
}
