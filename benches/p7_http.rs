//! P7: one read through the egress against the same request by bare hyper, over loopback, with a connection for each.
//!
//! Both ask the same server, in rounds that alternate. The egress makes no other use of a connection than the floor does: it
//! keeps none, so neither does the floor. What it adds is the guard, the checks of fields, the watch over the time and
//! an answer as owned data. A second row shows what a resolver adds: `localhost` instead of an address, on both sides.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::header::{CONNECTION, HOST, USER_AGENT};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use toolkeep::ambient::Ambient;
use toolkeep::egress::{Egress, EgressConfig, Limits, Outgoing, Resolver};
use toolkeep::secrets::Secrets;
use toolkeep_benches::report::{Row, publish};
use toolkeep_benches::{median, micros};
use toolkeep_core::net::reach::Network;

/// At most so many times the floor.
const PROMISE: f64 = 1.3;
const ROUNDS: usize = 40;
const WARM_UP_ROUNDS: usize = 5;
const PER_ROUND: usize = 200;
/// Bytes of the answer: an ordinary JSON document.
const ANSWER_BYTES: usize = 4 * 1024;

/// Answers every request, one connection each.
async fn serve(listener: TcpListener) {
    let body = Bytes::from(vec![b'a'; ANSWER_BYTES]);
    while let Ok((stream, _)) = listener.accept().await {
        let body = body.clone();
        tokio::spawn(async move {
            let _nodelay = stream.set_nodelay(true);
            let answer = hyper::service::service_fn(|_| {
                let answer = Response::new(Full::new(body.clone()));
                async move { Ok::<_, Infallible>(answer) }
            });
            let _closed =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
        });
    }
}

/// What anybody would write: connect, shake hands, send, collect.
async fn bare(host: &str, address: SocketAddr) -> usize {
    let stream = match host.parse::<std::net::IpAddr>() {
        Ok(_) => TcpStream::connect(address).await,
        Err(_) => TcpStream::connect((host, address.port())).await,
    };
    let stream = stream.expect("connected");
    stream.set_nodelay(true).expect("no delay");
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("ready");
    tokio::spawn(connection);
    let request = Request::get("/v1/tickets/7?expand=comments")
        .header(HOST, format!("{host}:{}", address.port()))
        .header(USER_AGENT, "bare")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    answer.into_body().collect().await.expect("a body").to_bytes().len()
}

async fn ours(egress: &Egress, host: &str, address: SocketAddr) -> usize {
    let url = format!("http://{host}:{}/v1/tickets/7?expand=comments", address.port());
    let request = Outgoing::new("local".parse().expect("a tenant"), "GET", &url).expect("a request");
    let request = Outgoing { network: Network::Private, ..request };
    egress.send(request, Limits::default()).await.expect("an answer").body.len()
}

async fn measure(egress: &Egress, host: &str, address: SocketAddr) -> [f64; 2] {
    let [mut figures, mut floors] = [const { Vec::new() }; 2];
    for round in 0..WARM_UP_ROUNDS + ROUNDS {
        if round == WARM_UP_ROUNDS {
            figures.clear();
            floors.clear();
        }
        for _ in 0..PER_ROUND {
            let started = Instant::now();
            assert_eq!(ours(egress, host, address).await, ANSWER_BYTES);
            figures.push(micros(started.elapsed()));
        }
        for _ in 0..PER_ROUND {
            let started = Instant::now();
            assert_eq!(bare(host, address).await, ANSWER_BYTES);
            floors.push(micros(started.elapsed()));
        }
    }
    [median(figures), median(floors)]
}

fn main() {
    let secrets = Secrets::new(BTreeMap::new(), Ambient::real());
    let egress = Egress::new(&EgressConfig::default(), Resolver::system(), secrets).expect("an egress");
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("bind");
    listener.set_nonblocking(true).expect("nonblocking");
    let address = listener.local_addr().expect("address");
    // The server has a runtime of its own, so that both clients find it equally awake.
    let server = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    server.spawn(async move { serve(TcpListener::from_std(listener).expect("a listener")).await });
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    // As in the daemon, somebody always waits for a moment that is near. In a runtime without any, setting a timer for a later
    // one wakes a sleeping thread, and only requests that are watched set timers.
    runtime.spawn(async {
        let mut housekeeping = tokio::time::interval(std::time::Duration::from_secs(1));
        loop {
            housekeeping.tick().await;
        }
    });
    let measured = runtime.spawn(async move {
        let by_address = measure(&egress, "127.0.0.1", address).await;
        [by_address, measure(&egress, "localhost", address).await]
    });
    let [by_address, by_name] = runtime.block_on(measured).expect("measured");
    let rows = [
        Row::at_most_times("P7", "a read through the egress, to an address, p50", "µs", by_address, PROMISE),
        Row::at_most_times("P7b", "the same to a name", "µs", by_name, PROMISE),
    ];
    publish(&rows, &[]);
}
