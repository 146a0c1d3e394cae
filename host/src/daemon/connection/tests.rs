//! A connection over a socket pair, with a plane that answers by name of the method.

use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use super::*;
use toolkeep_sandbox::capability::context::Progress;

/// Knows: `echo` (answers its parameters), `wait` (until `release`), `news` (a note, then an answer), `panic`.
#[derive(Default)]
struct Double {
    release: tokio::sync::Notify,
    /// How many waits were dropped unfinished.
    dropped: Arc<AtomicUsize>,
    refuse: bool,
    /// Whether the peer has not said who it is.
    unproven: std::sync::atomic::AtomicBool,
}

struct CountDrop(Arc<AtomicUsize>, bool);

impl Drop for CountDrop {
    fn drop(&mut self) {
        if !self.1 {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

#[derive(Clone)]
struct Shared(Arc<Double>);

impl Plane for Shared {
    type Session = u32;

    fn open(&self, peer: Peer) -> Result<u32, Refusal> {
        if self.0.refuse { Err(Refusal::new(Code::Unauthorized, "nobody")) } else { Ok(peer.uid) }
    }

    fn is_proven(&self, _: &u32) -> bool {
        !self.0.unproven.load(Ordering::SeqCst)
    }

    fn dispatch(&self, _: &mut u32, method: &str, params: Map<String, Value>, notes: Notes) -> Dispatch {
        let double = Arc::clone(&self.0);
        match method {
            "echo" => Dispatch::Now(Body::Value(Value::Object(params))),
            "wait" => Dispatch::Later(Box::pin(async move {
                let mut guard = CountDrop(Arc::clone(&double.dropped), false);
                double.release.notified().await;
                guard.1 = true;
                Body::Value(json!("released"))
            })),
            "soon" => Dispatch::Later(Box::pin(async move { Body::Value(Value::Object(params)) })),
            "news" => Dispatch::Later(Box::pin(async move {
                let note = Progress { done: 1, total: Some(2), message: "half".to_owned() };
                notes.lines.try_send(super::super::reply::progress_line(&notes.id, &note)).expect("room");
                Body::Value(json!("done"))
            })),
            "panic" => Dispatch::Later(Box::pin(async move { panic!("as asked") })),
            other => Dispatch::Now(Body::Error(Fault::no_method(other))),
        }
    }
}

struct Peerside {
    stream: UnixStream,
    read: Vec<u8>,
    double: Arc<Double>,
    stop: watch::Sender<bool>,
    end: JoinHandle<End>,
}

impl Peerside {
    fn new(bounds: Bounds) -> Self {
        Self::with(bounds, Double::default())
    }

    fn with(bounds: Bounds, double: Double) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let double = Arc::new(double);
        let (stop, stopped) = watch::channel(false);
        let plane = Arc::new(Shared(Arc::clone(&double)));
        let end = tokio::spawn(serve(theirs, plane, bounds, Busy::default(), stopped));
        Self { stream: ours, read: Vec::new(), double, stop, end }
    }

    async fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).await.expect("send");
    }

    async fn request(&mut self, id: u32, method: &str) {
        self.send(&format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":\"{method}\",\"params\":{{\"n\":{id}}}}}\n"))
            .await;
    }

    /// The next line; nothing at the end.
    async fn line(&mut self) -> Option<Value> {
        loop {
            if let Some(at) = self.read.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.read.drain(..=at).collect();
                return Some(serde_json::from_slice(&line).expect("a whole line is JSON"));
            }
            // A peer that is closed with bytes unread gets a reset instead of an end.
            if self.stream.read_buf(&mut self.read).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    async fn id_and_result(&mut self) -> (Value, Value) {
        let line = self.line().await.expect("a reply");
        (line["id"].clone(), line["result"].clone())
    }

    async fn error(&mut self) -> (Value, i64, Value) {
        let line = self.line().await.expect("a reply");
        (line["id"].clone(), line["error"]["code"].as_i64().expect("an error"), line["error"]["data"]["code"].clone())
    }
}

fn bounds() -> Bounds {
    Bounds::default()
}

#[tokio::test]
async fn a_request_is_answered_and_a_fault_leaves_the_connection_usable() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "echo").await;
    assert_eq!(peer.id_and_result().await, (json!(1), json!({"n": 1})));
    peer.send("{nonsense\n").await;
    assert_eq!(peer.error().await, (Value::Null, -32_700, json!("invalid_input")));
    peer.send("\n").await;
    assert_eq!(peer.error().await.1, -32_700, "an empty line is no message");
    peer.send("\"\u{e9}\"\n").await;
    assert_eq!(peer.error().await.1, -32_600);
    peer.stream.write_all(b"{\"a\":\"\xff\"}\n").await.expect("send");
    assert_eq!(peer.error().await.1, -32_700, "invalid UTF-8");
    peer.request(2, "approvals.approve").await;
    assert_eq!(peer.error().await, (json!(2), -32_601, json!("invalid_input")));
    peer.request(3, "soon").await;
    assert_eq!(peer.id_and_result().await, (json!(3), json!({"n": 3})));
}

#[tokio::test]
async fn replies_come_as_they_are_done_and_carry_their_own_ids() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "wait").await;
    peer.request(2, "soon").await;
    peer.request(3, "echo").await;
    let mut seen = [peer.id_and_result().await, peer.id_and_result().await];
    seen.sort_by_key(|(id, _)| id.as_u64());
    assert_eq!(seen, [(json!(2), json!({"n": 2})), (json!(3), json!({"n": 3}))]);
    peer.double.release.notify_one();
    assert_eq!(peer.id_and_result().await, (json!(1), json!("released")));
}

#[tokio::test]
async fn progress_comes_before_the_reply_it_belongs_to() {
    let mut peer = Peerside::new(bounds());
    peer.request(9, "news").await;
    let note = peer.line().await.expect("a note");
    assert_eq!(note["method"], json!("call.progress"));
    assert_eq!(note["params"], json!({"request": 9, "done": 1, "total": 2, "message": "half"}));
    assert_eq!(peer.id_and_result().await, (json!(9), json!("done")));
}

#[tokio::test]
async fn a_panic_is_answered_and_harms_nobody_else() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "panic").await;
    assert_eq!(peer.error().await, (json!(1), i64::from(Code::Internal.rpc()), json!("internal")));
    peer.request(2, "echo").await;
    assert_eq!(peer.id_and_result().await.0, json!(2));
}

#[tokio::test]
async fn calls_in_flight_hold_at_n_and_n_plus_1() {
    let mut peer = Peerside::new(Bounds { in_flight: 2, ..bounds() });
    peer.request(1, "wait").await;
    peer.request(2, "wait").await;
    peer.request(3, "wait").await;
    assert_eq!(peer.error().await, (json!(3), i64::from(Code::Overloaded.rpc()), json!("overloaded")));
    peer.double.release.notify_one();
    assert_eq!(peer.id_and_result().await.1, json!("released"));
    peer.request(4, "soon").await;
    assert_eq!(peer.id_and_result().await.0, json!(4));
}

#[tokio::test]
async fn a_line_holds_at_n_and_n_plus_1_bytes() {
    let line = |bytes: usize| {
        let head = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{\"x\":\"";
        format!("{head}{}\"}}}}\n", "y".repeat(bytes - head.len() - 3))
    };
    let mut peer = Peerside::new(Bounds { line_bytes: 200, ..bounds() });
    peer.send(&line(200)).await;
    assert_eq!(peer.id_and_result().await.0, json!(1));
    peer.send(&line(201)).await;
    assert_eq!(peer.error().await.1, -32_600);
    assert_eq!(peer.line().await, None);
    assert_eq!(peer.end.await.expect("end"), End::LineTooLong);
}

#[tokio::test]
async fn a_half_line_is_closed_even_if_it_keeps_dribbling() {
    let mut peer = Peerside::new(Bounds { line_timeout: Duration::from_millis(60), ..bounds() });
    peer.send("{\"jsonrpc\"").await;
    // A byte now and then does not buy time: the connection ends while we still send.
    for _ in 0..1000 {
        if peer.end.is_finished() || peer.stream.write_all(b" ").await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(peer.error().await.1, -32_600);
    assert_eq!(peer.end.await.expect("end"), End::HalfLine);
}

#[tokio::test]
async fn t_i6_a_peer_that_does_not_say_who_it_is_is_closed_in_time() {
    let nobody = || Double { unproven: true.into(), ..Double::default() };
    let hurried = Bounds { proof_timeout: Duration::from_millis(60), ..bounds() };
    let mut peer = Peerside::with(hurried, nobody());
    peer.double.unproven.store(false, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(200)).await;
    peer.request(1, "soon").await;
    assert!(peer.line().await.is_some(), "one that said so in time is served");
    let mut peer = Peerside::with(hurried, nobody());
    assert_eq!(peer.error().await.1, 1_001);
    assert_eq!(peer.end.await.expect("end"), End::Unproven);
}

#[tokio::test]
async fn a_peer_that_does_not_read_is_closed() {
    let bounds = Bounds { write_timeout: Duration::from_millis(60), outbound_bytes: 4096, ..bounds() };
    let mut peer = Peerside::new(bounds);
    let request = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{{\"x\":\"{}\"}}}}\n",
        "y".repeat(60_000)
    );
    // Far more than the socket's own buffers hold: sending stops when the daemon stops reading.
    for _ in 0..1000 {
        if peer.end.is_finished() || peer.stream.write_all(request.as_bytes()).await.is_err() {
            break;
        }
    }
    assert_eq!(peer.end.await.expect("end"), End::SlowReader);
}

#[tokio::test]
async fn a_dropped_connection_drops_what_it_waits_for() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "wait").await;
    peer.request(2, "wait").await;
    peer.request(3, "echo").await;
    assert_eq!(peer.id_and_result().await.0, json!(3), "both waits have begun");
    let dropped = Arc::clone(&peer.double.dropped);
    drop(peer.stream);
    assert_eq!(peer.end.await.expect("end"), End::Closed);
    while dropped.load(Ordering::SeqCst) < 2 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_peer_that_only_finished_sending_still_gets_its_reply() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "wait").await;
    peer.stream.shutdown().await.expect("shutdown");
    tokio::task::yield_now().await;
    peer.double.release.notify_one();
    assert_eq!(peer.id_and_result().await, (json!(1), json!("released")));
    assert_eq!(peer.line().await, None);
    assert_eq!(peer.end.await.expect("end"), End::Closed);
}

#[tokio::test]
async fn a_stop_answers_what_is_in_flight_and_reads_nothing_more() {
    let mut peer = Peerside::new(bounds());
    peer.request(1, "wait").await;
    peer.request(2, "echo").await;
    assert_eq!(peer.id_and_result().await.0, json!(2));
    peer.stop.send(true).expect("stop");
    tokio::task::yield_now().await;
    peer.double.release.notify_one();
    assert_eq!(peer.id_and_result().await, (json!(1), json!("released")));
    assert_eq!(peer.end.await.expect("end"), End::Drained);
}

#[tokio::test]
async fn t_i6_a_peer_that_nobody_knows_hears_why_and_is_closed() {
    let mut peer = Peerside::with(bounds(), Double { refuse: true, ..Double::default() });
    assert_eq!(peer.error().await, (Value::Null, i64::from(Code::Unauthorized.rpc()), json!("unauthorized")));
    assert_eq!(peer.line().await, None);
    assert_eq!(peer.end.await.expect("end"), End::Refused);
}

#[tokio::test]
async fn t_i3_a_hundred_connections_with_the_same_id_never_see_each_other() {
    let double = Arc::new(Double::default());
    let plane = Arc::new(Shared(double));
    let (_stop, stopped) = watch::channel(false);
    let mut clients = JoinSet::new();
    for client in 0..100_u32 {
        let (mut ours, theirs) = UnixStream::pair().expect("pair");
        let plane = Arc::clone(&plane);
        let stopped = stopped.clone();
        clients.spawn(async move {
            let server = tokio::spawn(serve(theirs, plane, bounds(), Busy::default(), stopped));
            for round in 0..20 {
                let method = if round % 2 == 0 { "soon" } else { "echo" };
                let request = json!({"jsonrpc": "2.0", "id": 0, "method": method, "params": {"n": client, "r": round}});
                ours.write_all(format!("{request}\n").as_bytes()).await.expect("send");
                let mut read = Vec::new();
                while read.last() != Some(&b'\n') {
                    assert_ne!(ours.read_buf(&mut read).await.expect("read"), 0);
                }
                let reply: Value = serde_json::from_slice(&read).expect("one line");
                assert_eq!(reply["result"], json!({"n": client, "r": round}));
            }
            drop(ours);
            assert_eq!(server.await.expect("end"), End::Closed);
        });
    }
    while let Some(client) = clients.join_next().await {
        client.expect("client");
    }
}

#[tokio::test]
async fn t_r4_lines_are_answered_while_there_is_room_and_held_back_above_it() {
    let line = "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\",\"params\":{}}\n";
    let answered = |outbound_bytes: usize, lines: usize| {
        let plane = Shared(Arc::new(Double::default()));
        let (sender, _notes) = mpsc::channel(1);
        let bounds = Bounds { outbound_bytes, ..bounds() };
        let mut connection = Connection::new(&plane, 0, (bounds, Busy::default()), sender);
        connection.input.room().extend_from_slice(line.repeat(lines).as_bytes());
        let held_back = connection.take_lines().expect("lines");
        (connection.output.len(), held_back)
    };
    let (one, _) = answered(1, 1);
    assert_eq!(answered(3 * one, 3), (3 * one, false), "as many as there is room for");
    assert_eq!(answered(3 * one, 4), (3 * one, true), "the next waits until some were taken");
    assert_eq!(answered(3 * one - 1, 100), (3 * one, true), "one answer may stand out");
}

#[tokio::test]
async fn t_r4_whoever_sends_many_short_lines_and_reads_late_gets_every_answer() {
    let mut peer = Peerside::new(Bounds { outbound_bytes: 4096, ..bounds() });
    // Their answers are ten times what the socket's own buffers hold.
    let (mut reading, mut writing) = peer.stream.split();
    let sent = 20_000;
    let lines = "1\n".repeat(sent);
    let send = async {
        writing.write_all(lines.as_bytes()).await.expect("sent");
        writing.shutdown().await.expect("shut");
    };
    let take = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let mut all = Vec::new();
        reading.read_to_end(&mut all).await.expect("read");
        all.iter().filter(|byte| **byte == b'\n').count()
    };
    let ((), answered) = tokio::join!(send, take);
    assert_eq!(answered, sent);
    assert_eq!(peer.end.await.expect("end"), End::Closed);
}
