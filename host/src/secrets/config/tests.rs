//! What a secret in the configuration must say, and what it must not.

use super::*;

fn check(text: &str) -> Result<SecretConfig, String> {
    let text: SecretText = toml::from_str(text).map_err(|error| error.message().to_owned())?;
    let (name, local) = ("tickets".parse().expect("a name"), "local".parse().expect("a tenant"));
    text.check(&name, &local).map_err(|error| error.to_string())
}

const BOUND: &str = "origins = [\"https://api.example.com\"]\nslot = \"bearer\"\n";

#[test]
fn every_source_is_read_with_its_own_keys() {
    let file = check(&format!("{BOUND}source = \"file\"\npath = \"/etc/x\"")).expect("valid");
    let origins = vec!["https://api.example.com".parse().expect("an origin")];
    assert_eq!((file.source, file.tenant.as_str()), (Source::File("/etc/x".into()), "local"));
    assert_eq!(file.purpose, SecretPurpose::Requests { origins, slot: Slot::Bearer });
    let systemd = check(&format!("{BOUND}source = \"systemd\"\ntenant = \"acme\"")).expect("valid");
    assert_eq!((systemd.source, systemd.tenant.as_str()), (Source::Systemd("tickets".to_owned()), "acme"));
    let exec =
        check(&format!("{BOUND}source = \"exec\"\ncommand = [\"/bin/a\", \"-b c\"]\ntimeout_s = 60")).expect("valid");
    let (program, arguments, time) = ("/bin/a".into(), vec!["-b c".to_owned()], Duration::from_secs(60));
    assert_eq!(exec.source, Source::Exec { program, arguments, time });
}

#[test]
fn contradictions_are_refused_with_the_key() {
    for (text, says) in [
        ("source = \"file\"", "`secrets.tickets.path`"),
        ("source = \"file\"\npath = \"x\"", "`secrets.tickets.path`"),
        ("source = \"file\"\npath = \"/x\"\ncommand = [\"/x\"]", "`secrets.tickets.command`: the key belongs"),
        ("source = \"file\"\npath = \"/x\"\ntimeout_s = 1", "`secrets.tickets.timeout_s`: the key belongs"),
        ("source = \"systemd\"\npath = \"/x\"", "`secrets.tickets.path`: the key belongs"),
        ("source = \"systemd\"\ncredential = \"../x\"", "`secrets.tickets.credential`"),
        ("source = \"systemd\"\ncredential = \"\"", "`secrets.tickets.credential`"),
        ("source = \"exec\"", "`secrets.tickets.command`"),
        ("source = \"exec\"\ncommand = []", "`secrets.tickets.command`"),
        ("source = \"exec\"\ncommand = [\"pass\"]", "there is no shell"),
        ("source = \"exec\"\ncommand = [\"/x\"]\ntimeout_s = 0", "`secrets.tickets.timeout_s`"),
        ("source = \"exec\"\ncommand = [\"/x\"]\ntimeout_s = 61", "`secrets.tickets.timeout_s`"),
        ("source = \"env\"", "unknown variant `env`"),
        ("source = \"file\"\nvalue = \"hunter2\"", "unknown field `value`"),
    ] {
        let message = check(&format!("{BOUND}{text}")).expect_err(text);
        assert!(message.contains(says), "{message} should contain {says}");
    }
}

#[test]
fn t_n9_a_secret_is_bound_to_exact_origins_that_are_protected() {
    let bound = |origins: &str| check(&format!("origins = [{origins}]\nslot = \"bearer\"\nsource = \"systemd\""));
    for (origins, says) in [
        ("", "name the origins"),
        ("\"*\"", "is not an origin"),
        ("\"https://*.example.com\"", "is not an origin"),
        ("\"https://api.example.com/v1\"", "is not an origin"),
        ("\"http://api.example.com\"", "everybody on the way reads it"),
        ("\"http://10.0.0.1\"", "everybody on the way reads it"),
        ("\"https://a.example\", \"http://b.example\"", "everybody on the way reads it"),
    ] {
        let message = bound(origins).expect_err(origins);
        assert!(message.contains(says), "{message} should contain {says}");
    }
    for origins in
        ["\"https://a.example\", \"https://b.example:8443\"", "\"http://127.0.0.1:80\"", "\"http://localhost\""]
    {
        assert!(bound(origins).is_ok(), "{origins}");
    }
    let many = |n: usize| (0..n).map(|n| format!("\"https://a{n}.example\"")).collect::<Vec<_>>().join(",");
    assert!(bound(&many(ORIGINS_MAX)).is_ok());
    assert!(bound(&many(ORIGINS_MAX + 1)).is_err());
    assert!(check("source = \"systemd\"\nslot = \"bearer\"").expect_err("no origins").contains("origins"));
    assert!(check("source = \"systemd\"\norigins = [\"https://a.example\"]").expect_err("no slot").contains("slot"));
}

#[test]
fn a_secret_is_for_requests_or_for_channels_and_never_for_both() {
    let purpose = |text: &str| check(&format!("source = \"systemd\"\n{text}")).map(|config| config.purpose);
    let mail = vec!["mail".parse().expect("a channel")];
    assert_eq!(purpose("channels = [\"mail\"]"), Ok(SecretPurpose::Channels(mail)));
    for text in ["channels = [\"mail\"]\nslot = \"bearer\"", "channels = [\"mail\"]\norigins = [\"https://a.example\"]"]
    {
        assert!(purpose(text).expect_err(text).contains("for channels or for requests"), "{text}");
    }
    let many = |n: usize| format!("channels = [{}]", (0..n).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(","));
    assert!(purpose(&many(ORIGINS_MAX)).is_ok() && purpose(&many(ORIGINS_MAX + 1)).is_err());
}
