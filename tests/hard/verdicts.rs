//! What `make hard` makes of what proofs say: nothing done is nothing shown, too little is said to be, a name has to be one.

use toolkeep_tests::support::verdict::{cases, chosen, lack, line_of, skipped};

fn said(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

#[test]
fn a_proof_that_did_nothing_or_too_little_is_not_one_that_holds() {
    let of = |n: usize| format!("G1 kills: 0 of {n} (95 % bound 0.1) torn, seed 7; of 858 indices");
    let found = |lines: &[String], floor| lack("g1_", lines, floor);
    assert_eq!(found(&[], 0).as_deref(), Some("it said nothing"));
    for nothing in [of(0), "G1 kills: all is well".to_owned()] {
        assert!(found(&[of(5), nothing.clone()], 1).is_some_and(|why| why.starts_with("it did nothing")), "{nothing}");
    }
    assert_eq!(found(&[of(200)], 200), None);
    let short = found(&[of(199)], 200).expect("one is missing");
    assert!(short.starts_with("short: 199 cases of the 200") && short.contains("PROOFS=g1_"), "{short}");
    assert_eq!(found(&[of(2), of(1)], 3), None, "lines of one proof are added");
}

#[test]
fn lines_of_a_proof_are_found_behind_what_the_harness_writes() {
    let line = "G12 flips: 0 of 155008 (95 % bound 0.00002) missed";
    for text in [line.to_owned(), format!("test a::b::g12_x ... {line}")] {
        assert_eq!(line_of(&text), Some(line));
        assert_eq!(line_of(&text).and_then(cases), Some(155_008));
    }
    for other in ["G12", "Gx y", "test a::b ... ok", "GET / of G1 ", ""] {
        assert_eq!(line_of(other), None, "{other}");
    }
    for text in ["skipped: no mount", "test a::g4_x ... skipped: no mount"] {
        assert_eq!(skipped(text), Some("skipped: no mount"));
    }
    assert_eq!(skipped("it was skipped: twice"), None);
}

#[test]
fn a_name_that_no_proof_has_is_an_error_that_lists_them() {
    let tests = ["hard::kill::g1_", "hard::race::g5_"];
    assert_eq!(chosen(&tests, &[]), Ok(tests.to_vec()));
    assert_eq!(chosen(&tests, &said(&["race"])), Ok(vec![tests[1]]));
    for wrong in [&["typo"][..], &["race", "typo"], &[""]] {
        let refused = chosen(&tests, &said(wrong)).expect_err("no such proof");
        assert!(tests.iter().all(|test| refused.contains(test)), "{refused}");
    }
}
