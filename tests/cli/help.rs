//! Help texts, whole.

use toolkeep_tests::support::scratch::Scratch;

use super::shown::shown;
use crate::doors::running::run;

fn help(arguments: &[&str]) -> String {
    let home = Scratch::new();
    shown(&run(home.path(), arguments, ""), home.path())
}

#[test]
fn the_help_lists_every_command() {
    insta::assert_snapshot!("toolkeep", help(&["--help"]));
}

#[test]
fn verbs_explain_their_options() {
    for noun in ["call", "preview", "commit", "undo", "serve", "doctor", "new"] {
        insta::assert_snapshot!(noun, help(&[noun, "-h"]));
    }
    for (noun, verb) in [("approvals", "approve"), ("tools", "inspect"), ("config", "show"), ("plans", "show")] {
        insta::assert_snapshot!(format!("{noun}_{verb}"), help(&[noun, verb, "-h"]));
    }
}

#[test]
fn nouns_list_their_verbs() {
    for noun in ["approvals", "audit", "config", "deadletters", "plans", "receipts", "runs", "tools"] {
        insta::assert_snapshot!(noun, help(&[noun, "-h"]));
    }
}

#[test]
fn the_compile_worker_is_in_no_help() {
    assert!(!help(&["--help"]).contains("compile-worker"));
    assert!(!help(&["completion", "bash"]).contains("compile-worker"));
}

#[test]
fn pages_are_generated_for_every_shell_and_command() {
    for shell in ["bash", "zsh", "fish"] {
        let script = help(&["completion", shell]);
        assert!(script.starts_with("status 0") && script.contains("approvals"), "{shell}");
    }
    let page = help(&["man", "approvals", "approve"]);
    assert!(page.starts_with("status 0") && page.contains("toolkeep\\-approvals\\-approve"), "{page}");
    assert!(help(&["man", "approvals", "nothing"]).starts_with("status 2"));
}
