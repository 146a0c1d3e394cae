//! Watching the manifests: a changed file is installed without a restart.
//!
//! Changes are gathered for a moment, because an editor writes a file in several steps, and then the whole directory is
//! read again by the `Host`, which replaces the catalog at once or, where a manifest is wrong, keeps what it has.
//! Where the system cannot watch the directory the daemon runs on; SIGHUP and `tools.reload` still work.

use std::path::Path;
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

/// How long changes are gathered: longer than an editor takes to save, shorter than a person waits.
pub const GATHER: Duration = Duration::from_millis(250);

/// A watched directory; watching ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    _debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Watch the manifests in `directory`. Begin before it is read for the first time: what changes in between is then
    /// noticed.
    #[must_use]
    pub fn new(directory: &Path) -> Self {
        // One waiting change says everything: the directory is read as a whole.
        let (sender, changes) = mpsc::channel(1);
        let handler = move |result: DebounceEventResult| match result {
            Ok(events) if events.iter().all(|event| matches!(event.kind, EventKind::Access(_))) => {}
            Ok(_) | Err(_) => {
                if sender.try_send(()).is_err() {
                    tracing::trace!("a change of the manifests is already noted");
                }
            }
        };
        let watching = new_debouncer(GATHER, None, handler)
            .and_then(|mut debouncer| debouncer.watch(directory, RecursiveMode::NonRecursive).map(|()| debouncer));
        let debouncer = watching
            .inspect_err(|error| {
                tracing::warn!(%error, directory = %directory.display(), "manifests are not watched; reload with SIGHUP");
            })
            .ok();
        Self { _debouncer: debouncer, changes }
    }

    /// Wait for a change; for ever where the directory cannot be watched.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
