//! Accepting connections, and ending them in order.
//!
//! Every connection is a task of one set that lives as long as its door; nothing is spawned that nobody waits for. At
//! the cap a connection is accepted, told `overloaded` and closed, so that a client learns why instead of waiting. When
//! the daemon stops, doors close first, then connections answer what is in flight, and what is not done in time is
//! dropped.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::watch;
use tokio::task::JoinSet;
use toolkeep_core::refusal::{Code, Refusal};

use super::bounds::{Bounds, RETRY_AFTER_MS};
use super::connection::{self, End};
use super::linger::Busy;
use super::plane::Plane;
use super::socket::Door;
use super::wire;

/// How long to rest after an accept failed, for example because there are no more descriptors.
pub(super) const ACCEPT_REST: Duration = Duration::from_millis(50);

/// Serve one door until `stop` says so and every connection has ended. Dropping the future drops the connections.
pub(super) async fn serve<P: Plane>(door: Door, plane: Arc<P>, bounds: Bounds, mut stop: watch::Receiver<bool>) {
    let mut connections: JoinSet<End> = JoinSet::new();
    let (for_connections, busy) = (stop.clone(), Busy::default());
    loop {
        tokio::select! {
            accepted = door.listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() < bounds.connections => {
                    let stop = for_connections.clone();
                    connections.spawn(connection::serve(stream, Arc::clone(&plane), bounds, busy.connect(), stop));
                }
                Ok((stream, _)) => turn_away(stream, connections.len()),
                Err(error) => {
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_REST).await;
                }
            },
            Some(ended) = connections.join_next(), if !connections.is_empty() => note(ended),
            () = stop_asked(&mut stop) => break,
        }
    }
    drop(door);
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

/// Wait until the daemon is to stop. One whose owner is gone stops too.
pub(super) async fn stop_asked(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stopping| *stopping).await.is_err() {
        tracing::debug!("nobody is left who could ask to stop");
    }
}

fn note(ended: Result<End, tokio::task::JoinError>) {
    match ended {
        Ok(End::Closed | End::Drained | End::Refused) => {}
        Ok(end @ (End::LineTooLong | End::Unproven | End::HalfLine | End::SlowReader | End::Broken)) => {
            tracing::info!(?end, "a connection was closed");
        }
        Err(error) => tracing::error!(%error, "BUG: a connection's task failed"),
    }
}

fn turn_away(stream: UnixStream, connections: usize) {
    tracing::warn!(connections, "a connection is turned away");
    let refusal =
        Refusal::new(Code::Overloaded, format!("{connections} connections are open")).after_ms(RETRY_AFTER_MS);
    match wire::ends(stream) {
        Ok((_reader, writer)) => connection::farewell(&writer, refusal.into()),
        Err(error) => tracing::debug!(%error, "the peer could not be told"),
    }
}
