//! Threads of their own for the operators: the admin plane and the kill signal.
//!
//! A guest that computes keeps its thread for as long as an epoch, and hundreds of them keep all threads of the daemon
//! busy for longer than an operator who stops them can wait. So whatever stops things is never run beside tools. What it
//! begins for a tenant (settling a plan, for example) runs where everything else does.

use std::future::Future;
use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

/// Threads: one that works for an operator, and one that listens in the meantime.
const THREADS: usize = 2;

/// The threads. Their tasks end when this is dropped.
#[derive(Debug)]
pub(super) struct Apart(Option<Runtime>);

impl Apart {
    /// Start them.
    ///
    /// # Errors
    /// The system gives no threads.
    pub(super) fn new() -> io::Result<Self> {
        let mut threads = Builder::new_multi_thread();
        threads.worker_threads(THREADS).enable_all().thread_name("toolkeep-admin");
        threads.build().map(|runtime| Self(Some(runtime)))
    }

    /// Open something that is used there.
    pub(super) fn inside<T>(&self, open: impl FnOnce() -> T) -> T {
        let _inside = self.0.as_ref().map(Runtime::enter);
        open()
    }

    /// Run something there.
    pub(super) fn spawn<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
        self.inside(|| tokio::spawn(work))
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            // A runtime cannot be waited for inside of another one.
            runtime.shutdown_background();
        }
    }
}
