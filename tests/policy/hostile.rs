//! Policies that were written to do harm, or by mistake: each is refused with its place, and none takes the process with it.

use std::os::unix::ffi::OsStrExt as _;

use serde_json::json;
use toolkeep::policy::source::{self, FILE_MAX_BYTES, NESTING_MAX};
use toolkeep::policy::{FINDINGS_MAX, Finding, POLICIES_MAX};
use toolkeep_tests::support::scratch::Scratch;

use super::tools::{plain, set, tool};

fn refused(text: &str) -> Vec<Finding> {
    let tools = [plain("t0", 1), tool("pay", 2, &json!({"to": {"type": "string"}}), &json!({"total": "/input/total"}))];
    set(&[("a.cedar", text)], &tools).err().unwrap_or_default()
}

#[test]
fn r17_what_is_wrong_is_told_with_its_place() {
    for (text, place, says) in [
        (
            "permit(principal, action, resource);\n\npermit(principal, action resource);",
            "a.cedar:3:26",
            "unexpected token",
        ),
        ("permit(principal, action, resource) when { context.mod == \"x\" };", "a.cedar:1:", "mod"),
        ("permit(principal, action, resource)\nwhen { context.input.to == \"x\" };", "a.cedar:2:", "input"),
        (
            "permit(principal, action == Action::\"call:pay\", resource) when { context.input.to > 3 };",
            "a.cedar:1:",
            "Long",
        ),
        (
            "permit(principal, action == Action::\"call:pay\", resource) when { context.input.to == \"x\" };",
            "a.cedar:1:",
            "optional",
        ),
        ("// one\n@aprovers(\"2\") permit(principal, action, resource);", "a.cedar:2:1", "`@aprovers` is not known"),
        ("\npermit(principal, action == Action::\"call:pya\", resource);", "a.cedar:2", "no tool is called `pya`"),
        ("\nforbid(principal, action, resource == Tool::\"pya\");", "a.cedar:2", "no tool is called `pya`"),
        ("forbid(principal, action == Action::\"call\", resource);", "a.cedar:1", "can never match"),
        ("forbid(principal, action, resource) when { false };", "a.cedar:1", "can never match"),
        ("permit(principal == ?principal, action, resource);", "a.cedar:1:1", "is a template"),
        ("permit(principal in Robot::\"x\", action, resource);", "a.cedar:1", "Robot"),
        (
            "@id(\"x\") permit(principal, action, resource);\n@id(\"x\") forbid(principal, action, resource);",
            "a.cedar:2",
            "too",
        ),
    ] {
        let findings = refused(text);
        let shown: Vec<String> = findings.iter().map(ToString::to_string).collect();
        assert!(shown.iter().any(|finding| finding.starts_with(place) && finding.contains(says)), "{text}: {shown:?}");
    }
    assert!(
        refused("permit(principal, action, resource); permit(principal, action, resource);").is_empty(),
        "one line"
    );
}

#[test]
fn t_n1_a_policy_that_guards_an_optional_member_may_use_it() {
    let guarded = "permit(principal, action == Action::\"commit:pay\", resource)\n\
                   when { context.amounts has total && context.amounts.total.lessThan(decimal(\"100.0\")) };";
    assert_eq!(refused(guarded), []);
}

#[test]
fn t_i10_huge_and_deep_policies_are_refused_and_the_process_lives() {
    let around = |condition: &str| format!("permit(principal, action, resource) when {{ {condition} }};");
    let many = |count: usize, text: &str| text.repeat(count);
    let half = FILE_MAX_BYTES / 2;
    for text in [
        around(&format!("{}true{}", many(NESTING_MAX + 1, "("), many(NESTING_MAX + 1, ")"))),
        around(&format!("{}true{}", many(half, "("), many(half, ")"))),
        around(&many(half, "[")),
        around(&format!("{}true", many(half / 8, "true && "))),
        around(&format!("1{} == 1", many(half / 4, " + 1"))),
        around(&format!("context{}", many(half / 4, ".run"))),
        around(&format!("{}true", many(half / 32, "if true then true else "))),
        around(&format!("{}true", many(half, "!"))),
        around(&format!("{}1 == 1", many(half, "-"))),
        around(&format!("context has {}run", many(half / 4, "run."))),
        many(half / 40, "permit(principal, action, resource) when"),
        format!("permit(principal, action in [{}], resource);", many(half / 30, "Action::\"call:missing\", ")),
        format!("@id(\"{}\") permit(principal, action, resource);", many(half, "x")),
        many(FILE_MAX_BYTES + 1, " "),
        "\"".to_owned() + &many(half, "\\\""),
    ] {
        let head: String = text.chars().take(80).collect();
        let findings = refused(&text);
        assert!(!findings.is_empty() && findings.len() <= FINDINGS_MAX, "{head}: {}", findings.len());
        assert!(findings.iter().all(|finding| finding.to_string().len() < 4 * FILE_MAX_BYTES), "{head}");
    }
}

#[test]
fn t_i10_a_set_has_at_most_ten_thousand_policies() {
    let texts = |count: usize| "permit(principal,action,resource);\n".repeat(count);
    let files: Vec<(String, String)> = (0..2).map(|at| (format!("f{at}.cedar"), texts(POLICIES_MAX / 2))).collect();
    let named = |files: &[(String, String)]| {
        let files: Vec<(&str, &str)> = files.iter().map(|(name, text)| (name.as_str(), text.as_str())).collect();
        set(&files, &[plain("t0", 1)]).map(|policies| policies.count()).ok()
    };
    assert_eq!(named(&files), Some(POLICIES_MAX));
    let more = [files.as_slice(), &[("one.cedar".to_owned(), texts(1))]].concat();
    assert_eq!(named(&more), None);
}

#[test]
fn files_that_are_no_policies_are_told_apart() {
    let home = Scratch::new();
    let read = || source::read(home.path());
    assert!(read().expect_err("empty")[0].message.contains("nobody could do anything"));
    home.put("a.cedar", b"permit(principal, action, resource);");
    home.put("notes.txt", b"\xff");
    home.put(".hidden.cedar", b"\xff");
    assert_eq!(read().expect("one file").len(), 1);
    home.put("acme/a.cedar", b"// nothing");
    assert_eq!(read().expect("two files").iter().filter(|source| source.tenant.is_some()).count(), 1);
    home.put("b.cedar", b"// ok\n// \xff");
    let found = read().expect_err("not text");
    assert_eq!(found[0].to_string(), "b.cedar:2:4: is not UTF-8");
    home.put("b.cedar", &vec![b' '; FILE_MAX_BYTES + 1]);
    assert!(read().expect_err("too large")[0].message.contains("is larger than"));
    std::fs::remove_file(home.path().join("b.cedar")).expect("removed");
    let strange = home.path().join(std::ffi::OsStr::from_bytes(b"\xff.cedar"));
    std::fs::write(strange, "permit").expect("written");
    assert_eq!(read().expect("a name that is no text is none").len(), 2);
    home.put("Not a tenant/a.cedar", b"// nothing");
    assert!(read().expect_err("a folder")[0].message.contains("not named like a tenant"));
    assert!(source::read(&home.path().join("missing")).expect_err("missing")[0].message.contains("cannot be read"));
}
