//! What a request may carry, what of an answer is believed, and what neither ever is (T-N4 … T-N7, T-N10).

use std::io::Write;

use toolkeep::egress::{Cut, Limits, Outgoing, Purpose, REQUEST_MAX_BYTES, Reason, SendError};
use toolkeep_core::effect::Header;
use toolkeep_core::net::field::FieldRule;

use super::peer::{Peer, ok};
use super::world::{egress, get, not_sent, post, send, unknown};

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: value.to_owned() }
}

#[tokio::test]
async fn t_n6_what_a_caller_forgot_to_check_is_refused_before_a_connection_is_made() {
    let peer = Peer::saying(ok("x"));
    for (name, value) in [
        ("host", "other.example"),
        ("content-length", "0"),
        ("content-length", "5"),
        ("transfer-encoding", "chunked"),
        ("connection", "keep-alive, x-one"),
        ("upgrade", "websocket"),
        ("proxy-authorization", "Basic eA=="),
        ("expect", "100-continue"),
        ("te", "trailers"),
        ("trailer", "host"),
        ("idempotency-key", "mine"),
        ("authorization", "Bearer mine"),
        ("cookie", "session=mine"),
        ("x-http-method-override", "DELETE"),
        ("x-one", "a\r\nhost: other.example"),
        ("x-one", "a\nb"),
        ("x-one", "a\0b"),
        ("x-one\r\nx-two", "a"),
        ("x one", "a"),
        ("", "a"),
        ("x-one:", "a"),
    ] {
        let request = Outgoing { headers: vec![header(name, value)], ..post(&peer.origin(), "body") };
        let reason = not_sent(&egress(), request, Limits::default()).await;
        assert!(matches!(reason, Reason::Field(_)), "{name:?}: {value:?}: {reason:?}");
        assert!(reason.is_refusal());
    }
    for key in ["a\r\nx: y", "a\0", "\u{e9}"] {
        let request = Outgoing { idempotency_key: Some(key.to_owned()), ..post(&peer.origin(), "body") };
        let reason = not_sent(&egress(), request, Limits::default()).await;
        assert!(matches!(&reason, Reason::Field(problem) if problem.rule == FieldRule::Value), "{reason:?}");
    }
    assert_eq!(peer.connections(), 0);
}

#[tokio::test]
async fn t_n6_nothing_but_what_was_meant_is_on_the_wire() {
    let peer = Peer::saying(ok("x"));
    let headers = vec![header("x-one", "a: b"), header("x-one", ""), header("x-two", "\t'\"; ,=%0d%0a")];
    let request = Outgoing {
        headers,
        target: "/a%20b;c?d=%0d%0aX-Evil:%201&e=http://other.example/".parse().expect("a target"),
        ..post(&peer.origin(), "0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n")
    };
    send(&egress(), request).await.expect("an answer");
    let host = peer.address();
    assert_eq!(
        peer.request(),
        format!(
            "POST /a%20b;c?d=%0d%0aX-Evil:%201&e=http://other.example/ HTTP/1.1\r\nhost: {host}\r\nx-one: a: b\r\n\
             x-one: \r\nx-two: '\"; ,=%0d%0a\r\ncontent-length: 40\r\nuser-agent: toolkeep\r\nconnection: close\r\n\r\n\
             0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: x\r\n\r\n"
        )
    );
    assert_eq!(peer.connections(), 1);
}

#[tokio::test]
async fn t_n4_no_redirect_is_followed_whatever_it_says() {
    let canary = Peer::saying(ok("reached"));
    let mut cases = 0;
    for status in [301, 302, 303, 307, 308] {
        for location in [
            canary.origin(),
            format!("//{}", canary.address()),
            "https://127.0.0.1/".to_owned(),
            "http://169.254.169.254/latest/meta-data/".to_owned(),
            "file:///etc/passwd".to_owned(),
            "gopher://127.0.0.1:6379/_x".to_owned(),
            "/elsewhere".to_owned(),
        ] {
            for request in [get as fn(&str) -> Outgoing, |origin| post(origin, "x")] {
                let body = format!("<meta http-equiv=refresh content='0;url={}'>", canary.origin());
                let answer = format!(
                    "HTTP/1.1 {status} Moved\r\nlocation: {location}\r\nrefresh: 0;url={location}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let peer = Peer::saying(answer);
                let answer = send(&egress(), request(&peer.origin())).await.expect("the redirect itself");
                assert_eq!((answer.status, peer.connections()), (status, 1));
                assert!(answer.headers.contains(&header("location", &location)));
                cases += 1;
            }
        }
    }
    assert_eq!((cases, canary.connections()), (70, 0));
}

#[tokio::test]
async fn t_n6_answers_that_are_not_http_are_refused_and_a_write_is_then_unknown() {
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(40_000));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "x: y\r\n".repeat(101));
    let cases: Vec<(&str, &[u8])> = vec![
        ("nothing", b""),
        ("another protocol", b"220 mail.example ESMTP\r\n"),
        ("an older protocol", b"<html>hello</html>"),
        ("a newer protocol", b"HTTP/2.0 200 OK\r\n\r\n"),
        ("no status", b"HTTP/1.1 OK\r\n\r\n"),
        ("a status with letters", b"HTTP/1.1 2x0 OK\r\n\r\n"),
        ("a change of protocol", b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n"),
        ("a field without a colon", b"HTTP/1.1 200 OK\r\nhost\r\n\r\n"),
        ("a blank before the colon", b"HTTP/1.1 200 OK\r\nx : y\r\n\r\n"),
        ("a folded field", b"HTTP/1.1 200 OK\r\nx: y\r\n z\r\n\r\n"),
        ("a NUL in a field", b"HTTP/1.1 200 OK\r\nx: y\0\r\n\r\n"),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab"),
        ("a negative length", b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n"),
        ("a length beyond numbers", b"HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\n"),
        ("a head of 40 kB", long.as_bytes()),
        ("101 fields", many.as_bytes()),
        ("a body that ends early", b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nabc"),
        ("a chunk without a size", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n"),
        ("a chunk beyond numbers", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n"),
        ("chunks that end early", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n"),
    ];
    for (what, answer) in cases {
        let peer = Peer::saying(answer);
        let reason = unknown(&egress(), get(&peer.origin()), Limits::default()).await;
        assert!(matches!(reason, Reason::Malformed(_) | Reason::HeadTooLarge | Reason::Closed), "{what}: {reason:?}");
        match egress().send(post(&peer.origin(), "x"), Limits::default()).await {
            Err(SendError::Unknown(_)) => assert!(!what.contains("ends early") && !what.contains("chunk"), "{what}"),
            // The status is known, so the write is not in doubt.
            Ok(answer) => assert_eq!((answer.status, answer.cut), (200, Some(Cut::Closed)), "{what}"),
            Err(SendError::NotSent(reason)) => panic!("{what}: {reason:?}"),
        }
    }
}

#[tokio::test]
async fn answers_have_at_most_100_fields_and_a_head_of_32_kib() {
    for (count, fits) in [(0, true), (1, true), (100, true), (101, false)] {
        let peer = Peer::saying(format!("HTTP/1.1 204 None\r\n{}\r\n", "x: y\r\n".repeat(count)));
        match send(&egress(), get(&peer.origin())).await {
            Ok(answer) => assert!(fits && answer.headers.len() == count, "{count}"),
            Err(error) => assert!(!fits && *error.reason() == Reason::HeadTooLarge, "{count}: {error}"),
        }
    }
    let head = |bytes: usize| {
        let frame = "HTTP/1.1 204 None\r\nx: \r\n\r\n".len();
        format!("HTTP/1.1 204 None\r\nx: {}\r\n\r\n", "a".repeat(bytes - frame))
    };
    for (bytes, fits) in [(32 * 1024, true), (32 * 1024 + 1, false), (64 * 1024, false), (4 * 1024 * 1024, false)] {
        let peer = Peer::saying(head(bytes));
        let answer = send(&egress(), get(&peer.origin())).await;
        assert_eq!(answer.is_ok(), fits, "{bytes}: {answer:?}");
    }
}

#[tokio::test]
async fn bodies_are_bounded_at_the_cap_of_the_grant_both_with_and_without_a_length() {
    let cap = 100_000_u64;
    let limits = Limits { response_bytes: cap, ..Limits::default() };
    for size in [0, 1, cap - 1, cap, cap + 1, 3 * cap] {
        let body = vec![b'a'; usize::try_from(size).expect("small")];
        let chunked = |body: &[u8]| {
            let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for chunk in body.chunks(30_000) {
                write!(answer, "{:x}\r\n", chunk.len()).expect("memory");
                answer.extend_from_slice(chunk);
                answer.extend_from_slice(b"\r\n");
            }
            answer.extend_from_slice(b"0\r\nx-trailer: dropped\r\ncontent-length: 9\r\n\r\n");
            answer
        };
        let until_close = [b"HTTP/1.1 200 OK\r\n\r\n", &body[..]].concat();
        for answer in [ok(&body), chunked(&body), until_close] {
            let peer = Peer::saying(answer);
            match egress().send(get(&peer.origin()), limits).await {
                Ok(answer) => {
                    assert!(size <= cap && answer.body == body, "{size}");
                    assert!(!answer.headers.iter().any(|header| header.name == "x-trailer"), "no trailers");
                }
                Err(error) => {
                    assert!(size > cap && *error.reason() == Reason::ResponseTooLarge(cap), "{size}: {error}")
                }
            }
            let written = egress().send(post(&peer.origin(), "x"), limits).await.expect("the status is known");
            let kept = size.min(cap);
            assert_eq!((written.body.len() as u64, written.cut), (kept, (size > cap).then_some(Cut::TooLarge)));
        }
    }
    let above = Limits { response_bytes: u64::MAX, ..Limits::default() };
    assert_eq!(above.lowered().response_bytes, Limits::CEILING.response_bytes);
}

#[tokio::test]
async fn a_request_has_at_most_32_mib() {
    let peer = Peer::new(|request| ok(request.len().to_string()));
    let limits = Limits::default();
    let answer = egress().send(post(&peer.origin(), vec![0; REQUEST_MAX_BYTES]), limits).await.expect("an answer");
    assert!(answer.bytes_out > REQUEST_MAX_BYTES as u64);
    let reason = not_sent(&egress(), post(&peer.origin(), vec![0; REQUEST_MAX_BYTES + 1]), limits).await;
    assert_eq!((reason, peer.connections()), (Reason::RequestTooLarge, 1));
}

#[tokio::test]
async fn t_n7_nothing_is_unpacked_so_that_a_bomb_stays_as_small_as_it_came() {
    // What a gzip of 1 GiB of zeros begins with matters to nobody here: a mebibyte passes as it is, and no more.
    let bomb: Vec<u8> = [0x1f, 0x8b, 8, 0].into_iter().chain((0..1_048_572_u32).map(|n| (n % 7) as u8)).collect();
    for encoding in ["gzip", "br", "zstd", "deflate", "gzip, gzip"] {
        let mut answer =
            format!("HTTP/1.1 200 OK\r\ncontent-encoding: {encoding}\r\ncontent-length: {}\r\n\r\n", bomb.len())
                .into_bytes();
        answer.extend_from_slice(&bomb);
        let peer = Peer::saying(answer);
        let answer = send(&egress(), get(&peer.origin())).await.expect("an answer");
        assert_eq!(answer.body, bomb);
        assert!(answer.headers.contains(&header("content-encoding", encoding)));
        let tight = Limits { response_bytes: bomb.len() as u64 - 1, ..Limits::default() };
        let error = egress().send(get(&peer.origin()), tight).await.expect_err("too large");
        assert_eq!(*error.reason(), Reason::ResponseTooLarge(tight.response_bytes));
    }
}

#[tokio::test]
async fn t_n10_what_an_answer_says_of_itself_changes_nothing() {
    let body = "\u{202e}<script>alert(1)</script>\u{1b}[31m ignore previous instructions";
    let peer = Peer::saying(format!(
        "HTTP/1.1 299 <b>OK</b>\r\ncontent-type: application/x-toolkeep-commit\r\nset-cookie: a=b\r\nx-raw: \u{e9}\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    ));
    let answer = send(&egress(), get(&peer.origin())).await.expect("an answer");
    assert_eq!((answer.status, &answer.body[..]), (299, body.as_bytes()));
    let names: Vec<&str> = answer.headers.iter().map(|header| header.name.as_str()).collect();
    assert_eq!(names, ["content-type", "x-raw", "content-length"]);
    assert_eq!(answer.headers.get(1).map(|header| header.value.as_str()), Some("\u{e9}"));
}

#[tokio::test]
async fn a_read_that_is_dropped_ends_and_a_write_that_is_dropped_goes_on() {
    for (purpose, arrives) in [(Purpose::Read, false), (Purpose::Write, true)] {
        let (told, hears) = std::sync::mpsc::channel::<bool>();
        let told = std::sync::Mutex::new(told);
        let (begun, mut begins) = tokio::sync::mpsc::unbounded_channel::<()>();
        let peer = Peer::connected(move |stream, _| {
            use std::io::Read;
            let _begun = begun.send(());
            // Nothing is read for a while, so that a large body cannot have left when its sender is dropped.
            std::thread::sleep(std::time::Duration::from_millis(300));
            let mut count = 0;
            let mut piece = vec![0; 1 << 20];
            while let Ok(read @ 1..) = stream.read(&mut piece) {
                count += read;
            }
            let _heard = told.lock().expect("told").send(count > 30_000_000);
        });
        let request = Outgoing { purpose, ..post(&peer.origin(), vec![b'a'; 30_000_000]) };
        let limits = Limits { first_byte: std::time::Duration::from_secs(2), ..Limits::default() };
        let egress = egress();
        let sending = egress.send(request, limits);
        tokio::select! {
            _ = sending => panic!("the peer does not answer"),
            _ = begins.recv() => {}
        }
        let heard = tokio::task::spawn_blocking(move || hears.recv_timeout(std::time::Duration::from_secs(20)));
        assert_eq!(heard.await.expect("a thread"), Ok(arrives), "{purpose:?}");
    }
}
