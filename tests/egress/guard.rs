//! Which addresses are reached, whatever name or number leads there (T-N1 … T-N5, G10).

use std::sync::Arc;

use toolkeep::egress::{Answer, EgressConfig, Limits, Outgoing, Reason, Script, SendError};
use toolkeep_core::net::reach::Network;

use super::peer::{Peer, ok};
use super::world::{egress, get, named, not_sent, send, unknown, with};

fn address(text: &str) -> std::net::IpAddr {
    text.parse().expect("an address")
}

#[tokio::test]
async fn t_n3_one_private_answer_among_many_spoils_the_name() {
    let peer = Peer::saying(ok("x"));
    let port = peer.address().port();
    for answers in [
        &["127.0.0.1"][..],
        &["8.8.8.8", "127.0.0.1"],
        &["127.0.0.1", "8.8.8.8"],
        &["2001:4860:4860::8888", "::ffff:127.0.0.1"],
        &["8.8.8.8", "169.254.169.254"],
    ] {
        let egress = named(&[("mixed.test", answers)]);
        let request = Outgoing { network: Network::Global, ..get(&format!("http://mixed.test:{port}")) };
        let reason = not_sent(&egress, request, Limits::default()).await;
        assert!(matches!(reason, Reason::OutOfReach(_)), "{answers:?}: {reason:?}");
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn t_n3_a_name_that_is_rebound_is_judged_anew_and_asked_once_for_each_connection() {
    let peer = Peer::saying(ok("x"));
    let origin = format!("http://flip.test:{}", peer.address().port());
    let answers = ["127.0.0.1", "169.254.169.254", "0.0.0.0", "127.0.0.1"];
    let answers = answers.map(|text| Answer::Addresses(vec![address(text)])).to_vec();
    let script = Arc::new(Script::new([("flip.test".to_owned(), answers)]));
    let egress = with(Arc::clone(&script), &EgressConfig::default());
    let mut reached = Vec::new();
    for asked in 1..=4 {
        reached.push(send(&egress, get(&origin)).await.is_ok());
        assert_eq!(script.asked(), asked);
    }
    assert_eq!(reached, [true, false, false, true]);
    assert_eq!(peer.connections(), 2);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_unknown_and_a_closed_port_is_not_sent() {
    let peer = Peer::saying("HTTP/1.1 200 OK\r\ncontent-le");
    assert_eq!(unknown(&egress(), get(&peer.origin()), Limits::default()).await, Reason::Closed);
    let closed = peer.origin();
    drop(peer);
    let refused = send(&egress(), get(&closed)).await;
    assert_eq!(refused, Err(SendError::NotSent(Reason::Connect(std::io::ErrorKind::ConnectionRefused))));
}

/// Says that this process has proxies in its environment; the port of the proxy.
const PROXIED: &str = "TOOLKEEP_TEST_PROXIED";

#[tokio::test]
async fn t_n5_proxies_and_key_logs_of_the_environment_are_ignored() {
    let peer = Peer::saying(ok("direct"));
    if std::env::var_os(PROXIED).is_some() {
        let port = peer.address().port();
        let egress = named(&[("api.test", &["127.0.0.1"])]);
        for host in ["127.0.0.1", "api.test"] {
            let answer = send(&egress, get(&format!("http://{host}:{port}"))).await.expect("an answer");
            assert_eq!(&answer.body[..], b"direct");
        }
        let limits = Limits { connect: std::time::Duration::from_millis(300), ..Limits::default() };
        not_sent(&egress, get(&format!("https://api.test:{port}")), limits).await;
        return;
    }
    let scratch = toolkeep_tests::support::scratch::Scratch::new();
    let keys = scratch.path().join("keys");
    let proxy = Peer::saying(ok("proxied"));
    let program = std::env::current_exe().expect("this program");
    let mut command = std::process::Command::new(program);
    command
        .arg("t_n5_proxies_and_key_logs_of_the_environment_are_ignored")
        .env(PROXIED, "1")
        .env("SSLKEYLOGFILE", &keys);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"] {
        command.env(name, proxy.origin());
    }
    let output = command.env_remove("NO_PROXY").env_remove("no_proxy").output().expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert_eq!((proxy.connections(), keys.exists()), (0, false));
}

#[test]
fn t_n5_other_schemes_are_no_origins() {
    for url in [
        "unix:///run/docker.sock",
        "file:///etc/passwd",
        "gopher://127.0.0.1:6379/_x",
        "ftp://a.example/",
        "ws://a.example/",
    ] {
        assert!(Outgoing::new("local".parse().expect("a tenant"), "GET", url).is_err(), "{url}");
    }
}

#[tokio::test]
async fn t_n8_what_is_refused_asks_no_resolver_and_long_texts_do_not_leave() {
    let script = Arc::new(Script::new([("api.test".to_owned(), vec![Answer::NoName])]));
    let egress = with(Arc::clone(&script), &EgressConfig::default());
    let request = Outgoing { secrets: vec!["missing".parse().expect("a name")], ..get("https://leak.api.test") };
    assert!(not_sent(&egress, request, Limits::default()).await.is_refusal());
    let header = toolkeep_core::effect::Header { name: "host".to_owned(), value: "leak.api.test".to_owned() };
    let request = Outgoing { headers: vec![header], ..get("https://leak.api.test") };
    assert!(not_sent(&egress, request, Limits::default()).await.is_refusal());
    assert_eq!(script.asked(), 0, "a name that is looked up is a message to whoever serves it");

    let new = |url: &str| Outgoing::new("local".parse().expect("a tenant"), "GET", url);
    let long = "a".repeat(10_000);
    for url in
        [format!("https://api.test/?d={long}"), format!("https://{long}.api.test/"), format!("https://api.test/{long}")]
    {
        assert!(new(&url).is_err());
    }
    let labels = format!("https://{}.api.test/", ["a".repeat(60).as_str(); 5].join("."));
    assert!(new(&labels).is_err(), "more than a name has room for");
}
