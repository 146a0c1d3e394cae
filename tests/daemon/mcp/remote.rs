//! Remote mode: what a client is told that has no token, and which statements of an issuer open the door.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::signer::{ISSUER, Signer, issuer, unsigned};
use super::super::world::{Plot, World};
use super::http::{lines, newer, opened, request, say};

/// The resource, as its issuer knows it.
const AUDIENCE: &str = "https://keep.example.com/mcp";

/// A daemon that takes statements of this issuer for this resource, under a name of a proxy, and its port.
fn remote(signer: &Signer) -> (World, u16) {
    let door = "[http]\nlisten = \"127.0.0.1:0\"\nhosts = [\"keep.example.com\"]\n";
    let mut world = World::asleep(Plot { limits: door, ..Plot::default() });
    world.home.put("keys.json", signer.set().as_bytes());
    let issuer = issuer("jwks_file = \"keys.json\"");
    let bound = issuer.replace("audience = \"toolkeep\"", &format!("audience = \"{AUDIENCE}\""));
    assert_ne!(bound, issuer, "its audience is the resource");
    let config = world.text("toolkeep.toml") + &bound;
    world.home.put("toolkeep.toml", config.as_bytes());
    world.start();
    let port = opened(&world);
    (world, port)
}

fn listed(port: u16, token: &str) -> super::http::Answer {
    say(port, "POST /mcp", &newer(port, token, "tools/list", None), &request("tools/list", json!({})))
}

#[test]
fn t_i5_only_a_statement_for_this_very_resource_by_its_issuer_and_of_this_moment_opens_the_door() {
    let (signer, stranger) = (Signer::new("k1"), Signer::new("k1"));
    let (world, port) = remote(&signer);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_secs();
    let with = |mut instead: Value| {
        if instead.get("aud").is_none() {
            instead["aud"] = json!(AUDIENCE);
        }
        signer.statement("local", "alice", "helper", &instead)
    };
    let good = with(json!({}));
    let claims = json!({"iss": ISSUER, "aud": AUDIENCE, "iat": now, "exp": now + 600, "org": "local", "sub": "alice",
        "client": "helper"});
    let (message, signature) = good.rsplit_once('.').expect("a signature");
    let rows = [
        ("right", good.clone(), true),
        ("for this resource among others", with(json!({"aud": ["https://other.example", AUDIENCE]})), true),
        ("for another resource", with(json!({"aud": "https://other.example/mcp"})), false),
        ("for several others", with(json!({"aud": ["https://other.example/mcp", "toolkeep"]})), false),
        ("for nobody", with(json!({"aud": Value::Null})), false),
        ("for an empty list", with(json!({"aud": []})), false),
        ("for the host of this resource", with(json!({"aud": "https://keep.example.com"})), false),
        ("for a longer name", with(json!({"aud": format!("{AUDIENCE}/")})), false),
        ("for this resource in capitals", with(json!({"aud": AUDIENCE.to_uppercase()})), false),
        ("for a number", with(json!({"aud": 7})), false),
        ("for a list of numbers", with(json!({"aud": [7]})), false),
        ("expired", with(json!({"iat": now - 1200, "exp": now - 600})), false),
        ("without an end", with(json!({"exp": Value::Null})), false),
        ("for later", with(json!({"nbf": now + 600})), false),
        ("by another issuer", with(json!({"iss": "https://other.example"})), false),
        ("by nobody", with(json!({"iss": Value::Null})), false),
        ("by a key of somebody else", stranger.statement("local", "alice", "helper", &json!({"aud": AUDIENCE})), false),
        ("of a tenant that it may not name", with(json!({"org": "umbrella"})), false),
        ("about nobody", with(json!({"sub": Value::Null})), false),
        ("with no algorithm", format!("{}.", unsigned(&json!({"alg": "none", "kid": "k1"}), &claims)), false),
        (
            "with no algorithm, signed",
            format!("{}.{signature}", unsigned(&json!({"alg": "none", "kid": "k1"}), &claims)),
            false,
        ),
        (
            "with an algorithm of a secret",
            format!("{}.{signature}", unsigned(&json!({"alg": "HS256", "kid": "k1"}), &claims)),
            false,
        ),
        ("with no signature", format!("{message}."), false),
        ("with two parts", message.to_owned(), false),
        (
            "with claims of another",
            format!("{}.{signature}", unsigned(&json!({"alg": "EdDSA", "kid": "k1"}), &claims)),
            false,
        ),
    ];
    for (what, token, opens) in rows {
        let answer = listed(port, &token);
        assert_eq!(answer.status, if opens { 200 } else { 401 }, "{what}: {answer:?}");
        if !opens {
            assert!(answer.head.contains("error=\"invalid_token\""), "{what}: {answer:?}");
            assert!(answer.head.contains("resource_metadata=\"http://127.0.0.1"), "{what}: {answer:?}");
            assert!(!answer.body.contains(signature), "{what}: nothing of it is repeated: {answer:?}");
        }
    }
    // Where it stands is where it counts: not in the address, a cookie or a body.
    let mut elsewhere = newer(port, "", "tools/list", None);
    elsewhere.retain(|line| !line.starts_with("Authorization"));
    let body = request("tools/list", json!({"access_token": good}));
    for (start, more) in [
        (format!("POST /mcp?access_token={good}"), None),
        ("POST /mcp".to_owned(), Some(format!("Cookie: access_token={good}"))),
        ("POST /mcp".to_owned(), None),
    ] {
        let lines: Vec<String> = elsewhere.iter().cloned().chain(more).collect();
        let answer = say(port, &start, &lines, &body);
        assert_eq!(answer.status, 401, "{start}: {answer:?}");
        assert!(!answer.head.contains("error="), "nothing was shown: {answer:?}");
    }
    world.verified();
}

#[test]
fn r51_the_metadata_names_the_resource_as_it_was_asked_and_who_gives_tokens() {
    let (_world, port) = remote(&Signer::new("k1"));
    let local = format!("127.0.0.1:{port}");
    for path in ["/.well-known/oauth-protected-resource/mcp", "/.well-known/oauth-protected-resource"] {
        for (host, resource) in
            [(local.as_str(), format!("http://{local}/mcp")), ("keep.example.com", AUDIENCE.to_owned())]
        {
            let told = say(port, &format!("GET {path}"), &[format!("Host: {host}")], "");
            assert_eq!(told.status, 200, "{told:?}");
            assert!(told.head.contains("content-type: application/json"), "{told:?}");
            assert_eq!(
                told.json(),
                json!({"resource": resource, "authorization_servers": [ISSUER],
                    "bearer_methods_supported": ["header"], "resource_name": "Toolkeep"})
            );
            let refused = say(port, "POST /mcp", &[format!("Host: {host}")], "");
            let base = resource.trim_end_matches("/mcp");
            let wanted = format!(
                "www-authenticate: bearer resource_metadata=\"{base}/.well-known/oauth-protected-resource/mcp\""
            );
            assert!(refused.status == 401 && refused.head.contains(&wanted), "{refused:?}");
        }
        let foreign = say(port, &format!("GET {path}"), &["Host: evil.example".to_owned()], "");
        assert_eq!(foreign.status, 421, "no name of others is written into it: {foreign:?}");
        assert_eq!(say(port, &format!("POST {path}"), &lines(port, "x"), "").status, 404);
    }
    for path in ["/.well-known/oauth-protected-resource/", "/.well-known/oauth-protected-resource/mcp/x"] {
        assert_eq!(say(port, &format!("GET {path}"), &[format!("Host: {local}")], "").status, 404, "{path}");
    }
}
