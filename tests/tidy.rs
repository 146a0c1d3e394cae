//! The repository's own rules, checked like any other behaviour: layout, dependencies, who may use what, sizes, names,
//! documentation, requirements. Each rule is a function from the repository's text to a list of offences, so that the
//! tests can also show every rule an offence and see it found.
//!
//! `TOOLKEEP_BLESS=1 cargo test -p toolkeep-tests tidy` rewrites what is generated (`docs/requirements.md`).

mod boundaries;
mod documents;
mod layout;
mod offences;
mod repository;
mod requirements;
mod source;
mod style;

use repository::Repository;

/// A rule: what it is called, and what it finds.
type Rule = (&'static str, fn(&Repository) -> Vec<String>);

/// Every rule.
const RULES: &[Rule] = &[
    ("top level", layout::top_level),
    ("names", layout::names),
    ("no forgotten file", layout::no_forgotten_file),
    ("crate dependencies", boundaries::crate_dependencies),
    ("who names which crate", boundaries::crates_named),
    ("ambient authority", boundaries::ambient_authority),
    ("stages", boundaries::stages),
    ("wire formats and terminals", boundaries::wire_words),
    ("sizes", style::sizes),
    ("module documentation", style::module_docs),
    ("hygiene", style::hygiene),
    ("disallowed methods", style::disallowed_methods),
    ("requirements have tests", requirements::have_tests),
    ("requirements page is current", requirements::page_is_current),
    ("hostile tools have tests", documents::hostile_tools_have_tests),
    ("error codes are documented", documents::error_codes),
    ("the map lists every file once", documents::architecture_map),
];

fn check(name: &str) {
    let (_, rule) = RULES.iter().find(|(rule, _)| *rule == name).expect("a rule of this name");
    let found = rule(&Repository::open());
    assert!(found.is_empty(), "\n{name}: {} offence(s)\n  {}\n", found.len(), found.join("\n  "));
}

macro_rules! tidy_tests {
    ($($test:ident: $rule:literal;)*) => {
        $(#[test] fn $test() { check($rule); })*

        #[test]
        fn every_rule_is_checked() {
            let checked = [$($rule),*];
            let rules: Vec<&str> = RULES.iter().map(|(name, _)| *name).collect();
            assert_eq!(checked.as_slice(), rules.as_slice());
        }
    };
}

tidy_tests! {
    only_known_names_stand_at_the_top_level: "top level";
    names_say_what_a_file_is: "names";
    every_source_file_is_compiled: "no forgotten file";
    crates_depend_in_one_direction: "crate dependencies";
    only_their_owners_name_wasmtime_rusqlite_and_anyhow: "who names which crate";
    only_ambient_reads_clock_randomness_and_environment: "ambient authority";
    only_the_call_runs_stages: "stages";
    only_daemon_and_cli_know_wire_formats_and_terminals: "wire formats and terminals";
    files_and_functions_are_short: "sizes";
    every_file_says_why_it_exists: "module documentation";
    nothing_is_silenced_or_left_for_later: "hygiene";
    ambient_methods_are_disallowed: "disallowed methods";
    every_finished_requirement_has_a_test: "requirements have tests";
    the_page_of_requirements_is_current: "requirements page is current";
    every_hostile_tool_is_turned_loose_by_a_test: "hostile tools have tests";
    every_error_code_is_documented: "error codes are documented";
    the_architecture_lists_every_file_once: "the map lists every file once";
}

#[test]
fn every_rule_finds_its_own_offence() {
    for (name, rule) in RULES {
        let samples: Vec<_> = offences::OFFENCES.iter().filter(|offence| offence.rule == *name).collect();
        assert!(!samples.is_empty(), "no sample for the rule `{name}`");
        for offence in samples {
            let found = rule(&offence.repository());
            assert!(
                found.iter().any(|line| line.contains(offence.says)),
                "`{name}` misses {}: {:?} (found {found:?})",
                offence.path,
                offence.text
            );
        }
    }
}
