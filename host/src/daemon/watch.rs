//! Watching manifests, policies, contracts and certificates: a changed file is in force without a restart.
//!
//! Changes are gathered for a moment, because an editor writes a file in several steps, and then the directories are
//! read again by the `Host`, which replaces the catalog at once or, where a manifest is wrong, keeps what it has, and
//! likewise the policies. Where the system cannot watch a directory the daemon runs on; SIGHUP and `tools.reload` still work.

use std::path::Path;
use std::time::Duration;

use notify_debouncer_full::notify::{EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{DebounceEventResult, Debouncer, RecommendedCache, new_debouncer};
use tokio::sync::mpsc;

/// How long changes are gathered: longer than an editor takes to save, shorter than a person waits.
pub const GATHER: Duration = Duration::from_millis(250);

/// Watched directories; watching ends when this is dropped.
#[derive(Debug)]
pub struct Watch {
    debouncer: Option<Debouncer<RecommendedWatcher, RecommendedCache>>,
    changes: mpsc::Receiver<()>,
}

impl Watch {
    /// Watch the manifests, and the policies and contracts where they have a directory. Begin before they are read for the first time:
    /// what changes in between is then noticed.
    #[must_use]
    pub fn new(manifests: &Path, policies: Option<&Path>, contracts: Option<&Path>) -> Self {
        // One waiting change says everything: the directories are read as a whole.
        let (sender, changes) = mpsc::channel(1);
        let handler = move |result: DebounceEventResult| match result {
            Ok(events) if events.iter().all(|event| matches!(event.kind, EventKind::Access(_))) => {}
            Ok(_) | Err(_) => {
                if sender.try_send(()).is_err() {
                    tracing::trace!("a change is already noted");
                }
            }
        };
        let debouncer = new_debouncer(GATHER, None, handler)
            .inspect_err(|error| tracing::warn!(%error, "nothing is watched; reload with SIGHUP"))
            .ok();
        // Tenants' policies lie one folder deeper.
        let folders = [
            Some((manifests, RecursiveMode::NonRecursive)),
            policies.map(|own| (own, RecursiveMode::Recursive)),
            contracts.map(|own| (own, RecursiveMode::NonRecursive)),
        ];
        let mut watch = Self { debouncer, changes };
        for (directory, mode) in folders.into_iter().flatten() {
            watch.begin(directory, mode);
        }
        watch
    }

    /// Watch a folder of the operator's besides.
    #[must_use]
    pub fn and(mut self, directory: &Path) -> Self {
        self.begin(directory, RecursiveMode::NonRecursive);
        self
    }

    fn begin(&mut self, directory: &Path, mode: RecursiveMode) {
        let watched = self.debouncer.as_mut().map(|debouncer| debouncer.watch(directory, mode));
        if let Some(Err(error)) = watched {
            let directory = directory.display();
            tracing::warn!(%error, %directory, "a directory is not watched; reload with SIGHUP");
        }
    }

    /// Wait for a change; for ever where the directory cannot be watched.
    pub(super) async fn changed(&mut self) {
        if self.changes.recv().await.is_none() {
            std::future::pending::<()>().await;
        }
    }
}
