//! Work that its caller attends: polled in place while somebody waits, and finished alone when nobody does any more.
//!
//! A task for every call would cost a copy of its whole state and the waking of another thread, which is more than many
//! tools take. So a call runs inside of whoever waits for it. If that one goes away, the call is told to stop and moves
//! into a task of its own, where it ends in order: cancelled, and on record.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::Handle;
use toolkeep_sandbox::execution::Cancel;

/// A future that survives its caller.
#[must_use = "it does nothing unless somebody waits for it"]
pub(crate) struct Attended<T: Send + 'static> {
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    cancel: Cancel,
    runtime: Handle,
}

/// The work panicked.
#[derive(Debug)]
pub(crate) struct Panicked;

impl<T: Send + 'static> std::fmt::Debug for Attended<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attended").field("done", &self.work.is_none()).finish_non_exhaustive()
    }
}

impl<T: Send + 'static> Attended<T> {
    /// Attend `work`; `cancel` is set when nobody waits any more.
    pub(crate) fn new(runtime: Handle, cancel: Cancel, work: impl Future<Output = T> + Send + 'static) -> Self {
        Self { work: Some(Box::pin(work)), cancel, runtime }
    }
}

impl<T: Send + 'static> Future for Attended<T> {
    type Output = Result<T, Panicked>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(work) = self.work.as_mut() else { return Poll::Ready(Err(Panicked)) };
        let polled = catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(context)));
        match polled {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => {
                self.work = None;
                Poll::Ready(Ok(value))
            }
            Err(_) => {
                self.work = None;
                Poll::Ready(Err(Panicked))
            }
        }
    }
}

impl<T: Send + 'static> Drop for Attended<T> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.cancel.cancel();
            // Nobody waits for the end of the task; it ends by itself.
            let _unattended = self.runtime.spawn(work);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
    }

    #[test]
    fn work_that_is_left_alone_is_told_to_stop_and_ends_in_order() {
        let runtime = runtime();
        let (cancel, ended) = (Cancel::new(), Arc::new(AtomicBool::new(false)));
        let (told, done) = (cancel.clone(), Arc::clone(&ended));
        let (sender, receiver) = std::sync::mpsc::channel();
        let work = async move {
            told.cancelled().await;
            done.store(true, Ordering::Release);
            sender.send(()).expect("the test waits");
        };
        let attended = Attended::new(runtime.handle().clone(), cancel.clone(), work);
        assert!(!ended.load(Ordering::Acquire));
        drop(attended);
        receiver.recv().expect("the work ends although nobody polls it");
        assert!(cancel.is_cancelled() && ended.load(Ordering::Acquire));
    }

    #[test]
    fn work_that_ends_is_not_cancelled_and_a_panic_is_an_answer() {
        let runtime = runtime();
        let cancel = Cancel::new();
        let attend = |work: Pin<Box<dyn Future<Output = u8> + Send>>| {
            runtime.block_on(Attended::new(runtime.handle().clone(), cancel.clone(), work))
        };
        assert!(matches!(attend(Box::pin(async { 7 })), Ok(7)));
        assert!(matches!(attend(Box::pin(async { panic!("for the test") })), Err(Panicked)));
        assert!(!cancel.is_cancelled());
    }
}
