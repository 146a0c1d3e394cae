//! Requests of one connection that are being worked on, by the ids that their client gave them.
//!
//! Ids are the client's own, so the book belongs to the connection and is never asked for an id of another one (T-I3).

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use crate::daemon::envelope::RequestId;
use crate::daemon::plane::Work;
use crate::daemon::reply::Body;

/// The book.
#[derive(Debug, Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<RequestId, Arc<Notify>>>>);

/// A place in it, until it is dropped.
#[derive(Debug)]
struct Place {
    flights: Flights,
    id: RequestId,
}

impl Flights {
    /// Make work that can be cancelled by its id. Nothing where a request of this id is under way.
    pub(super) fn enter(&self, id: &RequestId, work: impl Future<Output = Body> + Send + 'static) -> Option<Work> {
        let cancelled = Arc::new(Notify::new());
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if flights.contains_key(id) {
            return None;
        }
        flights.insert(id.clone(), Arc::clone(&cancelled));
        drop(flights);
        let place = Place { flights: self.clone(), id: id.clone() };
        Some(Box::pin(async move {
            let _place = place;
            tokio::select! {
                body = work => body,
                // Whoever cancels waits for no answer.
                () = cancelled.notified() => Body::Instead(Vec::new()),
            }
        }))
    }

    /// Cancel. What is not under way any more was answered, or will be.
    pub(super) fn cancel(&self, id: &RequestId) {
        if let Some(cancelled) = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(id) {
            cancelled.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.flights.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_cancelled_has_no_answer_and_its_id_is_free_again() {
        let (flights, id) = (Flights::default(), RequestId::Number(1));
        let work = flights.enter(&id, std::future::pending()).expect("free");
        assert!(flights.enter(&id, std::future::pending()).is_none(), "one request of one id");
        flights.cancel(&RequestId::Text("1".into()));
        flights.cancel(&id);
        assert!(matches!(work.await, Body::Instead(lines) if lines.is_empty()));
        assert!(flights.enter(&id, async { Body::Value(7.into()) }).is_some());
        drop(flights.enter(&id, std::future::pending()));
        assert!(flights.enter(&id, std::future::pending()).is_some(), "nobody holds a place whose work is gone");
    }
}
