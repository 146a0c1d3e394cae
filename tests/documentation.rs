//! What the documentation shows must be true: every manifest in it is a manifest, and every key of a manifest is in it.

use std::path::Path;

use toolkeep::budget::ceiling;
use toolkeep::config::text::ConfigText;
use toolkeep_core::contract::ContractText;
use toolkeep_core::digest::Digest;
use toolkeep_core::manifest::ManifestText;

fn page(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The blocks of a page that are written in TOML.
fn blocks(page: &str) -> Vec<&str> {
    let fenced = page.split("```toml\n").skip(1);
    fenced.map(|rest| rest.split("```").next().expect("an end")).collect()
}

#[test]
fn every_manifest_of_the_reference_is_one_and_grants_what_it_says() {
    let page = page("manifests.md");
    let manifests: Vec<&str> = blocks(&page).into_iter().filter(|block| block.starts_with("format = 1")).collect();
    assert_eq!(manifests.len(), 2);
    for text in &manifests {
        let parsed: ManifestText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        parsed.check(Digest::of(text.as_bytes())).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    let outward: ManifestText = toml::from_str(manifests[1]).expect("manifest");
    let checked = outward.check(Digest::of(b"")).expect("checked");
    assert!(checked.http[0].allows_path("/v1/orders/7") && checked.messages[0].allows("ann@example.com"));
    assert!(checked.keys[0].allows("article/7") && !checked.keys[0].allows("price/7"));
}

#[test]
fn every_manifest_of_the_guide_for_authors_is_one() {
    let page = page("tool-authors.md");
    let manifests: Vec<&str> = blocks(&page).into_iter().filter(|block| block.contains("format = 1")).collect();
    assert_eq!(manifests.len(), 5);
    for text in manifests {
        let parsed: ManifestText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let checked = parsed.check(Digest::of(text.as_bytes())).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(checked.component, format!("{}.wasm", checked.name), "{text}");
    }
}

#[test]
fn the_manifest_of_the_page_about_typed_components_offers_what_the_page_says() {
    let page = page("typed-components.md");
    let [text] = blocks(&page)[..] else { panic!("one manifest") };
    let parsed: ManifestText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let checked = parsed.check(Digest::of(text.as_bytes())).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let names: Vec<String> = checked.functions.iter().map(|offer| format!("{}.{}", checked.name, offer.name)).collect();
    for name in names {
        assert!(page.contains(&format!("`{name}`")), "{name}");
    }
}

#[test]
fn what_the_pages_show_of_limits_is_read_by_manifests_and_the_configuration() {
    let (limits, manifests) = (page("limits.md"), page("manifests.md"));
    let blocks: Vec<&str> = blocks(&limits).into_iter().collect();
    assert!(blocks.len() >= 5, "{blocks:?}");
    let of_manifests = ["[retry]", "fallback", "deterministic"];
    for block in blocks.into_iter().filter(|block| !of_manifests.iter().any(|word| block.contains(word))) {
        toml::from_str::<toolkeep::config::text::ConfigText>(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
    let shown = ["[limits]", "[breaker]", "[retry]", "fallback", "deterministic"];
    let both = self::blocks(&manifests).into_iter().chain(self::blocks(&limits));
    let own = |block: &&str| !block.contains("tool =") && !block.contains("executions");
    for block in both.filter(own).filter(|block| shown.iter().any(|word| block.contains(word))) {
        let head = if block.starts_with("format") {
            ""
        } else {
            "format = 1\nname = \"x\"\ncomponent = \"x.wasm\"\ntier = 0\n"
        };
        let parsed: ManifestText = toml::from_str(&format!("{head}{block}")).unwrap_or_else(|e| panic!("{e}\n{block}"));
        parsed.check(Digest::of(b"")).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
}

#[test]
fn r19_the_contract_of_the_reference_is_one_and_shows_every_key() {
    let page = page("contracts.md");
    let [text] = blocks(&page)[..] else { panic!("one contract") };
    let parsed: ContractText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    let contract = parsed.check(Digest::of(text.as_bytes())).unwrap_or_else(|error| panic!("{error}"));
    assert!(contract.is_for(&"acme".parse().expect("name")) && !contract.is_for(&"other".parse().expect("name")));
    let shown: toml::Table = text.parse().expect("TOML");
    // Written back, a contract has every key that is set: all of them are.
    let whole = toml::Table::try_from(&parsed).expect("TOML");
    assert_eq!(shown, whole, "what is shown is what is read");
    let keys = |section: &str| -> Vec<String> {
        let at = if section.is_empty() {
            Some(&shown)
        } else {
            section.split('.').try_fold(&shown, |table, key| {
                let value = table.get(key)?;
                value.as_table().or_else(|| value.as_array()?.first()?.as_table())
            })
        };
        at.expect(section).keys().cloned().collect()
    };
    for (section, unknown) in [
        ("", "nothing = 1\n"),
        ("budget", "[budget]\nnothing = 1\n"),
        ("loops", "[loops]\nnothing = 1\n"),
        ("gate", "[[gate]]\nnothing = 1\n"),
        ("gate.bind", "[[gate]]\ntool = \"a\"\nafter = [\"b\"]\n[[gate.bind]]\nnothing = 1\n"),
    ] {
        let wrong =
            if section.is_empty() { unknown.to_owned() } else { format!("format = 1\nname = \"a\"\n{unknown}") };
        let error = toml::from_str::<ContractText>(&wrong).expect_err("an unknown key").to_string();
        let (_, expected) = error.split_once("expected ").unwrap_or_else(|| panic!("{error}"));
        for key in expected.lines().next().unwrap_or_default().split('`').skip(1).step_by(2) {
            assert!(keys(section).iter().any(|shown| shown == key), "`{section}.{key}` is not in docs/contracts.md");
        }
    }
}

#[test]
fn r27_what_the_guide_to_budgets_configures_is_a_configuration() {
    let page = page("budgets.md");
    let mut read = 0;
    for text in blocks(&page) {
        if text.starts_with("format = 1") {
            let parsed: ManifestText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let manifest = parsed.check(Digest::of(b"")).expect("a manifest");
            assert_eq!((manifest.price.call, manifest.price.fuel, manifest.price.message), (2_000, 100, 10_000));
        } else {
            let config: ConfigText = toml::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
            assert!(ceiling::check(&config.ceilings).is_ok());
            assert!(config.spike.iter().all(|spike| spike.check().is_ok()));
        }
        read += 1;
    }
    assert_eq!(read, 4);
}

#[test]
fn every_key_of_the_entries_of_a_manifest_is_in_the_reference() {
    let page = page("manifests.md");
    let examples: Vec<toml::Table> = blocks(&page).iter().map(|block| block.parse().expect("TOML")).collect();
    // The schema of an entry is what it writes when every key is set: the example sets all of them.
    let keys = |section: &str| -> Vec<String> {
        let entries = examples.iter().filter_map(|example| example.get(section)?.as_array()?.first()?.as_table());
        entries.flat_map(|entry| entry.keys().cloned()).collect()
    };
    let sections =
        [("http", "proxy"), ("message", "from"), ("keys", "prefix"), ("workspace", "mode"), ("function", "input")];
    for (section, unknown) in sections {
        let shown = keys(section);
        let mut example = examples.iter().find(|example| example.contains_key(section)).expect(section).clone();
        for (key, value) in [("name", "x"), ("component", "x.wasm")] {
            example.entry(key).or_insert(toml::Value::String(value.to_owned()));
        }
        example.entry("format").or_insert(toml::Value::Integer(1));
        let entry = example.get_mut(section).and_then(|list| list.as_array_mut()?.first_mut()?.as_table_mut());
        entry.expect("entry").insert(unknown.to_owned(), toml::Value::Boolean(true));
        let error = example.try_into::<ManifestText>().expect_err("an unknown key").to_string();
        let (_, expected) = error.split_once("expected one of ").unwrap_or_else(|| panic!("{error}"));
        let expected = expected.lines().next().unwrap_or_default();
        for key in expected.split('`').skip(1).step_by(2) {
            assert!(shown.iter().any(|shown| shown == key), "`{section}.{key}` is not in docs/manifests.md");
        }
    }
}

#[test]
fn what_the_pages_show_of_identity_is_read_by_the_configuration() {
    let (identity, operating) = (page("identity.md"), page("operating.md"));
    let texts: Vec<&str> = blocks(&identity).into_iter().chain(blocks(&operating)).collect();
    let mut issuers = 0;
    for block in texts {
        let text = toml::from_str::<toolkeep::config::text::ConfigText>(block);
        let text = text.unwrap_or_else(|error| panic!("{error}\n{block}"));
        for issuer in &text.issuers {
            issuer.check(None).unwrap_or_else(|error| panic!("{error}\n{block}"));
            issuers += 1;
        }
    }
    assert_eq!(issuers, 2);
}
