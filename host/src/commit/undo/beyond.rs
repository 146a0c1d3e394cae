//! What undoes effects beyond files: keys get their former values, requests the compensation that their grant declared.
//!
//! A key is put back only if it still has the value that the commit gave it; what was added is taken away again, whatever
//! was added since. A request is undone by another request, which is an effect of the reversal like any other: shown,
//! decided about, sent once. Its `Idempotency-Key` is that of the compensation which a failing plan would have sent, so
//! that no request is undone twice, however often it is tried. A message cannot be taken back.

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Delivery, Effect, HttpEffect, Reversal};
use toolkeep_core::plan::Plan;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::render::subject;
use toolkeep_core::send::{Dispatch, SendState};

use crate::commit::sending::{compensation_key, undoing};
use crate::ledger::{InlineBlob, SendRow, StoredSend};

/// What undoes the effects of a commit that are no files.
#[derive(Debug, Default)]
pub(super) struct Beyond {
    /// In the order in which they are applied: keys, then requests.
    pub(super) effects: Vec<Effect>,
    /// Contents that are kept already.
    pub(super) kept: Vec<Digest>,
    /// Contents that are made now.
    pub(super) made: Vec<InlineBlob>,
}

/// The request that undoes one which was sent, as an effect, with its body.
fn request_undoing(send: &StoredSend, body: &[u8]) -> Result<(HttpEffect, Vec<u8>), Refusal> {
    let denied = |problem: String| {
        Refusal::new(Code::Denied, format!("`{}` cannot be undone: {problem}", send.subject()))
            .hint("undo it at the other system, if that can be done there")
    };
    let (effect, body) = undoing(send, body).map_err(denied)?;
    Ok((HttpEffect { delivery: Delivery::Staged, reversal: Reversal::None, ..effect }, body))
}

impl Beyond {
    /// Make it for a committed plan, whose requests were `sends` with bodies that `content` finds.
    ///
    /// # Errors
    /// `denied`: an effect cannot be undone, and which.
    pub(super) fn of(
        plan: &Plan,
        sends: &[StoredSend],
        content: &dyn Fn(&Digest) -> Option<Vec<u8>>,
    ) -> Result<Self, Refusal> {
        let mut beyond = Self::default();
        let (mut requests, effects) = (Vec::new(), &plan.body().effects);
        for (ordinal, effect) in effects.iter().enumerate().rev() {
            match effect {
                Effect::MessageSend(_) => {
                    return Err(Refusal::new(
                        Code::Denied,
                        format!("the call has a `{}`, and nobody can take back {}", effect.kind(), subject(effect)),
                    )
                    .hint("undo what else the call did by calls of their own"));
                }
                Effect::HttpRequest(request) if request.reversal != Reversal::Reversible => {
                    let send = sends
                        .iter()
                        .find(|send| u32::try_from(ordinal) == Ok(send.ordinal) && send.state == SendState::Sent);
                    let send = send.ok_or_else(|| {
                        Refusal::new(Code::Denied, format!("what was answered to `{}` is not kept", subject(effect)))
                    })?;
                    let sent = request.body.and_then(|body| content(&body.sha256)).unwrap_or_default();
                    let (undoing, body) = request_undoing(send, &sent)?;
                    beyond
                        .made
                        .extend(undoing.body.map(|state| InlineBlob { digest: state.sha256, content: body.into() }));
                    requests.push(Effect::HttpRequest(undoing));
                }
                _ => beyond.key(effect)?,
            }
        }
        beyond.effects.extend(requests);
        Ok(beyond)
    }

    /// What undoes the change of a key. Other effects are passed over.
    fn key(&mut self, effect: &Effect) -> Result<(), Refusal> {
        let undoing = match effect.clone() {
            Effect::KvSet { bucket, key, before: None, after } => Effect::KvDelete { bucket, key, before: after },
            Effect::KvSet { bucket, key, before: Some(before), after } => {
                self.kept.push(before.sha256);
                Effect::KvSet { bucket, key, before: Some(after), after: before }
            }
            Effect::KvDelete { bucket, key, before } => {
                self.kept.push(before.sha256);
                Effect::KvSet { bucket, key, before: None, after: before }
            }
            Effect::KvAdd { bucket, key, delta } => {
                let delta = delta.checked_neg().ok_or_else(|| {
                    Refusal::new(Code::Denied, format!("what was added to `{key}` is too large to be taken away"))
                })?;
                Effect::KvAdd { bucket, key, delta }
            }
            _ => return Ok(()),
        };
        self.effects.push(undoing);
        Ok(())
    }
}

/// How the requests of a reversal are sent: as those that they undo were, with the key of their compensation.
///
/// # Errors
/// `stale_plan`: a request of the reversal undoes none of `undone`.
pub(in crate::commit) fn sends(
    plan: &Plan,
    undone: &[StoredSend],
    content: &dyn Fn(&Digest) -> Option<Vec<u8>>,
    digest: &dyn Fn(&HttpEffect) -> Digest,
) -> Result<Vec<SendRow>, Refusal> {
    let mut left: Vec<&StoredSend> = undone.iter().rev().collect();
    let mut rows = Vec::new();
    for (ordinal, effect) in (0_u32..).zip(&plan.body().effects) {
        let Effect::HttpRequest(request) = effect else { continue };
        let undoes = |send: &&StoredSend| {
            let Effect::HttpRequest(sent) = &send.effect else { return false };
            let body = sent.body.and_then(|body| content(&body.sha256)).unwrap_or_default();
            request_undoing(send, &body).is_ok_and(|(undoing, _)| undoing == *request)
        };
        let at = left.iter().position(undoes).ok_or_else(|| {
            Refusal::new(Code::StalePlan, format!("`{}` undoes nothing that was sent", subject(effect)))
        })?;
        let original = &left.remove(at).dispatch;
        let dispatch = Dispatch {
            compensation: None,
            reversal: Reversal::None,
            key: compensation_key(&original.key),
            request: digest(request),
            ..original.clone()
        };
        rows.push(SendRow { ordinal, dispatch });
    }
    Ok(rows)
}
