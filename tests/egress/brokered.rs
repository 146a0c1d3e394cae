//! Secrets: where they come from, the one place that they go to, and that no answer brings them back (T-N9, T-S1, G15).

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::sync::Arc;

use toolkeep::ambient::Ambient;
use toolkeep::egress::{Answer, Cut, Egress, EgressConfig, Incoming, Limits, Outgoing, Reason, Resolver, Script};
use toolkeep::secrets::config::SecretText;
use toolkeep::secrets::{SecretError, Secrets};
use toolkeep_core::net::field::FieldRule;
use toolkeep_tests::support::scratch::Scratch;

use super::echo::{self, spelled};
use super::peer::{Peer, ok};
use super::world::{get, not_sent, post, send, unknown, with_fields};

/// An egress with the secret `key` as the text says, and an environment.
fn egress(text: &str, vars: &[(&str, &str)]) -> Egress {
    let text: SecretText = toml::from_str(text).expect("a secret");
    let name = "key".parse().expect("a name");
    let config = text.check(&name, &"local".parse().expect("a tenant")).expect("valid");
    let vars = vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    let secrets = Secrets::new(BTreeMap::from([(name, config)]), Ambient::fixed(0, 0, vars));
    let here = vec![Answer::Addresses(vec!["127.0.0.1".parse().expect("an address")])];
    let script = Script::new([("localhost".to_owned(), here)]);
    Egress::new(&EgressConfig::default(), Resolver::scripted(Arc::new(script)), secrets).expect("an egress")
}

/// A secret in a file of a directory.
struct File {
    scratch: Scratch,
}

impl File {
    fn new(content: impl AsRef<[u8]>) -> Self {
        let file = Self { scratch: Scratch::new() };
        file.put(content);
        file
    }

    fn put(&self, content: impl AsRef<[u8]>) {
        self.scratch.put("key", content.as_ref());
        fs::set_permissions(self.scratch.path().join("key"), Permissions::from_mode(0o600)).expect("mode");
    }

    fn text(&self, origin: &str, slot: &str) -> String {
        let path = self.scratch.path().join("key");
        format!("source = \"file\"\npath = \"{}\"\norigins = [\"{origin}\"]\nslot = \"{slot}\"", path.display())
    }
}

fn with_key(request: Outgoing) -> Outgoing {
    Outgoing { secrets: vec!["key".parse().expect("a name")], ..request }
}

/// What is sent of the secret `key`: the value of its field.
async fn sent(egress: &Egress, peer: &Peer, field: &str) -> String {
    send(egress, with_key(get(&peer.origin()))).await.expect("an answer");
    let request = String::from_utf8(peer.requests().pop().expect("a request")).expect("text");
    let value = request.lines().find_map(|line| line.strip_prefix(&format!("{field}: ")));
    value.unwrap_or_else(|| panic!("no {field} in {request}")).to_owned()
}

/// Why the secret is not sent.
async fn why(egress: &Egress, origin: &str) -> Reason {
    not_sent(egress, with_key(get(origin)), Limits::default()).await
}

#[tokio::test]
async fn r48_a_secret_is_put_into_its_slot_by_the_host() {
    let peer = Peer::saying(ok("x"));
    for (value, slot, field, wanted) in [
        ("token-12345", "bearer", "authorization", "Bearer token-12345"),
        ("user:password", "basic", "authorization", "Basic dXNlcjpwYXNzd29yZA=="),
        ("token-12345\n", "header:X-Api-Key", "x-api-key", "token-12345"),
        ("sid=token-12345", "header:cookie", "cookie", "sid=token-12345"),
    ] {
        let file = File::new(value);
        let egress = egress(&file.text(&peer.origin(), slot), &[]);
        assert_eq!(sent(&egress, &peer, field).await, wanted);
    }
}

#[tokio::test]
async fn t_n9_a_secret_goes_to_its_own_origin_and_tenant_only() {
    let (peer, canary) = (Peer::saying(ok("x")), Peer::saying(ok("x")));
    let file = File::new("token-12345");
    let egress = egress(&file.text(&peer.origin(), "bearer"), &[]);
    let port = peer.address().port();
    // Another port, another name for the same address, another scheme.
    for origin in [canary.origin(), format!("http://localhost:{port}"), format!("https://127.0.0.1:{port}")] {
        let reason = why(&egress, &origin).await;
        assert!(matches!(reason, Reason::Secret(SecretError::Origin { .. })), "{origin}: {reason:?}");
    }
    let foreign = Outgoing { tenant: "other".parse().expect("a tenant"), ..with_key(get(&peer.origin())) };
    let reason = not_sent(&egress, foreign, Limits::default()).await;
    let missing = Outgoing { secrets: vec!["nokey".parse().expect("a name")], ..get(&peer.origin()) };
    let unknown = not_sent(&egress, missing, Limits::default()).await;
    assert_eq!(reason, Reason::Secret(SecretError::Unknown("key".parse().expect("a name"))));
    assert_eq!(unknown, Reason::Secret(SecretError::Unknown("nokey".parse().expect("a name"))));
    assert_eq!((peer.connections(), canary.connections()), (0, 0));

    let redirects =
        Peer::saying(format!("HTTP/1.1 307 Go\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", canary.origin()));
    let file = File::new("token-12345");
    let bound = self::egress(&file.text(&redirects.origin(), "bearer"), &[]);
    let answer = send(&bound, with_key(post(&redirects.origin(), "x"))).await.expect("the redirect itself");
    assert_eq!((answer.status, canary.connections()), (307, 0));
}

#[tokio::test]
async fn a_rotated_secret_is_in_force_with_the_next_request() {
    let peer = Peer::saying(ok("x"));
    let file = File::new("first-token");
    let egress = egress(&file.text(&peer.origin(), "bearer"), &[]);
    assert_eq!(sent(&egress, &peer, "authorization").await, "Bearer first-token");
    file.put("second-token");
    assert_eq!(sent(&egress, &peer, "authorization").await, "Bearer second-token");
    file.put("");
    let reason = why(&egress, &peer.origin()).await;
    assert_eq!(reason, Reason::Secret(SecretError::Unreadable("key".parse().expect("a name"))));
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn t_s1_a_file_that_others_can_use_is_refused_with_what_to_do() {
    let file = File::new("token-12345");
    let path = file.scratch.path().join("key");
    let text = file.text("https://api.example.com", "bearer");
    let problem = async || {
        let problems = egress(&text, &[]).secrets().problems().await;
        problems.first().map(|(_, problem)| problem.to_string())
    };
    for mode in [0o600, 0o400] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
        assert_eq!(problem().await, None, "{mode:o}");
    }
    for mode in [0o640, 0o604, 0o660, 0o606, 0o644, 0o601, 0o620, 0o666] {
        fs::set_permissions(&path, Permissions::from_mode(mode)).expect("mode");
        let problem = problem().await.expect("a problem");
        assert!(problem.contains(&format!("mode {mode:04o}")) && problem.contains("chmod 0600"), "{problem}");
    }
    let replaced = |make: &dyn Fn()| {
        let _gone = fs::remove_file(&path).or_else(|_| fs::remove_dir(&path));
        make();
    };
    replaced(&|| {
        fs::write(file.scratch.path().join("real"), "token-12345").expect("file");
        symlink("real", &path).expect("link");
    });
    assert!(problem().await.expect("a link").contains("is not a regular file"));
    replaced(&|| fs::create_dir(&path).expect("directory"));
    assert!(problem().await.expect("a directory").contains("is not a regular file"));
    replaced(&|| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, mode, 0).expect("pipe");
    });
    assert!(problem().await.expect("a pipe").contains("is not a regular file"));
    replaced(&|| ());
    assert!(problem().await.expect("nothing").contains("No such file"));
    for (content, says) in [
        (Vec::new(), "blank"),
        (b"short".to_vec(), "shorter"),
        (vec![b'a'; 16 * 1024 + 1], "longer"),
        (vec![b'a'; 10 << 20], "longer"),
        (b"two\nlines".to_vec(), "line break"),
        (vec![0xff; 20], "beyond ASCII"),
    ] {
        file.put(content);
        assert!(problem().await.expect(says).contains(says), "{says}");
    }
}

#[tokio::test]
async fn a_credential_of_systemd_is_read_from_its_directory() {
    let peer = Peer::saying(ok("x"));
    let file = File::new("token-12345");
    let folder = file.scratch.path().to_str().expect("a path");
    let text = format!("source = \"systemd\"\norigins = [\"{}\"]\nslot = \"bearer\"", peer.origin());
    let bound = egress(&text, &[("CREDENTIALS_DIRECTORY", folder)]);
    assert_eq!(sent(&bound, &peer, "authorization").await, "Bearer token-12345");
    let problems = egress(&text, &[]).secrets().problems().await;
    assert!(problems.first().expect("one").1.to_string().contains("LoadCredential=key:PATH"));
}

#[tokio::test]
async fn a_helper_runs_without_shell_environment_or_input_and_within_its_bounds() {
    let exec = |arguments: &str| {
        format!(
            "source = \"exec\"\ncommand = [\"/bin/sh\", \"-c\", {arguments}]\ntimeout_s = 1\norigins = [\"http://localhost\"]\nslot = \"bearer\""
        )
    };
    let problem = async |arguments: &str| {
        let problems = egress(&exec(arguments), &[]).secrets().problems().await;
        problems.first().map(|(_, problem)| problem.to_string())
    };
    assert_eq!(problem("'echo token-12345'").await, None);
    assert_eq!(problem("'cat; echo token-12345'").await, None, "no input");
    assert_eq!(problem("'test -z \"$HOME$PATH_INFO$CARGO_TARGET_DIR$USER\" && echo token-12345'").await, None);
    assert_eq!(problem("'echo \"$1\"', 'sh', '$(id); token && x'").await, None, "arguments are not interpreted");
    for (arguments, says) in [
        ("'exit 3'", "exit status: 3"),
        ("'echo token-12345; exit 1'", "exit status: 1"),
        ("'true'", "blank"),
        ("'sleep 60'", "gave nothing within 1 s"),
        ("'echo token-12345; sleep 60 & wait'", "gave nothing within 1 s"),
        ("'while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done'", "no secret"),
    ] {
        let problem = problem(arguments).await.expect(arguments);
        assert!(problem.contains(says), "{arguments}: {problem}");
    }
    let scratch = Scratch::new();
    scratch.put("helper", b"#!/bin/sh\necho token-12345\n");
    let path = scratch.path().join("helper");
    fs::set_permissions(&path, Permissions::from_mode(0o775)).expect("mode");
    let text = format!(
        "source = \"exec\"\ncommand = [\"{}\"]\norigins = [\"http://localhost\"]\nslot = \"bearer\"",
        path.display()
    );
    let problems = egress(&text, &[]).secrets().problems().await;
    assert!(problems.first().expect("one").1.to_string().contains("mode 0775"), "others can change it");
}

#[tokio::test]
async fn t_n9_a_guest_cannot_take_the_slot_nor_ask_for_an_answer_that_hides_an_echo() {
    let peer = Peer::saying(ok("x"));
    let file = File::new("token-12345");
    let taken = egress(&file.text(&peer.origin(), "header:x-one"), &[]);
    let request = with_fields(with_key(get(&peer.origin())), &[("x-one", "mine")]);
    let rule = |reason: Reason| match reason {
        Reason::Field(problem) => problem.rule,
        other => panic!("{other:?}"),
    };
    assert_eq!(rule(not_sent(&taken, request, Limits::default()).await), FieldRule::Slot);
    let bound = egress(&file.text(&peer.origin(), "bearer"), &[]);
    let range = vec![toolkeep_core::effect::Header { name: "range".to_owned(), value: "bytes=0-3".to_owned() }];
    let request = Outgoing { headers: range, ..with_key(get(&peer.origin())) };
    assert_eq!(rule(not_sent(&bound, request, Limits::default()).await), FieldRule::WithSecret);
    assert_eq!(peer.connections(), 0);

    let gzip = vec![toolkeep_core::effect::Header { name: "accept-encoding".to_owned(), value: "gzip".to_owned() }];
    send(&bound, Outgoing { headers: gzip, ..with_key(get(&peer.origin())) }).await.expect("an answer");
    assert!(peer.request().contains("\r\naccept-encoding: identity\r\n"));
    let packed = Peer::saying("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 6\r\n\r\nsecret");
    let bound = egress(&file.text(&packed.origin(), "bearer"), &[]);
    assert_eq!(unknown(&bound, with_key(get(&packed.origin())), Limits::default()).await, Reason::Encoded);
    let written = send(&bound, with_key(post(&packed.origin(), "x"))).await.expect("the status is known");
    assert_eq!((written.body.len(), written.cut), (0, Some(Cut::Encoded)));
}

/// Everything that a caller could pass on of an answer.
fn seen(answer: &Incoming) -> String {
    let body = String::from_utf8_lossy(&answer.body);
    format!("{answer:?}\n{body}\n{:?}", answer.headers)
}

#[tokio::test]
async fn t_s1_g15_no_echo_of_a_secret_comes_back_in_any_spelling() {
    let mut checked = 0;
    for number in 0..50_u32 {
        let canary = echo::canary(number);
        let peer = Peer::new(echo::answer);
        let file = File::new(&canary);
        let slot = ["bearer", "header:x-api-key"][number as usize % 2];
        let egress = egress(&file.text(&peer.origin(), slot), &[]);
        let answer = send(&egress, with_key(post(&peer.origin(), "x"))).await.expect("an answer");
        let seen = seen(&answer);
        assert!(seen.contains("[secret key]"), "{seen}");
        assert!(answer.headers.iter().any(|header| header.value.contains("[secret key]")), "{seen}");
        for (how, spelling) in spelled(&canary) {
            assert!(!seen.contains(&spelling), "{how}: {spelling} in {seen}");
            checked += 1;
        }
        // The names of fields came in lower case, so their spelling of it did too.
        assert!(!seen.to_ascii_lowercase().contains(&canary.to_ascii_lowercase()), "{seen}");
    }
    println!("G15: {checked} spellings of 50 secrets, none came back");
    assert_eq!(checked, 50 * 8);
}

#[tokio::test]
async fn t_s1_a_cut_answer_and_a_broken_one_do_not_show_a_secret_either() {
    let canary = echo::canary(7);
    let peer = Peer::new(echo::answer);
    let file = File::new(&canary);
    let bound = egress(&file.text(&peer.origin(), "bearer"), &[]);
    for response_bytes in (1..400).step_by(7) {
        let limits = Limits { response_bytes, ..Limits::default() };
        let answer = bound.send(with_key(post(&peer.origin(), "x")), limits).await.expect("the status is known");
        let seen = seen(&answer);
        assert!(
            !seen.contains(&canary[..6]) && !seen.contains(&canary[canary.len() - 6..]),
            "{response_bytes}: {seen}"
        );
    }
    let file = File::new(&canary);
    let broken = Peer::new(|request| {
        let request = String::from_utf8_lossy(request).into_owned();
        let value = request.split("authorization: ").nth(1).and_then(|rest| rest.lines().next()).expect("a value");
        format!("HTTP/1.1 {value}\r\n{value}\r\n\r\n").into_bytes()
    });
    let bound = egress(&file.text(&broken.origin(), "bearer"), &[]);
    let error = bound.send(with_key(get(&broken.origin())), Limits::default()).await.expect_err("not HTTP");
    assert!(!format!("{error:?} {error}").contains(&canary[..6]), "{error:?}");
}

#[test]
fn every_example_of_the_page_about_secrets_is_valid() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/secrets.md")).expect("the page");
    let mut checked = Vec::new();
    for example in page.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()) {
        let text: toolkeep::config::text::ConfigText = toml::from_str(example).expect(example);
        let config = toolkeep::config::check(&text, None, &home()).expect(example);
        checked.extend(config.secrets.into_keys().map(|name| name.to_string()));
    }
    assert_eq!(checked, ["tickets", "payments", "registry"]);
}

/// An environment in which every directory has a default.
fn home() -> Ambient {
    Ambient::fixed(0, 0, BTreeMap::from([("HOME".to_owned(), "/home/toolkeep".to_owned())]))
}

/// Says that this process is the one that may be changed.
const ALONE: &str = "TOOLKEEP_TEST_DUMPS";

#[test]
fn t_s1_the_process_leaves_no_core_dump_and_is_not_traced_by_its_peers() {
    use rustix::process::{DumpableBehavior, Resource, dumpable_behavior, getrlimit};
    if std::env::var_os(ALONE).is_none() {
        // The other tests of this process keep their core dumps.
        let name = "t_s1_the_process_leaves_no_core_dump_and_is_not_traced_by_its_peers";
        let program = std::env::current_exe().expect("this program");
        let output = std::process::Command::new(program).arg(name).env(ALONE, "1").output().expect("run");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        return;
    }
    toolkeep::secrets::keep_out_of_dumps().expect("the kernel agrees");
    let limit = getrlimit(Resource::Core);
    assert_eq!((limit.current, limit.maximum), (Some(0), Some(0)));
    assert_eq!(dumpable_behavior().expect("prctl"), DumpableBehavior::NotDumpable);
    // What the daemon reads of itself stays readable.
    assert!(fs::read_link("/proc/self/exe").is_ok());
    assert!(fs::read_dir("/proc/self/fd").is_ok());
}
