//! Peers that take their time, in every part of an exchange (T-N7). Times are small and scripted; none is asserted.

use std::io::Write;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use toolkeep::egress::{Answer, Cut, EgressConfig, Limits, Reason, Script};

use super::peer::{Peer, ok};
use super::world::{egress, get, not_sent, post, unknown, with};

const LONG: Duration = Duration::from_secs(30);
const SHORT: Duration = Duration::from_millis(150);

/// Limits of which none is in the way.
const PATIENT: Limits = Limits {
    connect: LONG,
    first_byte: LONG,
    idle: LONG,
    total: LONG,
    response_bytes: 1 << 20,
    rate: 1,
    rate_grace: LONG,
};

/// Bytes of `text` one by one until nobody listens.
fn drip(stream: &mut TcpStream, text: &[u8], pause: Duration) {
    for byte in text {
        if stream.write_all(&[*byte]).is_err() {
            return;
        }
        std::thread::sleep(pause);
    }
}

#[tokio::test]
async fn t_n7_a_peer_that_never_answers_ends_at_the_first_byte() {
    let peer = Peer::raw(|_, _| std::thread::sleep(Duration::from_millis(600)));
    let limits = Limits { first_byte: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), get(&peer.origin()), limits).await, Reason::FirstByteTimeout);
    assert_eq!(unknown(&egress(), post(&peer.origin(), "x"), limits).await, Reason::FirstByteTimeout);
    let limits = Limits { total: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), get(&peer.origin()), limits).await, Reason::TotalTimeout);
}

#[tokio::test]
async fn t_n7_a_head_in_drops_does_not_put_off_its_end() {
    let peer = Peer::raw(|stream, _| drip(stream, &ok("body"), Duration::from_millis(20)));
    let limits = Limits { first_byte: SHORT, idle: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), get(&peer.origin()), limits).await, Reason::FirstByteTimeout);
    let endless = Peer::raw(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(b"x: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(5));
        }
    });
    assert_eq!(unknown(&egress(), get(&endless.origin()), limits).await, Reason::FirstByteTimeout);
}

#[tokio::test]
async fn t_n7_a_body_that_stops_or_drips_ends_by_idleness_or_by_rate() {
    let stops = Peer::raw(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc");
        std::thread::sleep(Duration::from_millis(600));
    });
    let limits = Limits { idle: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), get(&stops.origin()), limits).await, Reason::IdleTimeout);
    let written = egress().send(post(&stops.origin(), "x"), limits).await.expect("the status is known");
    assert_eq!((written.status, &written.body[..], written.cut), (200, &b"abc"[..], Some(Cut::Slow)));

    let drips = Peer::raw(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        drip(stream, &[b'a'; 200], Duration::from_millis(10));
    });
    let limits = Limits { idle: SHORT, rate: 10_000, rate_grace: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), get(&drips.origin()), limits).await, Reason::TooSlow);
    let limits = Limits { idle: SHORT, ..PATIENT };
    let whole = egress().send(get(&drips.origin()), limits).await.expect("slow, but fast enough");
    assert_eq!(whole.body.len(), 200);
}

#[tokio::test]
async fn t_n7_an_endless_body_ends_at_the_cap() {
    let peer = Peer::raw(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 65_536]).is_ok() {}
    });
    let limits = PATIENT;
    assert_eq!(unknown(&egress(), get(&peer.origin()), limits).await, Reason::ResponseTooLarge(limits.response_bytes));
}

#[tokio::test]
async fn t_n7_a_peer_that_does_not_read_the_request_ends_by_idleness_or_by_rate() {
    let deaf = Peer::connected(|_, _| std::thread::sleep(Duration::from_millis(900)));
    let body = || vec![b'a'; 30_000_000];
    let limits = Limits { idle: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), post(&deaf.origin(), body()), limits).await, Reason::IdleTimeout);

    let sips = Peer::connected(|stream, _| {
        use std::io::Read;
        let mut sip = vec![0; 40_000];
        while matches!(stream.read(&mut sip), Ok(1..)) {
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let limits = Limits { rate: 100_000_000, rate_grace: SHORT, ..PATIENT };
    assert_eq!(unknown(&egress(), post(&sips.origin(), body()), limits).await, Reason::TooSlow);
}

#[tokio::test]
async fn a_resolver_that_hangs_and_a_handshake_that_hangs_are_not_sent() {
    let script = Arc::new(Script::new([("slow.test".to_owned(), vec![Answer::Silence])]));
    let egress = with(script, &EgressConfig::default());
    let limits = Limits { connect: SHORT, ..PATIENT };
    assert_eq!(not_sent(&egress, get("http://slow.test"), limits).await, Reason::Resolve);
    let limits = Limits { total: SHORT, ..PATIENT };
    assert_eq!(not_sent(&egress, get("http://slow.test"), limits).await, Reason::TotalTimeout);

    let silent = Peer::connected(|_, _| std::thread::sleep(Duration::from_millis(600)));
    let origin = format!("https://{}", silent.address());
    let limits = Limits { connect: SHORT, ..PATIENT };
    assert_eq!(not_sent(&egress, get(&origin), limits).await, Reason::ConnectTimeout);
    assert_eq!(silent.connections(), 1);
}

#[tokio::test]
async fn a_first_answer_that_comes_before_the_request_is_whole_counts() {
    let peer = Peer::connected(|stream, _| {
        let _gone = stream.write_all(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno");
    });
    let answer = egress().send(post(&peer.origin(), vec![b'a'; 5_000_000]), PATIENT).await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (413, &b"no"[..]));
}
