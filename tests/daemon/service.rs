//! Another system on loopback: it keeps what it was asked, and answers, refuses, hangs up or hangs as it is told.

use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};

use crate::egress::peer::read_request;

/// What the service does with a request that changes something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Manner {
    /// Does it and says so.
    Does,
    /// Does not do it, and says why.
    Refuses,
    /// Does it, and hangs up instead of saying so.
    HangsUp,
    /// Does it, and breaks while it says so.
    Breaks,
    /// Does it, and never says anything.
    Hangs,
}

/// A request that changed something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) line: String,
    pub(super) key: String,
    pub(super) body: String,
}

#[derive(Debug)]
struct State {
    manners: Vec<(&'static str, Manner)>,
    asked: Vec<Asked>,
    /// How many requests that read are refused for the moment, and how many came.
    busy: usize,
    reads: usize,
}

/// The service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
}

impl Service {
    /// One that does what it is asked.
    pub(super) fn new() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let state = Arc::new(Mutex::new(State { manners: Vec::new(), asked: Vec::new(), busy: 0, reads: 0 }));
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(stream, &state));
            }
        });
        Self { address, state }
    }

    /// From now on requests whose first line contains `part` are met so.
    pub(super) fn meets(&self, part: &'static str, manner: Manner) {
        self.state.lock().expect("state").manners.insert(0, (part, manner));
    }

    /// The next requests that read are told that it is busy.
    pub(super) fn is_busy_for(&self, count: usize) {
        self.state.lock().expect("state").busy = count;
    }

    /// How many requests came that read.
    pub(super) fn reads(&self) -> usize {
        self.state.lock().expect("state").reads
    }

    /// Everything that was asked to change.
    pub(super) fn asked(&self) -> Vec<Asked> {
        self.state.lock().expect("state").asked.clone()
    }

    /// `http://127.0.0.1:PORT`.
    pub(super) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }
}

fn serve(mut stream: TcpStream, state: &Mutex<State>) {
    let Some(request) = read_request(&mut stream) else { return };
    let text = String::from_utf8_lossy(&request).into_owned();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    let line = head.lines().next().unwrap_or_default().trim_end_matches(" HTTP/1.1").to_owned();
    let key =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("idempotency-key: ").map(str::to_owned));
    if line.starts_with("GET") {
        let busy = {
            let mut state = state.lock().expect("state");
            state.reads += 1;
            let busy = state.busy > 0;
            state.busy = state.busy.saturating_sub(1);
            busy
        };
        if busy {
            return say(&mut stream, 503, &json!({"problem": "busy"}));
        }
        let ticket = json!({"id": "7", "title": "It is broken", "state": "open"});
        return say(&mut stream, 200, &ticket);
    }
    let manner = {
        let mut state = state.lock().expect("state");
        state.asked.push(Asked { line: line.clone(), key: key.unwrap_or_default(), body: body.to_owned() });
        let met = state.manners.iter().find(|(part, _)| line.contains(part));
        met.map_or(Manner::Does, |(_, manner)| *manner)
    };
    match manner {
        Manner::Does => say(&mut stream, 201, &json!({"id": "c-1", "state": "paid"})),
        Manner::Refuses => say(&mut stream, 422, &json!({"problem": "no"})),
        Manner::Breaks => say(&mut stream, 500, &json!({})),
        Manner::HangsUp => {}
        Manner::Hangs => thread::sleep(Duration::from_secs(600)),
    }
}

fn say(stream: &mut TcpStream, status: u16, body: &Value) {
    let body = body.to_string();
    let head =
        format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let _gone = stream.write_all(format!("{head}{body}").as_bytes());
}
