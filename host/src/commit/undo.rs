//! The reversal of a committed plan: what to write, and where the contents are.

mod beyond;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::sync::Arc;

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect, HttpEffect, Reversal as Undoing};
use toolkeep_core::id::CallId;
use toolkeep_core::path::WorkspacePath;
use toolkeep_core::plan::{Plan, PlanBody};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::beneath;
use toolkeep_sandbox::port::HttpCall;
use toolkeep_sandbox::stage::Content;
use toolkeep_sandbox::workspace::WorkspaceRoot;

use super::files::{self, Prepared, Witnessed};
use super::{Committer, bytes_of};
use crate::ledger::{BlobSet, InlineBlob, SendRow, StoredSend, UndoInfo};
use beyond::Beyond;

/// What reverses a commit.
#[derive(Debug)]
pub struct Reversal {
    /// In the order in which they are applied.
    pub effects: Vec<Effect>,
    /// The contents that they write.
    pub blobs: BlobSet,
}

impl Committer {
    /// Make the reversal of a committed plan, and check that nobody changed its targets since.
    ///
    /// # Errors
    /// `denied`: an effect cannot be undone, or a content was not kept. `stale_plan`: a target changed.
    pub async fn inverse(self: &Arc<Self>, info: &UndoInfo) -> Result<Reversal, Refusal> {
        let prepared: Prepared = serde_json::from_str(&info.steps)
            .map_err(|e| Refusal::new(Code::Internal, format!("the steps of the call cannot be read: {e}")))?;
        let inverse = files::inverse(&info.plan.body().effects, &prepared)
            .map_err(|e| Refusal::new(Code::Denied, format!("the call cannot be undone: {e}")))?;
        let sends = self.ledger.sends(info.plan.id()).await.map_err(|e| e.refusal())?;
        let (committer, plan) = (Arc::clone(self), info.plan.clone());
        let made = tokio::task::spawn_blocking(move || Beyond::of(&plan, &sends, &|digest| committer.kept(digest)));
        let panicked = |_| Refusal::new(Code::Internal, "BUG: making a reversal panicked");
        let beyond = made.await.map_err(panicked)??;
        let effects: Vec<Effect> = inverse.effects.into_iter().chain(beyond.effects).collect();
        self.targets_unchanged(&info.plan, effects.clone()).await?;
        let kept: Vec<Digest> = inverse.contents.into_iter().chain(beyond.kept).collect();
        let mut blobs = self.blobs.pin(&kept).await.map_err(|error| {
            tracing::error!(%error, "the contents of a reversal cannot be found");
            Refusal::new(Code::Denied, "what was there before is not kept any more, so the call cannot be undone")
        })?;
        blobs.inline.extend(beyond.made);
        Ok(Reversal { effects, blobs })
    }

    /// Whether everything that a reversal changes is as the commit left it.
    async fn targets_unchanged(&self, plan: &Plan, effects: Vec<Effect>) -> Result<(), Refusal> {
        let probe = PlanBody { read_set: Vec::new(), keys_read: Vec::new(), effects, ..plan.body().clone() };
        let probe = Arc::new(probe);
        let keys = self.ledger.keys_unchanged(Arc::clone(&probe)).await.map_err(|e| e.refusal())?;
        keys.map_err(|changed| Refusal::new(Code::StalePlan, changed.to_string()))?;
        let roots = self.roots.clone();
        let checked =
            tokio::task::spawn_blocking(move || files::check(&probe, Witnessed { entries: &[], since_ns: 0 }, &roots));
        checked
            .await
            .map_err(|_| Refusal::new(Code::Internal, "BUG: checking a reversal panicked"))?
            .map_err(|e| self.commit_refusal(&e))
    }

    /// How the requests of a reversal of this call are sent. Blocks.
    ///
    /// # Errors
    /// `stale_plan`: a request of the reversal undoes nothing.
    pub(super) fn sends_of_reversal(&self, plan: &Plan, undone: CallId) -> Result<Vec<SendRow>, Refusal> {
        let requests = plan.body().effects.iter().any(|effect| matches!(effect, Effect::HttpRequest(_)));
        if !requests {
            return Ok(Vec::new());
        }
        let sends: Vec<StoredSend> =
            self.runtime.block_on(self.ledger.sends_of_call(undone)).map_err(|e| e.refusal())?;
        let content = |digest: &Digest| self.kept(digest);
        let named = |request: &HttpEffect| {
            let body = request.body.and_then(|body| self.kept(&body.sha256)).unwrap_or_default();
            let call = HttpCall {
                grant: request.grant.clone(),
                method: request.method.clone(),
                url: request.url.clone(),
                headers: request.headers.clone(),
                body: body.into(),
            };
            call.digest()
        };
        beyond::sends(plan, &sends, &content, &named)
    }

    /// What an undo of this plan needs besides files: values of keys that it replaces, and bodies of requests that can be
    /// undone. Blocks. What goes beyond the undo quota is not kept.
    ///
    /// # Errors
    /// The ledger cannot be read, or a body cannot be kept.
    pub(super) fn former_values(&self, plan: &Plan, contents: &BTreeMap<Digest, Content>) -> Result<BlobSet, Refusal> {
        let (mut kept, mut bytes) = (BlobSet::default(), 0_u64);
        for effect in &plan.body().effects {
            match effect {
                Effect::KvSet { bucket, key, before: Some(before), .. } | Effect::KvDelete { bucket, key, before } => {
                    let tenant = &plan.body().principal.tenant;
                    let value = self.runtime.block_on(self.ledger.key(tenant, bucket, key));
                    bytes = bytes.saturating_add(before.size);
                    // A value that changed meanwhile is found out by the intent.
                    let value = value.map_err(|e| e.refusal())?.filter(|value| BodyState::of(value) == *before);
                    let value = value.filter(|_| bytes <= self.undo_bytes);
                    kept.inline.extend(value.map(|value| InlineBlob { digest: before.sha256, content: value.into() }));
                }
                Effect::HttpRequest(request) if request.reversal == Undoing::Compensated => {
                    let Some(content) = request.body.and_then(|body| contents.get(&body.sha256)) else { continue };
                    bytes = bytes.saturating_add(content.size());
                    if bytes <= self.undo_bytes {
                        self.keep_content(request.body, content, &mut kept).map_err(|e| self.commit_refusal(&e))?;
                    }
                }
                _ => {}
            }
        }
        Ok(kept)
    }

    /// A content of the store. Blocks.
    fn kept(&self, digest: &Digest) -> Option<Vec<u8>> {
        self.blobs.content_blocking(digest).ok().flatten().as_ref().and_then(bytes_of)
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
