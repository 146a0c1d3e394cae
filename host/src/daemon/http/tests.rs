//! The front and the door from outside, over real connections, with routes that stand in for any.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::bounds::{FIELDS_MAX, HEAD_MAX_BYTES, HttpBounds};
use super::config::{HttpConfig, Listen, TlsConfig};
use super::door::{HttpDoor, Passed, serve};
use super::front::Front;
use super::tls::DoorTls;
use super::{Response, whole};

/// Longer than any test takes: for the times that a test is not about.
const NEVER: Duration = Duration::from_secs(3_600);
/// Shorter than anybody types: for the one that it is about.
pub(super) const SOON: Duration = Duration::from_millis(50);
/// Bytes of a body.
const BODY: usize = 1_000;

pub(super) const PATIENT: HttpBounds = HttpBounds {
    connections: 8,
    handshakes: 8,
    handshake: NEVER,
    body_bytes: BODY,
    head: NEVER,
    body: NEVER,
    write: NEVER,
    answer: NEVER,
};

/// A door that is open.
pub(super) struct Running {
    pub(super) address: SocketAddr,
    pub(super) stop: watch::Sender<bool>,
    pub(super) task: JoinHandle<()>,
    /// Lets `/held` answer.
    release: Arc<Notify>,
}

/// Routes that stand in for any: `/length` reads its body, `/large` is more than a socket holds, `/held` waits.
async fn stand_in(request: Passed, held: Arc<Notify>) -> Response {
    match request.uri().path().to_owned().as_str() {
        "/length" => match request.into_body().collect().await {
            Ok(read) => Response::new(whole(read.to_bytes().len().to_string())),
            Err(error) => {
                let mut response = Response::new(whole(error.to_string()));
                *response.status_mut() = StatusCode::BAD_REQUEST;
                response
            }
        },
        "/large" => Response::new(whole(vec![7_u8; 64 * 1024 * 1024])),
        "/held" => {
            held.notified().await;
            Response::new(whole("released"))
        }
        _ => Response::new(whole("here")),
    }
}

impl Running {
    async fn with(bounds: HttpBounds) -> Self {
        Self::protected(bounds, None).await
    }

    /// With TLS.
    pub(super) async fn protected(bounds: HttpBounds, tls: Option<(TlsConfig, Arc<DoorTls>)>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listen");
        let address = listener.local_addr().expect("address");
        let config = HttpConfig {
            listen: Listen::Tcp(address),
            hosts: vec!["keep.example.com".parse().expect("host"), "other.example.com:8443".parse().expect("host")],
            origins: vec!["https://console.example.com".parse().expect("origin")],
            metrics_token: false,
            group: None,
            tls: tls.as_ref().map(|(config, _)| config.clone()),
        };
        let front = Arc::new(Front::new(&config, Some(address.port()), bounds));
        let release = Arc::new(Notify::new());
        let held = Arc::clone(&release);
        let answers = move |request, _named| stand_in(request, Arc::clone(&held));
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(
            HttpDoor::Tcp(listener, address, tls.map(|(_, tls)| tls)),
            front,
            answers,
            bounds,
            stopped,
        ));
        Self { address, stop, task, release }
    }

    pub(super) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.expect("connect")
    }

    /// Send these bytes on a connection of its own and read until the other side closes.
    pub(super) async fn say(&self, request: &str) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        rest(&mut stream).await
    }

    /// A request for `/` with these header lines, and the status of its answer.
    async fn status(&self, lines: &str) -> u16 {
        status(&self.say(&format!("GET / HTTP/1.1\r\nconnection: close\r\n{lines}\r\n")).await)
    }
}

pub(super) async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut answer = Vec::new();
    // A peer that is cut off gets what was sent, and then perhaps an error.
    let _cut_off = stream.read_to_end(&mut answer).await;
    String::from_utf8_lossy(&answer).into_owned()
}

pub(super) fn status(answer: &str) -> u16 {
    answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test]
async fn t_i7_a_door_is_asked_under_its_own_names_by_pages_that_are_named() {
    let door = Running::with(PATIENT).await;
    let port = door.address.port();
    let own = format!("host: 127.0.0.1:{port}\r\n");
    for (lines, expected) in [
        (own.clone(), 200),
        (format!("host: LOCALHOST:{port}\r\n"), 200),
        ("host: keep.example.com\r\n".to_owned(), 200),
        ("host: keep.example.com:444\r\n".to_owned(), 200),
        ("host: other.example.com:8443\r\n".to_owned(), 200),
        ("host: other.example.com\r\n".to_owned(), 421),
        ("host: evil.example\r\n".to_owned(), 421),
        (format!("host: keep.example.com.evil.example:{port}\r\n"), 421),
        (format!("host: 127.0.0.1.:{port}\r\n"), 421),
        (format!("host: 127.1:{port}\r\n"), 421),
        (format!("host: localhost:{}\r\n", port ^ 1), 421),
        ("host: localhost\r\n".to_owned(), 421),
        (String::new(), 400),
        ("host: \r\n".to_owned(), 400),
        (format!("host: u@127.0.0.1:{port}\r\n"), 400),
        (format!("{own}{own}"), 400),
        (format!("{own}origin: https://console.example.com\r\n"), 200),
        (format!("{own}origin: http://127.0.0.1:{port}\r\n"), 200),
        (format!("{own}origin: http://localhost:{port}\r\n"), 403),
        (format!("{own}origin: https://127.0.0.1:{port}\r\n"), 403),
        (format!("{own}origin: http://console.example.com\r\n"), 403),
        (format!("{own}origin: https://console.example.com:444\r\n"), 403),
        (format!("{own}origin: https://evil.example\r\n"), 403),
        (format!("{own}origin: null\r\n"), 403),
        (format!("{own}origin: *\r\n"), 403),
        (format!("{own}origin: https://console.example.com\r\norigin: https://evil.example\r\n"), 403),
        (format!("{own}sec-fetch-site: cross-site\r\n"), 403),
        (format!("{own}sec-fetch-site: same-site\r\n"), 403),
        (format!("{own}sec-fetch-site: same-origin\r\n"), 200),
        (format!("{own}sec-fetch-site: cross-site\r\norigin: https://console.example.com\r\n"), 200),
    ] {
        assert_eq!(door.status(&lines).await, expected, "{lines:?}");
    }
}

#[tokio::test]
async fn r20_only_a_named_page_is_told_that_it_may_read() {
    let door = Running::with(PATIENT).await;
    let ask = |method: &str, origin: &str, more: &str| {
        let port = door.address.port();
        format!("{method} / HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\norigin: {origin}\r\n{more}\r\n")
    };
    let named = door.say(&ask("GET", "https://console.example.com", "")).await;
    assert!(named.contains("access-control-allow-origin: https://console.example.com\r\n"), "{named}");
    assert!(named.contains("vary: origin\r\n") && named.contains("cache-control: no-store\r\n"), "{named}");
    let wants = "access-control-request-method: POST\r\n";
    let may = door.say(&ask("OPTIONS", "https://console.example.com", wants)).await;
    assert_eq!(status(&may), 204);
    assert!(may.contains("access-control-allow-methods:"), "{may}");
    let may_not = door.say(&ask("OPTIONS", "https://evil.example", wants)).await;
    assert_eq!(status(&may_not), 403);
    for answer in [named, may, may_not] {
        assert!(!answer.contains("allow-origin: *") && !answer.contains("allow-credentials"), "{answer}");
    }
}

#[tokio::test]
async fn what_is_no_plain_request_of_this_version_is_refused() {
    let door = Running::with(PATIENT).await;
    let port = door.address.port();
    for (request, expected) in [
        (format!("GET / HTTP/1.0\r\nhost: localhost:{port}\r\n\r\n"), 505),
        (format!("GET http://localhost:{port}/ HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n"), 400),
        (format!("OPTIONS * HTTP/1.1\r\nhost: localhost:{port}\r\nconnection: close\r\n\r\n"), 400),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 400),
        ("nonsense\r\n\r\n".to_owned(), 400),
    ] {
        let answer = door.say(&request).await;
        assert!(status(&answer) == expected || answer.is_empty() && expected == 400, "{request:?}: {answer}");
    }
}

#[tokio::test]
async fn fields_and_the_head_are_bounded() {
    let door = Running::with(PATIENT).await;
    let port = door.address.port();
    // `host` and `connection` are two.
    let fields = |n: usize| {
        let more: String = (0..n - 2).map(|k| format!("x-{k}: 1\r\n")).collect();
        format!("host: localhost:{port}\r\n{more}")
    };
    assert_eq!(door.status(&fields(FIELDS_MAX)).await, 200);
    assert_eq!(door.status(&fields(FIELDS_MAX + 1)).await, 431);
    let head = |bytes: usize| {
        let shell = "GET / HTTP/1.1\r\nconnection: close\r\n".len() + "\r\n".len();
        let host = format!("host: localhost:{port}\r\n");
        let filling = bytes - shell - host.len() - "x: \r\n".len();
        format!("{host}x: {}\r\n", "y".repeat(filling))
    };
    assert_eq!(door.status(&head(HEAD_MAX_BYTES - 1)).await, 200);
    assert_eq!(door.status(&head(HEAD_MAX_BYTES + 1)).await, 431);
}

#[tokio::test]
async fn a_body_is_taken_at_its_bound_and_not_beyond_whatever_its_head_says() {
    let door = Running::with(PATIENT).await;
    let head = format!("POST /length HTTP/1.1\r\nhost: localhost:{}\r\nconnection: close\r\n", door.address.port());
    for (bytes, expected) in [(BODY, 200), (BODY + 1, 413)] {
        let announced = format!("{head}content-length: {bytes}\r\n\r\n{}", "x".repeat(bytes));
        assert_eq!(status(&door.say(&announced).await), expected);
    }
    for (bytes, expected) in [(BODY, 200), (BODY + 1, 400)] {
        let chunked =
            format!("{head}transfer-encoding: chunked\r\n\r\n{bytes:x}\r\n{}\r\n0\r\n\r\n", "x".repeat(bytes));
        assert_eq!(status(&door.say(&chunked).await), expected);
    }
    let both = format!("{head}content-length: 1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n");
    assert_ne!(status(&door.say(&both).await), 500);
    let twice = format!("{head}content-length: 1\r\ncontent-length: 2\r\n\r\nxy");
    assert_eq!(status(&door.say(&twice).await), 400);
}

#[tokio::test]
async fn n_connections_are_served_and_the_next_is_told_that_the_door_is_full() {
    let door = Running::with(HttpBounds { connections: 2, ..PATIENT }).await;
    let request = format!("GET / HTTP/1.1\r\nhost: localhost:{}\r\n\r\n", door.address.port());
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut stream = door.connect().await;
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).await.expect("answered");
        assert_eq!(&begin, b"HTTP/1.1 200");
        open.push(stream);
    }
    assert_eq!(status(&rest(&mut door.connect().await).await), 503);
    drop(open.pop());
    // The end of the other one is noticed in its own time.
    while door.status(&format!("host: localhost:{}\r\n", door.address.port())).await != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn t_n7_half_heads_and_half_bodies_are_closed() {
    let door = Running::with(HttpBounds { head: SOON, ..PATIENT }).await;
    assert_eq!(rest(&mut door.connect().await).await, "", "one that says nothing");
    assert_ne!(status(&door.say("GET / HTTP/1.1\r\nhost: loc").await), 200);
    let door = Running::with(HttpBounds { body: SOON, ..PATIENT }).await;
    let head = format!("POST /length HTTP/1.1\r\nhost: localhost:{}\r\n", door.address.port());
    let answer = door.say(&format!("{head}content-length: 10\r\n\r\nhalf")).await;
    assert!(status(&answer) == 400 && answer.contains("in time"), "{answer}");
}

#[tokio::test]
async fn t_n7_a_peer_that_does_not_read_is_closed() {
    let door = Running::with(HttpBounds { write: SOON, connections: 1, ..PATIENT }).await;
    let port = door.address.port();
    let mut slow = door.connect().await;
    slow.write_all(format!("GET /large HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").as_bytes()).await.expect("sent");
    slow.readable().await.expect("an answer begins");
    // Its place is free again although it is still there and has read nothing.
    while door.status(&format!("host: localhost:{port}\r\n")).await != 200 {
        tokio::time::sleep(SOON).await;
    }
    drop(slow);
}

#[tokio::test]
async fn t_n7_half_a_head_does_not_keep_the_daemon_from_stopping() {
    let door = Running::with(PATIENT).await;
    let port = door.address.port();
    let mut half = door.connect().await;
    half.write_all(b"GET / HTTP/1.1\r\nhost: loc").await.expect("sent");
    let mut busy = door.connect().await;
    busy.write_all(format!("GET /held HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").as_bytes()).await.expect("sent");
    while door.status(&format!("host: localhost:{port}\r\n")).await != 200 {}
    door.stop.send_replace(true);
    assert_eq!(rest(&mut half).await, "");
    assert!(!door.task.is_finished(), "one is being answered");
    door.release.notify_one();
    let answer = rest(&mut busy).await;
    assert!(status(&answer) == 200 && answer.ends_with("released"), "{answer}");
    door.task.await.expect("ended");
}

#[tokio::test]
async fn a_stop_answers_what_is_under_way_and_closes_the_rest() {
    let door = Running::with(PATIENT).await;
    let port = door.address.port();
    let mut idle = door.connect().await;
    let mut busy = door.connect().await;
    busy.write_all(format!("GET /held HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n").as_bytes()).await.expect("sent");
    // The request is in the hands of its route: what is released is released to somebody.
    while door.status(&format!("host: localhost:{port}\r\n")).await != 200 {}
    door.stop.send_replace(true);
    assert_eq!(rest(&mut idle).await, "");
    door.release.notify_one();
    let answer = rest(&mut busy).await;
    assert!(status(&answer) == 200 && answer.ends_with("released"), "{answer}");
    door.task.await.expect("ended");
    assert!(TcpStream::connect(door.address).await.is_err(), "nobody listens");
}
