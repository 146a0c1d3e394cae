//! Another system that goes wrong in every way it can, and keeps book of what it has really done.
//!
//! What it does with a request is said by the request's path, so that a test knows of each request what must become of it.
//! A request counts as done when it was read whole and the peer did not refuse it: from then on its effect is there, whatever
//! the sender gets to hear of it.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketAddrV4, SocketType};

use crate::egress::peer::read_request;

/// How long the peer holds a connection that nobody ends.
const HOLD: Duration = Duration::from_secs(20);
/// Bytes of an answer that is too large.
const TOO_LARGE_BYTES: usize = 64 << 10;

/// One way to go wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fault {
    /// Nothing goes wrong: this status, with a body.
    Answers(u16),
    /// The connection is reset before anything of the request was read.
    ResetsUnread,
    /// It is closed before anything was read.
    ClosesUnread,
    /// It is reset when the head was read, and of the body a part.
    ResetsHalfRead,
    /// It is reset when all of the request was read.
    ResetsRead,
    /// It is closed then.
    ClosesRead,
    /// Half of the answer's head, then nothing.
    HalfHead,
    /// Not HTTP.
    Garbage,
    /// Never an answer.
    Hangs,
    /// An answer without an end: one byte after the other, slower than anybody waits.
    Dribbles,
    /// An answer in small pieces, but in time.
    Slow,
    /// A whole head and half of the body.
    CutBody,
    /// A whole head and nothing of the body.
    NoBody,
    /// More body than the grant allows.
    TooLarge,
    /// More head than anybody reads.
    HugeHead,
    /// A chunk that is none.
    BadChunk,
    /// The protocol of 1996: the end of the connection is the end of the body.
    OldProtocol,
    /// First `100 Continue`, which nobody asked for.
    Continues,
    /// Another protocol, which nobody asked for either.
    Switches,
}

impl Fault {
    /// How a call may end whose request is met so.
    pub(super) fn may_end(self) -> &'static [&'static str] {
        match self {
            Self::Answers(200..=299 | 303) => &["committed"],
            Self::Answers(408) => &["unknown"],
            Self::Answers(300..=499) => &["discarded"],
            Self::Answers(_) => &["unknown"],
            // If no byte had left by then it is no question what happened: nothing.
            Self::ResetsUnread | Self::ClosesUnread => &["unknown", "discarded"],
            Self::ResetsHalfRead
            | Self::ResetsRead
            | Self::ClosesRead
            | Self::HalfHead
            | Self::Garbage
            | Self::Hangs
            | Self::Dribbles
            | Self::HugeHead
            | Self::Switches => &["unknown"],
            // The head says that it was done; what is missing is only what it says besides.
            Self::Slow
            | Self::CutBody
            | Self::NoBody
            | Self::TooLarge
            | Self::BadChunk
            | Self::OldProtocol
            | Self::Continues => &["committed"],
        }
    }

    /// Whether the peer does what it is asked.
    fn does(self) -> bool {
        match self {
            Self::Answers(status) => !(300..=499).contains(&status) || status == 303 || status == 408,
            Self::ResetsUnread | Self::ClosesUnread | Self::ResetsHalfRead => false,
            _ => true,
        }
    }
}

/// A request that was read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Read {
    /// `POST /path`.
    pub(super) line: String,
    /// Its `Idempotency-Key`.
    pub(super) key: String,
    pub(super) body: String,
    /// Whether its effect is there.
    pub(super) done: bool,
}

/// A moment at which the peer stands still until it is told to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moment {
    /// The connection is made.
    Accepted,
    /// A part of the request was read.
    HalfRead,
    /// All of it was read.
    Read,
    /// Half of the answer was written.
    HalfAnswered,
    /// All of it was written.
    Answered,
}

#[derive(Debug, Default)]
struct State {
    reads: Vec<Read>,
    /// What the next requests to a path are met with, in their order; the last one stays.
    script: BTreeMap<String, Vec<Fault>>,
    /// Where it stands still.
    stop: Option<Moment>,
    /// For which path only.
    only: Option<String>,
    /// Whether it stands there.
    reached: bool,
}

/// The peer.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    address: SocketAddr,
    state: Arc<(Mutex<State>, Condvar)>,
}

impl Peer {
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let peer = Self { address, state: Arc::default() };
        let shared = peer.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let peer = shared.clone();
                thread::spawn(move || peer.serve(stream));
            }
        });
        peer
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Meet requests to `path` so, one after the other.
    pub(super) fn meets(&self, path: impl Into<String>, faults: &[Fault]) {
        let mut script: Vec<Fault> = faults.to_vec();
        script.reverse();
        self.lock().script.insert(path.into(), script);
    }

    /// Stand still at this moment of the next request.
    pub(super) fn stop_at(&self, moment: Option<Moment>) {
        self.stop(moment, None);
    }

    /// Stand still at this moment of the next request to this path.
    pub(super) fn stop_at_path(&self, path: &str, moment: Moment) {
        self.stop(Some(moment), Some(path.to_owned()));
    }

    fn stop(&self, moment: Option<Moment>, only: Option<String>) {
        let mut state = self.lock();
        (state.stop, state.only, state.reached) = (moment, only, false);
        drop(state);
        self.state.1.notify_all();
    }

    /// Wait until it stands still. False if it does not come to that.
    pub(super) fn stands(&self, within: Duration) -> bool {
        let state = self.lock();
        let (state, _) = self.state.1.wait_timeout_while(state, within, |state| !state.reached).expect("state");
        state.reached
    }

    /// Every request that was read whole.
    pub(super) fn reads(&self) -> Vec<Read> {
        self.lock().reads.clone()
    }

    /// Those to this path, whatever their method.
    pub(super) fn reads_of(&self, path: &str) -> Vec<Read> {
        let to = |read: &Read| read.line.split(' ').nth(1) == Some(path);
        self.lock().reads.iter().filter(|read| to(read)).cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.0.lock().expect("state")
    }

    /// Stand still here, if that was wanted, until told otherwise.
    fn pass(&self, moment: Moment, path: &str) {
        let mut state = self.lock();
        let wanted = state.only.as_deref().is_none_or(|only| only == path);
        if state.stop == Some(moment) && wanted && !state.reached {
            state.reached = true;
            self.state.1.notify_all();
            let waited = self.state.1.wait_timeout_while(state, HOLD, |state| state.stop == Some(moment));
            drop(waited.expect("state"));
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        stream.set_read_timeout(Some(HOLD)).expect("timeout");
        self.pass(Moment::Accepted, "");
        // Which fault it is stands in the first line, so look without taking anything.
        let mut look = [0_u8; 512];
        let Ok(seen) = stream.peek(&mut look) else { return };
        let first = String::from_utf8_lossy(&look[..seen]).lines().next().unwrap_or_default().to_owned();
        let path = first.split(' ').nth(1).unwrap_or_default().to_owned();
        let fault = {
            let mut state = self.lock();
            let script = state.script.get_mut(&path);
            script.map_or(Fault::Answers(201), |faults| {
                if faults.len() > 1 { faults.pop() } else { faults.last().copied() }.expect("one")
            })
        };
        match fault {
            Fault::ResetsUnread => return reset(stream),
            Fault::ClosesUnread => return,
            Fault::ResetsHalfRead => {
                let mut some = vec![0; 4096];
                let _head = stream.read(&mut some);
                return reset(stream);
            }
            _ => {}
        }
        if self.lock().stop == Some(Moment::HalfRead) {
            let mut one = [0_u8; 1];
            let _taken = stream.read(&mut one);
            self.pass(Moment::HalfRead, &path);
            return;
        }
        let Some(request) = read_request(&mut stream) else { return };
        self.note(&request, fault);
        self.pass(Moment::Read, &path);
        self.answer(stream, fault, &path);
    }

    fn note(&self, request: &[u8], fault: Fault) {
        let text = String::from_utf8_lossy(request);
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
        let key = lines.find_map(|line| line.to_ascii_lowercase().strip_prefix("idempotency-key: ").map(str::to_owned));
        let done = fault.does();
        self.lock().reads.push(Read { line, key: key.unwrap_or_default(), body: body.to_owned(), done });
    }

    fn answer(&self, mut stream: TcpStream, fault: Fault, path: &str) {
        let whole = "HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"id\":\"r-1\"}";
        let mut say = |text: &[u8]| {
            let _gone = stream.write_all(text).and_then(|()| stream.flush());
        };
        match fault {
            Fault::ResetsRead => return reset(stream),
            Fault::ResetsUnread | Fault::ClosesUnread | Fault::ResetsHalfRead | Fault::ClosesRead => {}
            Fault::Hangs => thread::sleep(HOLD),
            Fault::HalfHead => say(b"HTTP/1.1 200 OK\r\ncontent-le"),
            Fault::Garbage => say(b"\x16\x03\x01 this is no answer\r\n\r\n"),
            Fault::Dribbles => {
                say(b"HTTP/1.1 200 OK\r\nx-a: ");
                (0..2_000).for_each(|_| {
                    thread::sleep(Duration::from_millis(10));
                    say(b"a");
                });
            }
            Fault::Slow => whole.as_bytes().chunks(6).for_each(|piece| {
                thread::sleep(Duration::from_millis(2));
                say(piece);
            }),
            Fault::CutBody => say(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"id\":\"r-"),
            Fault::NoBody => say(b"HTTP/1.1 201 Created\r\ncontent-length: 100\r\n\r\n"),
            Fault::TooLarge => {
                let body = "x".repeat(TOO_LARGE_BYTES);
                say(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes());
            }
            Fault::HugeHead => say(format!("HTTP/1.1 200 OK\r\nx-a: {}\r\n\r\n", "a".repeat(256 << 10)).as_bytes()),
            Fault::BadChunk => say(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nno chunk\r\n"),
            Fault::OldProtocol => say(b"HTTP/1.0 200 OK\r\ncontent-type: application/json\r\n\r\n{\"id\":\"r-1\"}"),
            Fault::Continues => say(format!("HTTP/1.1 100 Continue\r\n\r\n{whole}").as_bytes()),
            Fault::Switches => say(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            Fault::Answers(status) => {
                let body = r#"{"id":"r-1"}"#;
                let none = status == 204 || status == 304;
                let length = if none { String::new() } else { format!("content-length: {}\r\n", body.len()) };
                let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{length}\r\n");
                let (first, rest) = head.split_at(head.len() / 2);
                say(first.as_bytes());
                self.pass(Moment::HalfAnswered, path);
                say(rest.as_bytes());
                say(if none { b"" } else { body.as_bytes() });
            }
        }
        self.pass(Moment::Answered, path);
    }
}

/// End a connection with a reset instead of an orderly close.
fn reset(stream: TcpStream) {
    rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).expect("linger");
    drop(stream);
}

/// A port of this machine where nobody listens, and that nobody else gets while this lives.
#[derive(Debug)]
pub(super) struct Deaf {
    _held: OwnedFd,
    pub(super) origin: String,
}

impl Deaf {
    pub(super) fn new() -> Self {
        let held = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).expect("socket");
        rustix::net::bind(&held, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = rustix::net::getsockname(&held).expect("address");
        let address: SocketAddrV4 = address.try_into().expect("an address of version 4");
        Self { _held: held, origin: format!("http://{address}") }
    }
}
