//! Manifests that are taken, and what is wrong with others, by key.

use super::*;
use serde_json::{Value, json};

fn check(edit: impl FnOnce(&mut Value)) -> Result<Manifest, String> {
    let mut value = json!({"format": 1, "name": "report", "component": "report.wasm", "tier": 1,
        "workspace": [{"name": "books", "access": "write", "write": ["reports/**"]}]});
    edit(&mut value);
    let text: ManifestText = serde_json::from_value(value).map_err(|e| e.to_string())?;
    text.check(Digest::of(b"")).map_err(|e| e.to_string())
}

#[test]
fn r21_a_manifest_without_a_tier_is_tier_3() {
    assert_eq!(check(|_| ()).expect("valid").tier, Tier::Reversible);
    let untiered = check(|v| {
        v.as_object_mut().expect("object").remove("tier");
    });
    assert_eq!(untiered.expect("valid").tier, Tier::Irreversible);
}

#[test]
fn contradictions_and_unknown_keys_are_refused_with_the_key() {
    for (edit, says) in [
        ((|v| v["format"] = json!(2)) as fn(&mut Value), "`format`"),
        (|v| v["price"] = json!({"call_usd": "-1"}), "is not an amount"),
        (|v| v["tier"] = json!(0), "`tier`: tier 0 is read-only"),
        (|v| v["tier"] = json!(4), "not a risk tier"),
        (|v| v["workspace"][0]["access"] = json!("read"), "`workspace.books.write`"),
        (|v| v["workspace"][0]["write"] = json!(["../x"]), "`workspace.books.write`"),
        (|v| v["workspace"][0]["sensitive"] = json!(["all"]), "`all` is not a class"),
        (|v| v["network"] = json!(true), "unknown field `network`"),
        (|v| v["http"] = json!(vec![json!({"name": "a", "origin": "https://o.example"}); 2]), "granted twice"),
        (|v| v["limits"] = json!({"fule": 1}), "unknown field `fule`"),
        (|v| v["plan_ttl_s"] = json!(0), "`plan_ttl_s`"),
        (|v| v["hold"] = json!(["file.burn"]), "`file.burn` is not an effect kind"),
        (|v| v["amounts"] = json!({"Total": "/input/total"}), "`amounts.Total`"),
        (|v| v["amounts"] = json!({"total": "/total"}), "`amounts.total`"),
        (|v| v["amounts"] = json!({"total": "/input"}), "`amounts.total`"),
        (|v| v["name"] = json!("Report"), "is not a tool name"),
    ] {
        let message = check(edit).map(|_| ()).expect_err(says);
        assert!(message.contains(says), "{message} should contain {says}");
    }
}

#[test]
fn sixteen_amounts_are_taken_and_seventeen_are_not() {
    let named = |n: usize| {
        let amounts: BTreeMap<_, _> = (0..n).map(|at| (format!("a{at}"), format!("/input/{at}"))).collect();
        check(|v| v["amounts"] = json!(amounts)).map(|manifest| manifest.amounts.len()).ok()
    };
    assert_eq!((named(AMOUNTS_MAX), named(AMOUNTS_MAX + 1)), (Some(AMOUNTS_MAX), None));
}

#[test]
fn every_limit_holds_at_its_ceiling_and_one_above() {
    let most = serde_json::to_value(ExecutionLimits::CEILING).expect("json");
    for (key, ceiling) in most.as_object().expect("object") {
        let at = |value: u64| check(|v| v["limits"] = json!({key.clone(): value})).is_ok();
        let ceiling = ceiling.as_u64().expect("number");
        assert!(at(ceiling), "{key} at {ceiling}");
        assert!(!at(ceiling + 1), "{key} above {ceiling}");
        assert_eq!(at(0), key == "recording_bytes", "{key} at 0");
    }
}

#[test]
fn r14_functions_have_names_of_their_own_and_are_bounded() {
    let function = |export: &str| json!({"export": export, "what": "w"});
    let with = |functions: Vec<Value>| check(|v| v["function"] = json!(functions));
    let names = |functions: Vec<Value>| {
        let offers = with(functions).expect("valid").functions;
        offers.iter().map(|offer| offer.name.to_string()).collect::<Vec<_>>()
    };
    let mut named = function("a:b/c@2.0.0#f");
    named["name"] = json!("newer");
    assert_eq!(names(vec![function("a:b/c@1.0.0#f"), function("f"), named]), ["c.f", "f", "newer"]);
    for (functions, says) in [
        (vec![function("a:b/c@1.0.0#f"), function("a:b/c@2.0.0#f")], "give one of them a `name`"),
        (vec![function("f"), function("f")], "is listed twice"),
        (vec![function("a b")], "names no function"),
        (vec![function(&format!("a:b/{}#f", "c".repeat(64)))], "set it"),
        (vec![json!({"export": "f", "effects": ["file.burn"]})], "not an effect kind"),
        (vec![json!({"what": "w"})], "missing field `export`"),
    ] {
        let told = with(functions).expect_err(says);
        assert!(told.contains(says), "{told}");
    }
    let many = |count: usize| with((0..count).map(|at| function(&format!("f{at}"))).collect()).is_ok();
    assert_eq!((many(64), many(65)), (true, false));
}
