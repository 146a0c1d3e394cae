//! Environments: own limits, own ledgers, own keys, and everybody told which one it is (R58); and origins that are exact in all
//! of them (R20).

use serde_json::json;
use toolkeep::ambient::Ambient;
use toolkeep::config::{self, Environment, LoadOptions};
use toolkeep::ledger::Class;
use toolkeep_core::tier::Tier;
use toolkeep_tests::support::scratch::Scratch;

use super::world::{Plot, World};
use crate::doors::running::run;

const BASE: &str = "[daemon]\nstate_dir = \"state\"\nruntime_dir = \"run\"\ntools_dir = \"tools\"\n";

fn loaded(home: &Scratch, text: &str) -> Result<config::Loaded, String> {
    home.put("a.toml", text.as_bytes());
    let options = LoadOptions { explicit: Some(home.path().join("a.toml")) };
    config::load(&options, &Ambient::real()).map_err(|error| error.to_string())
}

#[test]
fn r58_an_environment_has_limits_retention_and_directories_of_its_own() {
    let home = Scratch::new();
    let (_, recipient) = toolkeep::vault::keygen(&Ambient::real());
    let common = format!(
        "{BASE}environment = \"NAME\"\n[limits]\nexecutions = 8\nconnections = 9\n[ledger]\nkeep_days = 10\n\
         [retention]\ntier0 = \"7d\"\n[environment.prod.daemon]\nstate_dir = \"prod-state\"\nsolo = false\n\
         [environment.prod.retention]\ntier0 = \"30d\"\n[environment.prod.privacy]\nrecipients = [\"{recipient}\"]\n\
         [environment.prod.limits]\nexecutions = 64\n[environment.prod.ledger]\nkeep_days = 365\n\
         [environment.staging.limits]\nexecutions = 16\n"
    );
    let of = |name: &str| loaded(&home, &common.replace("NAME", name)).expect(name);
    let (dev, staging, prod) = (of("dev"), of("staging"), of("prod"));
    let kept = |loaded: &config::Loaded| loaded.config.retention.age(Class::Tier(Tier::ReadOnly));
    assert_eq!([&dev, &prod].map(kept), [Some(7 * 86_400_000), Some(30 * 86_400_000)]);
    let sealed = |loaded: &config::Loaded| loaded.config.privacy.recipients.is_some();
    assert_eq!([&dev, &prod].map(sealed), [false, true]);
    let limits = |loaded: &config::Loaded| (loaded.config.limits.executions, loaded.config.limits.connections);
    assert_eq!([&dev, &staging, &prod].map(limits), [(8, 9), (16, 9), (64, 9)]);
    assert_eq!(prod.config.ledger.keep_ms, 365 * dev.config.ledger.keep_ms / 10);
    assert_ne!(prod.config.state_dir, dev.config.state_dir);
    assert_eq!(prod.origins["limits.executions"], "[environment.prod.limits]");
    assert_eq!((dev.config.environment, prod.config.environment), (Environment::Dev, Environment::Prod));
    let wrong = [
        "[environment.production.limits]\nexecutions = 1\n",
        "[environment.prod.limits]\nexecutionz = 1\n",
        "[environment.prod.limits]\nexecutions = 0\n",
        "[environment.prod.daemon]\nenvironment = \"dev\"\n",
        "[environment.prod.workspace]\nname = \"a\"\n",
        "[environment]\nprod = 1\n",
    ];
    for more in wrong {
        let refused = loaded(&home, &format!("{BASE}environment = \"prod\"\n{more}"));
        assert!(refused.is_err(), "{more}");
    }
}

#[test]
fn r58_a_ledger_and_its_signing_key_belong_to_one_environment() {
    let mut world = World::of(Plot { daemon: "environment = \"staging\"", limits: "" });
    world.agent().execute("notes.add", json!({"title": "One", "body": "b"})).must("ok", "committed", "");
    assert!(world.stop().success());
    let key = std::fs::read(world.path("state/ledger/signing.key")).expect("the key");
    let text = world.text("toolkeep.toml");
    for other in ["dev", "prod"] {
        world.home.put("toolkeep.toml", text.replace("staging", other).as_bytes());
        let output = run(world.home.path(), &["--config", "toolkeep.toml", "serve"], "");
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && told.contains("`staging`") && told.contains("daemon.state_dir"), "{told}");
    }
    assert_eq!(std::fs::read(world.path("state/ledger/signing.key")).expect("the key"), key);
    world.home.put("toolkeep.toml", text.as_bytes());
    world.start();
    world.verified();
}

#[test]
fn r58_the_environment_is_told_to_policies_operators_agents_and_the_record() {
    let mut world = World::asleep(Plot { daemon: "environment = \"prod\"", limits: "[policy]\ndir = \"policies\"\n" });
    let policies = "permit (principal, action, resource) when { context.environment == \"prod\" };\n\
                    forbid (principal, action, resource == Tool::\"notes.add\") when { context.environment != \"dev\" };\n";
    world.home.put("policies/a.cedar", policies.as_bytes());
    world.start();
    let mut agent = world.agent();
    agent.execute("text-stats", json!({"text": "a"})).must("ok", "none", "");
    agent.execute("notes.add", json!({"title": "One", "body": "b"})).must("denied", "none", "denied");
    assert_eq!(agent.ok("host.info", json!({}))["environment"], "prod");
    assert_eq!(world.admin().ok("health.get", json!({}))["environment"], "prod");
    assert!(world.stop().success());
    let database = std::fs::read(world.path("state/ledger/ledger.sqlite")).expect("the ledger");
    let start = br#""environment":"prod""#;
    assert!(database.windows(start.len()).any(|window| window == start), "the start is on record with it");
}

/// Every place where the operator names an origin, with an origin that is none, in every environment.
#[test]
fn r20_wildcard_origins_are_refused_wherever_one_is_written_and_in_every_environment() {
    let wild = [
        "*",
        "https://*",
        "https://*.example.com",
        "https://api.*.com",
        "https://example.com:*",
        "*://example.com",
        "https://exam*le.com",
        "https://[*]",
        "https://?.example.com",
        "https://.example.com",
        "https://",
        "null",
    ];
    let home = Scratch::new();
    let places = |origin: &str| {
        [
            format!(
                "[secrets.a]\nsource = \"file\"\npath = \"/run/secret\"\norigins = [\"{origin}\"]\nslot = \"bearer\"\n"
            ),
            format!("[channel.a]\nkind = \"webhook\"\nurl = \"{origin}/hook\"\nsecret = \"a\"\n"),
            format!(
                "[[issuer]]\nname = \"a\"\nissuer = \"i\"\naudience = \"t\"\njwks_url = \"{origin}/keys\"\n\
                     tenant = \"local\"\nagent = \"a\"\n"
            ),
        ]
    };
    for environment in ["dev", "staging", "prod"] {
        let head = format!("{BASE}environment = \"{environment}\"\n");
        for good in places("https://api.example.com") {
            loaded(&home, &format!("{head}{good}")).expect(&good);
        }
        for text in wild.iter().flat_map(|origin| places(origin)) {
            assert!(loaded(&home, &format!("{head}{text}")).is_err(), "{environment}: {text}");
        }
    }
    let grant = |origin: &str| {
        let http = json!([{"name": "api", "origin": origin, "methods": ["GET"], "paths": ["/"]}]);
        let text = json!({"format": 1, "name": "a", "component": "a.wasm", "http": http});
        let text: toolkeep_core::manifest::ManifestText = serde_json::from_value(text).expect("a manifest");
        text.check(toolkeep_core::digest::Digest::of(b""))
    };
    for origin in wild {
        assert!(grant(origin).is_err(), "a manifest grants {origin}");
    }
    assert!(grant("https://api.example.com").is_ok(), "{:?}", grant("https://api.example.com").err());
}
