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
