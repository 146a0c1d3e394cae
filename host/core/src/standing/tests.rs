//! What a standing approval covers, at the edge of each of its parts, and what it never covers unsaid.

use serde_json::{Value, json};

use super::*;
use crate::digest::Digest;
use crate::effect::{BodyState, Delivery, FileState, HttpEffect, MessageEffect, Reversal};

fn text() -> Value {
    json!({"tool": "report", "kinds": ["file.write"], "paths": ["books:reports/**"], "max_effects": 2, "max_bytes": 10})
}

fn standing(edit: impl FnOnce(&mut Value)) -> Result<Standing, String> {
    let mut value = text();
    edit(&mut value);
    let text: StandingText = serde_json::from_value(value).map_err(|error| error.to_string())?;
    text.check().map_err(|error| error.to_string())
}

fn file(path: &str, size: u64) -> Effect {
    Effect::FileWrite {
        workspace: "books".parse().expect("name"),
        path: path.parse().expect("path"),
        before: None,
        after: FileState { sha256: Digest::of(b"x"), size, mode: 0o644 },
    }
}

fn request(method: &str, url: &str) -> Effect {
    Effect::HttpRequest(HttpEffect {
        grant: "api".parse().expect("name"),
        method: method.to_owned(),
        url: url.to_owned(),
        headers: Vec::new(),
        credential: None,
        body: None,
        delivery: Delivery::Staged,
        reversal: Reversal::Reversible,
    })
}

fn message(channel: &str) -> Effect {
    Effect::MessageSend(MessageEffect {
        channel: channel.parse().expect("name"),
        to: Vec::new(),
        subject: String::new(),
        media_type: "text/plain".to_owned(),
        body: BodyState::of(b"x"),
    })
}

fn principal() -> Principal {
    Principal {
        tenant: "acme".parse().expect("name"),
        user: "ann".parse().expect("name"),
        agent: "bot".parse().expect("name"),
    }
}

/// Whether it covers effects of the tool `report`, tier 2, without taint.
fn covers(standing: &Standing, effects: &[Effect]) -> Result<(), String> {
    offered(standing, effects, |_| ())
}

fn offered(standing: &Standing, effects: &[Effect], edit: impl FnOnce(&mut Offer<'_>)) -> Result<(), String> {
    let (principal, tool, amounts) = (principal(), "report".parse().expect("name"), BTreeMap::new());
    let mut offer = Offer {
        principal: &principal,
        tool: &tool,
        declared: Tier::Consequential,
        effects,
        amounts: &amounts,
        taint: Taint::NONE,
    };
    edit(&mut offer);
    standing.covers(&offer)
}

#[test]
fn t_p6_every_effect_has_to_be_named_by_kind_and_place_and_within_its_size() {
    let plain = standing(|_| ()).expect("standing");
    assert_eq!(covers(&plain, &[file("reports/a.md", 5), file("reports/b/c.md", 5)]), Ok(()));
    for (effects, says) in [
        (vec![file("reports/a", 5), file("reports/b", 6)], "11 bytes"),
        (vec![file("reports/a", 1), file("reports/b", 1), file("reports/c", 1)], "3 effects"),
        (vec![file("reports/a", 1), file("ledger/a", 1)], "`ledger/a`"),
        (vec![message("mail")], "`message.send`"),
        (vec![file("reports/.git/hooks/x", 1)], "sensitive"),
    ] {
        let refused = covers(&plain, &effects).expect_err(says);
        assert!(refused.contains(says), "{refused}");
    }
    let elsewhere = Effect::DirCreate { workspace: "src".parse().expect("n"), path: "reports/x".parse().expect("p") };
    assert!(covers(&plain, &[elsewhere]).is_err());
}

#[test]
fn t_p6_a_name_of_a_tool_is_never_enough() {
    for (edit, says) in [
        ((|v| v["kinds"] = json!([])) as fn(&mut Value), "`kinds`"),
        (|v| v["kinds"] = json!(["file.burn"]), "no kind"),
        (|v| v["paths"] = json!([]), "`paths`"),
        (|v| v["paths"] = json!(["reports/**"]), "workspace:pattern"),
        (|v| v["paths"] = json!(["books:../x"]), "`paths`"),
        (|v| v["origins"] = json!(["https://a.example"]), "`origins`"),
        (|v| v["kinds"] = json!(["http.request"]), "`paths`"),
        (|v| v["max_effects"] = json!(0), "`max_effects`"),
        (|v| v["max_effects"] = json!(EFFECTS_MAX + 1), "`max_effects`"),
        (|v| v["max_amounts"] = json!({"total": "-1"}), "`max_amounts`"),
        (|v| v["max_amounts"] = json!({"total": "1.23456"}), "`max_amounts`"),
        (|v| drop(v.as_object_mut().expect("object").remove("max_bytes")), "max_bytes"),
        (|v| v["anything"] = json!(true), "unknown field"),
    ] {
        let refused = standing(edit).map(|_| ()).expect_err(says);
        assert!(refused.contains(says), "{refused}");
    }
    let many = |n: usize| standing(|v| v["paths"] = json!(vec!["books:a"; n])).is_ok();
    assert!(many(ENTRIES_MAX) && !many(ENTRIES_MAX + 1));
    assert!(standing(|v| v["max_effects"] = json!(EFFECTS_MAX)).is_ok());
    assert!(standing(|v| v["kinds"] = json!(["dir.create"])).is_ok(), "directories are places too");
}

#[test]
fn requests_messages_and_keys_are_covered_by_origin_method_channel_and_bucket() {
    let web = standing(|v| {
        *v = json!({"tool": "report", "kinds": ["http.request", "message.send"], "methods": ["POST"],
            "origins": ["https://api.example.com"], "channels": ["mail"], "max_effects": 9, "max_bytes": 99});
    })
    .expect("standing");
    assert_eq!(covers(&web, &[request("POST", "https://api.example.com/a?b=c"), message("mail")]), Ok(()));
    assert_eq!(covers(&web, &[request("POST", "https://API.example.com:443/a")]), Ok(()), "one normal form");
    for wrong in [
        request("DELETE", "https://api.example.com/a"),
        request("POST", "http://api.example.com/a"),
        request("POST", "https://api.example.com:8443/a"),
        request("POST", "https://api.example.com.evil.example/"),
        request("POST", "https://api.example.com@evil.example/"),
        request("POST", "no url"),
        message("pager"),
    ] {
        assert!(covers(&web, std::slice::from_ref(&wrong)).is_err(), "{wrong:?}");
    }
}

#[test]
fn tier_3_sensitive_paths_and_tainted_runs_are_covered_only_where_it_says_so() {
    let plain = standing(|_| ()).expect("standing");
    let effects = [file("reports/a", 1)];
    assert!(offered(&plain, &effects, |offer| offer.declared = Tier::Irreversible).is_err());
    assert!(offered(&plain, &effects, |offer| offer.taint = Taint::UNTRUSTED).is_err());
    assert_eq!(offered(&plain, &effects, |offer| offer.taint = Taint::PRIVATE), Ok(()));
    assert_eq!(plain.people(), 1);
    let wide = standing(|v| {
        for word in ["sensitive", "irreversible", "tainted"] {
            v[word] = json!(true);
        }
    })
    .expect("standing");
    let hook = [file("reports/.git/hooks/x", 1)];
    let all = |offer: &mut Offer<'_>| (offer.declared, offer.taint) = (Tier::Irreversible, Taint::UNTRUSTED);
    assert_eq!(offered(&wide, &hook, all), Ok(()));
    assert_eq!(wide.people(), 2, "two people make it");
    let tainted = standing(|v| v["tainted"] = json!(true)).expect("standing");
    assert_eq!(tainted.people(), 1);
}

#[test]
fn who_acts_and_how_much_it_is_about_is_compared_exactly() {
    let own = standing(|v| (v["agent"], v["user"]) = (json!("bot"), json!("ann"))).expect("standing");
    let effects = [file("reports/a", 1)];
    assert_eq!(covers(&own, &effects), Ok(()));
    for other in ["agent", "user"] {
        let other = standing(|v| v[other] = json!("zoe")).expect("standing");
        assert!(covers(&other, &effects).is_err());
    }
    let elsewhere = standing(|v| v["tool"] = json!("mailer")).expect("standing");
    assert!(covers(&elsewhere, &effects).is_err());
    let paid = standing(|v| v["max_amounts"] = json!({"total": "99.99"})).expect("standing");
    for (amount, fits) in
        [("99.99", true), ("100", false), ("0", true), ("-1", false), ("99.9901", false), ("x", false)]
    {
        let amounts = BTreeMap::from([("total".to_owned(), amount.to_owned())]);
        let principal = principal();
        let tool = "report".parse().expect("name");
        let offer = Offer {
            principal: &principal,
            tool: &tool,
            declared: Tier::Consequential,
            effects: &effects,
            amounts: &amounts,
            taint: Taint::NONE,
        };
        assert_eq!(paid.covers(&offer).is_ok(), fits, "{amount}");
    }
    assert!(covers(&paid, &effects).is_err(), "an amount that is not there is not covered");
}

#[test]
fn decimals_are_read_exactly_or_not_at_all() {
    for (text, wanted) in [
        ("0", Some(0)),
        ("12.5", Some(125_000)),
        ("-0.0001", Some(-1)),
        ("999999999999999.9999", Some(9_999_999_999_999_999_999)),
        ("1e3", None),
        ("", None),
        (".5", None),
        ("1.", None),
        ("1.00001", None),
        ("1000000000000000", None),
    ] {
        assert_eq!(ten_thousandths(text), wanted, "{text}");
    }
}
