//! Each bound at n and n+1, turns between tenants, and slots that are given up at any moment.

use super::*;

fn tenant(name: &str) -> TenantName {
    name.parse().expect("name")
}

fn runs(entered: Entered) -> Slot {
    match entered {
        Entered::Runs(slot) => slot,
        other => panic!("{other:?}"),
    }
}

fn waits(entered: Entered) -> Place {
    match entered {
        Entered::Waits(place) => place,
        other => panic!("{other:?}"),
    }
}

fn has_turn(place: &mut Place) -> Option<Slot> {
    place.told.try_recv().ok()
}

#[test]
fn r29_n_run_as_many_wait_and_one_more_is_refused() {
    let slots = Slots::new(2, 3, None);
    let a = tenant("a");
    let mut running: Vec<Slot> = (0..2).map(|_| runs(slots.enter(&a))).collect();
    let mut waiting: Vec<Place> = (0..3).map(|_| waits(slots.enter(&a))).collect();
    assert!(matches!(slots.enter(&a), Entered::Full));
    drop(running.pop());
    let first = has_turn(&mut waiting[0]).expect("it is the first one's turn");
    assert!(has_turn(&mut waiting[1]).is_none());
    assert!(matches!(slots.enter(&a), Entered::Waits(_)), "there is room to wait again");
    drop(waiting);
    drop((first, running));
    let _all: Vec<Slot> = (0..2).map(|_| runs(slots.enter(&a))).collect();
}

#[test]
fn r29_without_room_to_wait_what_is_free_is_still_given() {
    let slots = Slots::new(1, 0, None);
    let one = runs(slots.enter(&tenant("a")));
    assert!(matches!(slots.enter(&tenant("a")), Entered::Full));
    drop(one);
    let _one = runs(slots.enter(&tenant("a")));
}

#[test]
fn r29_a_second_tenant_does_not_starve_behind_a_thousand_calls() {
    let slots = Slots::new(1, 1_000, None);
    let (big, small) = (tenant("big"), tenant("small"));
    let mut running = Some(runs(slots.enter(&big)));
    let mut crowd: Vec<Place> = (0..1_000).map(|_| waits(slots.enter(&big))).collect();
    // All places are taken, and still there is one for the other tenant: the last of the crowd is sent away.
    let mut alone = waits(slots.enter(&small));
    assert!(crowd[999].told.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed));
    drop(running.take());
    let of_crowd = has_turn(&mut crowd[0]).expect("whose line was first");
    assert!(has_turn(&mut alone).is_none());
    drop(of_crowd);
    let own = has_turn(&mut alone).expect("then the other tenant's");
    drop(own);
    assert!(has_turn(&mut crowd[1]).is_some());
}

#[test]
fn r29_a_tenant_has_its_own_most_and_the_rest_is_for_others() {
    let slots = Slots::new(4, 8, Some(2));
    let (a, b) = (tenant("a"), tenant("b"));
    let mut of_a: Vec<Slot> = (0..2).map(|_| runs(slots.enter(&a))).collect();
    let mut third = waits(slots.enter(&a));
    let of_b: Vec<Slot> = (0..2).map(|_| runs(slots.enter(&b))).collect();
    drop(of_b);
    assert!(has_turn(&mut third).is_none(), "what others give back is not for a tenant that has its most");
    drop(of_a.pop());
    assert!(has_turn(&mut third).is_some());
}

#[test]
fn r29_a_place_that_is_given_up_passes_its_turn_on() {
    let slots = Slots::new(1, 4, None);
    let a = tenant("a");
    let running = runs(slots.enter(&a));
    let (first, mut second) = (waits(slots.enter(&a)), waits(slots.enter(&a)));
    drop(running);
    // The first has its turn by now, and goes without having looked.
    drop(first);
    assert!(has_turn(&mut second).is_some());
}

#[test]
fn r29_any_number_of_threads_leave_every_slot_free_at_the_end() {
    let slots = Slots::new(3, 64, Some(2));
    let most = AtomicUsize::new(0);
    let now = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let (slots, most, now) = (&slots, &most, &now);
            let own = tenant(if number % 2 == 0 { "a" } else { "b" });
            scope.spawn(move || {
                for round in 0..500 {
                    let slot = match slots.enter(&own) {
                        Entered::Runs(slot) => Some(slot),
                        Entered::Waits(mut place) if round % 3 != 0 => place.told.try_recv().ok(),
                        Entered::Waits(_) | Entered::Full => None,
                    };
                    if slot.is_some() {
                        most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        std::thread::yield_now();
                        now.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert!(most.load(Ordering::SeqCst) <= 3);
    assert_eq!((slots.0.running.load(Ordering::SeqCst), slots.0.waiting.load(Ordering::SeqCst)), (0, 0));
    assert!(slots.0.lines().turns.is_empty() && slots.0.lines().running.is_empty());
}
