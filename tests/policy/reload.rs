//! Hot reload: everybody who asks gets the answer of one set or of the other, and an invalid set changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};

use toolkeep::config::Environment;
use toolkeep::policy::{Circumstances, Matter, PolicyHandle, Reloaded};
use toolkeep_core::call::Mode;
use toolkeep_tests::support::scratch::Scratch;

use super::tools::{plain, principal, set};

const OPEN: &str = "permit (principal, action, resource);\n";
/// Two files that only together are what somebody wants: half of it would allow everything.
const CLOSED: &str =
    "permit (principal, action, resource);\nforbid (principal, action in Action::\"call\", resource);\n";

#[test]
fn r17_a_reload_is_seen_as_a_whole_or_not_at_all() {
    let home = Scratch::new();
    home.put("a.cedar", OPEN.as_bytes());
    let tools = [plain("t0", 1)];
    let handle = PolicyHandle::open(Some(home.path().to_path_buf()), &tools);
    let who = principal("acme/ann/bot");
    let around = Circumstances::now(0, Environment::Dev, Mode::Commit);
    let of = |text: &str| set(&[("a.cedar", text)], &tools).expect("valid").digest(&who.tenant);
    let (open, closed) = (of(OPEN), of(CLOSED));
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    let mut seen = [0_u64; 2];
                    while !over.load(Ordering::Acquire) {
                        let policies = handle.current();
                        let matter = Matter { input: Some("{}"), plan: None, around };
                        let allowed = policies.judge(&who, &tools[0], &matter).allowed();
                        let digest = policies.digest(&who.tenant);
                        assert!(digest == open || digest == closed, "a set that nobody wrote");
                        assert_eq!(allowed, digest == open, "the answer is that of the set that is named");
                        seen[usize::from(allowed)] += 1;
                    }
                    seen
                })
            })
            .collect();
        for round in 0..60 {
            let text = if round % 2 == 0 { CLOSED } else { OPEN };
            std::fs::write(home.path().join("next"), text).expect("written");
            std::fs::rename(home.path().join("next"), home.path().join("a.cedar")).expect("renamed");
            assert!(matches!(handle.reload(&tools), Reloaded::Changed(_)), "round {round}");
            assert!(matches!(handle.reload(&tools), Reloaded::Same), "nothing changed");
        }
        over.store(true, Ordering::Release);
        for thread in asking {
            thread.join().expect("no answer was mixed");
        }
    });
}

#[test]
fn r17_an_invalid_set_is_refused_and_the_old_one_stays() {
    let home = Scratch::new();
    home.put("a.cedar", OPEN.as_bytes());
    let tools = [plain("t0", 1)];
    let handle = PolicyHandle::open(Some(home.path().to_path_buf()), &tools);
    let before = handle.current();
    home.put("b.cedar", b"forbid (principal, action == Action::\"call:t1\", resource);");
    let Reloaded::Refused(findings) = handle.reload(&tools) else { panic!("it names a tool that does not exist") };
    assert!(findings[0].message.contains("no tool is called `t1`"));
    assert!(std::sync::Arc::ptr_eq(&before, &handle.current()));
    assert_eq!(handle.problems().len(), 1);
    let more = [plain("t0", 1), plain("t1", 1)];
    assert!(matches!(handle.reload(&more), Reloaded::Changed(_)), "the tool is there now");
    assert!(handle.problems().is_empty());
}

#[test]
fn t_i1_without_a_valid_set_nobody_may_do_anything() {
    let home = Scratch::new();
    home.put("a.cedar", b"permit (");
    let tools = [plain("t0", 0)];
    let handle = PolicyHandle::open(Some(home.path().to_path_buf()), &tools);
    let around = Circumstances::now(0, Environment::Dev, Mode::Commit);
    let asked = handle.current().judge(
        &principal("acme/ann/bot"),
        &tools[0],
        &Matter { input: Some("{}"), plan: None, around },
    );
    assert!(!asked.allowed());
    assert_eq!(asked.why_not(), "no policy permits it");
    assert_eq!(handle.problems().len(), 1);
}

#[test]
fn t_p7_a_digest_is_that_of_the_policies_of_one_tenant() {
    let tools = [plain("t0", 1)];
    let digests = |own: &str| {
        let policies = set(&[("a.cedar", OPEN), ("acme/own.cedar", own)], &tools).expect("valid");
        let of = |tenant: &str| policies.digest(&tenant.parse().expect("a tenant"));
        (of("acme"), of("globex"))
    };
    let (one, two) = (digests(OPEN), digests(CLOSED));
    assert_ne!(one.0, two.0, "its own policies changed");
    assert_eq!(one.1, two.1, "those of somebody else are none of its business");
    assert_ne!(one.0, one.1);
}
