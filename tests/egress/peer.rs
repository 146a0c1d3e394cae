//! Peers: listeners on loopback, each connection in a thread of its own, no HTTP library on this side.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

/// How long a peer waits for bytes that do not come: only a broken test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);

/// A listener that counts who comes.
pub(crate) struct Peer {
    address: SocketAddr,
    seen: Arc<Seen>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<Vec<u8>>>,
    stopped: AtomicBool,
}

impl Peer {
    /// Gives every request that comes whole the answer `respond` makes of it, then closes.
    pub(crate) fn new(respond: impl Fn(&[u8]) -> Vec<u8> + Send + Sync + 'static) -> Self {
        Self::raw(move |stream, request| {
            let _gone = stream.write_all(&respond(request));
        })
    }

    /// Gives every request the same answer.
    pub(super) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::new(move |_| answer.clone())
    }

    /// Does with the connection of every request what it likes.
    pub(crate) fn raw(respond: impl Fn(&mut TcpStream, &[u8]) + Send + Sync + 'static) -> Self {
        Self::connected(move |stream, seen| {
            let Some(request) = read_request(stream) else { return };
            seen(request.clone());
            respond(stream, &request);
        })
    }

    /// Does with every connection what it likes, and says what it read.
    pub(super) fn connected(serve: impl Fn(&mut TcpStream, &dyn Fn(Vec<u8>)) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("bind");
        let address = listener.local_addr().expect("address");
        let (seen, serve) = (Arc::new(Seen::default()), Arc::new(serve));
        let shared = Arc::clone(&seen);
        let accepting = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let (Ok(mut stream), seen, serve) = (stream, Arc::clone(&shared), Arc::clone(&serve)) else { continue };
                std::thread::spawn(move || {
                    stream.set_read_timeout(Some(PATIENCE)).expect("timeout");
                    serve(&mut stream, &|request| seen.requests.lock().expect("requests").push(request));
                    let _gone = stream.shutdown(Shutdown::Write);
                    // What the other side still sends would otherwise turn our close into a reset.
                    let _rest = stream.set_read_timeout(Some(Duration::from_millis(200)));
                    let _rest = std::io::copy(&mut stream, &mut std::io::sink());
                });
            }
        });
        Self { address, seen, accepting: Some(accepting) }
    }

    pub(super) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// Requests so far, byte for byte.
    pub(crate) fn requests(&self) -> Vec<Vec<u8>> {
        self.seen.requests.lock().expect("requests").clone()
    }

    /// The only request, as text.
    pub(super) fn request(&self) -> String {
        let requests = self.requests();
        assert_eq!(requests.len(), 1, "one request");
        String::from_utf8(requests.into_iter().next().expect("one")).expect("text")
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.seen.stopped.store(true, Ordering::SeqCst);
        let _wake = TcpStream::connect(self.address);
        let _ended = self.accepting.take().map(JoinHandle::join);
    }
}

/// One request: its head, and as many bytes as it announces.
pub(crate) fn read_request(stream: &mut TcpStream) -> Option<Vec<u8>> {
    let mut request = Vec::new();
    let mut piece = [0_u8; 64 * 1024];
    loop {
        if let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if request.len() >= end + 4 + length.unwrap_or(0) {
                return Some(request);
            }
        }
        match stream.read(&mut piece) {
            Ok(0) | Err(_) => return None,
            Ok(count) => request.extend_from_slice(&piece[..count]),
        }
    }
}

/// An answer with a length.
pub(super) fn ok(body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let mut answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).into_bytes();
    answer.extend_from_slice(body);
    answer
}
