//! The reversal of a committed plan: what to write, and where the contents are.

use std::io::Read as _;

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::PlanBody;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::beneath;
use toolkeep_sandbox::workspace::WorkspaceRoot;

use super::Committer;
use super::files::{self, Prepared, Witnessed};
use crate::ledger::{BlobSet, UndoInfo};

/// What reverses a commit.
#[derive(Debug)]
pub struct Reversal {
    /// In the order in which they are applied.
    pub effects: Vec<Effect>,
    /// The contents that they write; all are kept already.
    pub blobs: BlobSet,
}

impl Committer {
    /// Make the reversal of a committed plan, and check that nobody changed its targets since.
    ///
    /// # Errors
    /// `denied`: a content was not kept. `stale_plan`: a target changed.
    pub async fn inverse(&self, info: &UndoInfo) -> Result<Reversal, Refusal> {
        let prepared: Prepared = serde_json::from_str(&info.steps)
            .map_err(|e| Refusal::new(Code::Internal, format!("the steps of the call cannot be read: {e}")))?;
        let inverse = files::inverse(&info.plan.body().effects, &prepared)
            .map_err(|e| Refusal::new(Code::Denied, format!("the call cannot be undone: {e}")))?;
        let probe = PlanBody { read_set: Vec::new(), effects: inverse.effects.clone(), ..info.plan.body().clone() };
        let roots = self.roots.clone();
        let checked =
            tokio::task::spawn_blocking(move || files::check(&probe, Witnessed { entries: &[], since_ns: 0 }, &roots));
        checked
            .await
            .map_err(|_| Refusal::new(Code::Internal, "BUG: checking a reversal panicked"))?
            .map_err(|e| self.commit_refusal(&e))?;
        let blobs = self.blobs.pin(&inverse.contents).await.map_err(|error| {
            tracing::error!(%error, "the contents of a reversal cannot be found");
            Refusal::new(Code::Denied, "what was there before is not kept any more, so the call cannot be undone")
        })?;
        Ok(Reversal { effects: inverse.effects, blobs })
    }
}

/// The content of a file beneath a workspace, if it is the one that was asked for.
pub(super) fn content_if_unchanged(root: &WorkspaceRoot, path: &WorkspacePath, wanted: &BodyState) -> Option<Vec<u8>> {
    let (file, seen) = beneath::open_file(root.fd(), path).ok()?;
    if seen.size != wanted.size {
        return None;
    }
    let mut bytes = Vec::new();
    file.take(wanted.size + 1).read_to_end(&mut bytes).ok()?;
    (Digest::of(&bytes) == wanted.sha256).then_some(bytes)
}
