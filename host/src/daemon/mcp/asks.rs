//! Questions to a client that are open: requests of the daemon's own, which the older era sends over a connection or a session.
//!
//! Their ids mean something within the book that they were asked from and nowhere else, so an answer over another connection
//! or in another session answers nothing (T-I3). What nobody answers is forgotten with the call that asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use tokio::sync::oneshot;

use crate::daemon::envelope::RequestId;

/// Questions of one client that are open at one time: a person answers one after another.
const OPEN_MAX: usize = 8;
/// What the id of every question begins with.
const PREFIX: &str = "toolkeep-";

/// The questions of one connection or session.
#[derive(Debug, Clone, Default)]
pub(super) struct Asks(Arc<Mutex<Book>>);

#[derive(Debug, Default)]
struct Book {
    asked: u64,
    open: HashMap<u64, oneshot::Sender<Option<Value>>>,
}

/// One question, until it is answered or dropped.
#[derive(Debug)]
pub(super) struct Ask {
    asks: Asks,
    number: u64,
    answer: oneshot::Receiver<Option<Value>>,
}

impl Asks {
    fn book(&self) -> MutexGuard<'_, Book> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Open a question. Nothing where too many are open.
    pub(super) fn open(&self) -> Option<Ask> {
        let mut book = self.book();
        if book.open.len() >= OPEN_MAX {
            return None;
        }
        book.asked = book.asked.saturating_add(1);
        let (number, (sender, answer)) = (book.asked, oneshot::channel());
        book.open.insert(number, sender);
        drop(book);
        Some(Ask { asks: self.clone(), number, answer })
    }

    /// Take what a client answered: a result, or nothing where it answered with an error. What nobody asked is passed over.
    pub(super) fn answer(&self, id: &RequestId, result: Option<Value>) {
        let RequestId::Text(text) = id else { return };
        let number = text.strip_prefix(PREFIX).and_then(|number| number.parse::<u64>().ok());
        let Some(asked) = number.and_then(|number| self.book().open.remove(&number)) else { return };
        if asked.send(result).is_err() {
            tracing::debug!("an answer came when nobody waited for it any more");
        }
    }
}

impl Ask {
    /// The id of the request that asks it.
    pub(super) fn id(&self) -> String {
        format!("{PREFIX}{}", self.number)
    }

    /// What the client answers; nothing where it answers with an error.
    pub(super) async fn answered(&mut self) -> Option<Value> {
        (&mut self.answer).await.ok().flatten()
    }
}

impl Drop for Ask {
    fn drop(&mut self) {
        self.asks.book().open.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(id: &str) -> RequestId {
        RequestId::Text(id.into())
    }

    #[tokio::test]
    async fn t_i3_a_question_is_answered_once_by_its_own_client() {
        let (mine, theirs) = (Asks::default(), Asks::default());
        let mut ask = mine.open().expect("room");
        assert_eq!(ask.id(), "toolkeep-1");
        theirs.answer(&text("toolkeep-1"), Some(json!("theirs")));
        for other in [text("toolkeep-2"), text("1"), text("toolkeep-"), text("toolkeep-x"), RequestId::Number(1)] {
            mine.answer(&other, Some(json!("other")));
        }
        mine.answer(&text("toolkeep-1"), Some(json!("mine")));
        mine.answer(&text("toolkeep-1"), Some(json!("again")));
        assert_eq!(ask.answered().await, Some(json!("mine")));
        let mut refused = mine.open().expect("room");
        mine.answer(&text(&refused.id()), None);
        assert_eq!((refused.id().as_str(), refused.answered().await), ("toolkeep-2", None));
    }

    #[test]
    fn n_questions_are_open_and_the_next_is_not_asked() {
        let asks = Asks::default();
        let mut open: Vec<Ask> = (0..OPEN_MAX).map(|_| asks.open().expect("room")).collect();
        assert!(asks.open().is_none());
        drop(open.pop());
        assert!(asks.open().is_some(), "nobody waits for one that is dropped");
    }
}
