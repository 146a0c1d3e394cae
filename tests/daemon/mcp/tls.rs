//! MCP over HTTPS: on an address that others can reach, under a name, with a certificate that the daemon renews by itself.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned, crypto::ring};

use super::super::world::{Plot, World};
use super::http::token;
use crate::doors::running::until;

/// The name that clients write.
const NAME: &str = "api.test";

fn testdata(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("egress/testdata").join(name)
}

fn put(world: &World, name: &str, fixture: &str) {
    let bytes = std::fs::read(testdata(fixture)).expect("fixture");
    world.home.put(&format!("{name}.new"), &bytes);
    let private = std::fs::Permissions::from_mode(0o600);
    std::fs::set_permissions(world.path(&format!("{name}.new")), private).expect("mode");
    std::fs::rename(world.path(&format!("{name}.new")), world.path(name)).expect("renamed");
}

/// A daemon that is not started yet, with a certificate and its key.
fn asleep() -> World {
    const HTTP: &str = "[http]\nlisten = \"0.0.0.0:0\"\nhosts = [\"api.test\"]\n\
                        tls = { certificate = \"tls/door.pem\", key = \"tls/door.key\" }\n";
    let world = World::asleep(Plot { limits: HTTP, ..Plot::default() });
    std::fs::create_dir(world.path("tls")).expect("folder");
    put(&world, "tls/door.pem", "server.pem");
    put(&world, "tls/door.key", "server.key");
    world
}

fn port(world: &World) -> u16 {
    let mut found = None;
    until("the door says where it is", || {
        let log = world.log();
        let lines = log.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let address =
            lines.filter_map(|line| Some(line["address"].as_str()?.strip_prefix("https://0.0.0.0:")?.parse().ok()));
        found = address.flatten().last();
        found.is_some()
    });
    found.expect("a port")
}

/// One request over TLS by somebody who believes the test authority; nothing where there is no handshake.
fn say(port: u16, start: &str, lines: &[String], body: &str) -> Option<String> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(testdata("authority.pem")).expect("authority")).expect("an authority");
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let session = ClientConnection::new(Arc::new(config), NAME.try_into().expect("a name")).expect("a session");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the door");
    let mut stream = StreamOwned::new(session, stream);
    let mut request = format!("{start} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    for line in lines {
        request.push_str(line);
        request.push_str("\r\n");
    }
    request.push_str("\r\n");
    request.push_str(body);
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let _cut_off = stream.read_to_end(&mut answer);
    Some(String::from_utf8_lossy(&answer).into_owned())
}

fn lines(port: u16, token: &str) -> Vec<String> {
    vec![
        format!("Host: {NAME}:{port}"),
        format!("Authorization: Bearer {token}"),
        "Content-Type: application/json".to_owned(),
        "Accept: application/json, text/event-stream".to_owned(),
        "MCP-Protocol-Version: 2025-11-25".to_owned(),
    ]
}

#[test]
fn r51_t_i7_mcp_is_spoken_over_tls_on_an_address_that_others_can_reach() {
    let mut world = asleep();
    world.start();
    let port = port(&world);
    let token = token(&world);
    let call = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}).to_string();
    let listed = say(port, "POST /mcp", &lines(port, &token), &call).expect("a handshake");
    assert!(listed.starts_with("HTTP/1.1 200") && listed.contains("\"tools\""), "{listed}");
    let unknown = say(port, "POST /mcp", &lines(port, "tk_nobody"), &call).expect("a handshake");
    assert!(unknown.starts_with("HTTP/1.1 401"), "{unknown}");
    for (name, status) in [("localhost", "401"), ("evil.example", "421"), ("0.0.0.0", "421")] {
        let host = vec![format!("Host: {name}:{port}")];
        let metrics = say(port, "GET /metrics", &host, "").expect("a handshake");
        assert!(metrics.starts_with(&format!("HTTP/1.1 {status}")), "{name}: {metrics}");
    }
    let plain = super::http::say(port, "POST /mcp", &lines(port, &token), &call);
    assert!(plain.status == 400 && plain.body.contains("https://"), "{plain:?}");
}

#[test]
fn a_certificate_that_changes_is_in_force_without_a_restart() {
    let mut world = asleep();
    world.start();
    let port = port(&world);
    let lives = || say(port, "GET /livez", &[format!("Host: {NAME}:{port}")], "").is_some();
    assert!(lives());
    put(&world, "tls/door.pem", "alone.pem");
    until("nobody believes the new certificate", || !lives());
    put(&world, "tls/door.pem", "server.pem");
    until("the first one is back", lives);
    put(&world, "tls/door.key", "client.key");
    until("a key that does not fit is told", || world.log().contains("is not the key of the first certificate"));
    assert!(lives(), "what was there before stays");
}

#[test]
fn what_cannot_be_protected_is_not_opened_and_the_doctor_says_why() {
    let mut world = asleep();
    let doctor = |world: &World| {
        let said = world.cli(&["doctor", "-o", "json"]);
        let findings: Value = serde_json::from_slice(&said.stdout).expect("findings");
        let all = findings.as_array().expect("a list").clone();
        all.into_iter().find(|finding| finding["check"] == "certificate").expect("the certificate is checked")
    };
    let found = doctor(&world);
    assert!(found["grade"] == "well" && found["found"].as_str().is_some_and(|text| text.contains("2120")), "{found}");
    put(&world, "tls/door.pem", "expired.pem");
    let found = doctor(&world);
    assert!(found["grade"] == "problem" && found["found"].as_str().is_some_and(|text| text.contains("ended on 2020")));
    let open = std::fs::Permissions::from_mode(0o644);
    std::fs::set_permissions(world.path("tls/door.key"), open).expect("mode");
    assert_eq!(doctor(&world)["grade"], "problem");
    world.spawn();
    assert!(!world.ended().success());
    assert!(world.log().contains("`http.tls.key`") && world.log().contains("chmod 0600"), "{}", world.log());
}

#[test]
fn r51_the_address_that_is_printed_for_clients_is_that_of_the_configuration() {
    let world = asleep();
    let config = std::fs::read_to_string(world.path("toolkeep.toml")).expect("configuration");
    world.home.put("toolkeep.toml", config.replace("0.0.0.0:0", "0.0.0.0:9464").as_bytes());
    for client in ["claude", "codex", "vscode", "cursor"] {
        let said = world.cli(&["mcp", "config", "--client", client, "--url"]);
        let text = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(text.contains("https://api.test:9464/mcp"), "{client}: {said:?}");
    }
    let refused = world.cli(&["mcp", "config", "--client", "claude", "--url", "http://keep.example.com/mcp"]);
    assert!(refused.status.code() == Some(2) && refused.stdout.is_empty(), "{refused:?}");
}
