//! What is sent, byte for byte, and what comes back.

use toolkeep::egress::{Limits, Outgoing, Reason, SendError};
use toolkeep_core::net::method::Method;

use super::peer::{Peer, ok};
use super::world::{egress, get, named, post, send, with_fields};

#[tokio::test]
async fn a_read_is_sent_and_answered_byte_for_byte() {
    let peer = Peer::saying(b"HTTP/1.1 201 Fine\r\nX-One: a\r\nX-One: b\r\nContent-Length: 3\r\n\r\n\0\xffz");
    let request = Outgoing { target: "/a?b=c".parse().expect("target"), ..get(&peer.origin()) };
    let answer =
        send(&egress(), with_fields(request, &[("Accept", "text/plain"), ("x-one", "1")])).await.expect("an answer");
    let host = peer.address();
    let wanted = format!(
        "GET /a?b=c HTTP/1.1\r\nhost: {host}\r\naccept: text/plain\r\nx-one: 1\r\nuser-agent: toolkeep\r\nconnection: close\r\n\r\n"
    );
    assert_eq!(peer.request(), wanted);
    assert_eq!((answer.status, answer.body.len(), answer.cut), (201, 3, None));
    let fields: Vec<(&str, &str)> = answer.headers.iter().map(|f| (f.name.as_str(), f.value.as_str())).collect();
    assert_eq!(fields, [("x-one", "a"), ("x-one", "b"), ("content-length", "3")]);
    assert_eq!((answer.bytes_out, answer.peer), (wanted.len() as u64, host));
}

#[tokio::test]
async fn a_write_says_its_length_and_its_key() {
    let peer = Peer::saying(ok("done"));
    for (method, body, length) in [
        (Method::Post, "abc", Some(3)),
        (Method::Post, "", Some(0)),
        (Method::Put, "", Some(0)),
        (Method::Patch, "x", Some(1)),
        (Method::Delete, "", None),
        (Method::Delete, "y", Some(1)),
        (Method::Get, "", None),
    ] {
        let request = Outgoing { method, idempotency_key: Some("k-1".to_owned()), ..post(&peer.origin(), body) };
        let answer = send(&egress(), request).await.expect("an answer");
        assert_eq!(&answer.body[..], b"done");
        let sent = String::from_utf8(peer.requests().pop().expect("a request")).expect("text");
        let (head, rest) = sent.split_once("\r\n\r\n").expect("a head");
        assert_eq!(rest, body, "{method}");
        let said = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        assert_eq!(said.map(|n| n.parse().expect("a number")), length, "{method}");
        assert!(head.contains("\r\nidempotency-key: k-1"), "{head}");
        assert!(!head.contains("transfer-encoding"), "{head}");
    }
}

#[tokio::test]
async fn a_name_is_resolved_and_sent_as_host() {
    let peer = Peer::saying(ok("x"));
    let port = peer.address().port();
    let egress = named(&[("api.test", &["127.0.0.1"])]);
    send(&egress, get(&format!("http://API.test.:{port}"))).await.expect("an answer");
    assert!(peer.request().contains(&format!("\r\nhost: api.test:{port}\r\n")));
    let missing = send(&egress, get("http://other.test")).await;
    assert_eq!(missing, Err(SendError::NotSent(Reason::Resolve)));
}

#[tokio::test]
async fn a_large_body_arrives_whole() {
    let body: Vec<u8> = (0..5_000_000_u32).map(|n| (n % 251) as u8).collect();
    let wanted = body.clone();
    let peer = Peer::new(move |request| ok(if request.ends_with(&wanted) { "same" } else { "other" }));
    let answer = egress().send(post(&peer.origin(), body), Limits::default()).await.expect("an answer");
    assert_eq!(&answer.body[..], b"same");
}
