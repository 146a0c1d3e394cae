//! What of a plan lies outside of the workspaces: its requests, and how a commit goes on around them.
//!
//! Requests are sent when the intent is durable and the new files lie ready, and before the first file changes place: until
//! the last request is answered, everything here can still be thrown away, and a request that the other system refuses
//! leaves nothing. What was sent is compensated in reverse order where a later effect fails. Where nobody knows what
//! became of a request, the intent stays, with everything that it needs, until an operator says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use toolkeep_core::call::{Outcome, Reply, Status, Usage};
use toolkeep_core::delivery::{DeliveryKind, Message, delivery_id};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::{CallId, GrantName, TenantName};
use toolkeep_core::net::origin::Origin;
use toolkeep_core::plan::Plan;
use toolkeep_core::price::Usd;
use toolkeep_core::receipt::{Receipt, Response};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::send::{Dispatch, Goal, SendState};
use toolkeep_sandbox::port::HttpCall;
use toolkeep_sandbox::stage::Content;

use super::files::{self, CommitError, Prepared, Recovered};
use super::sending::{self, Dispatched, Sending};
use super::{Committer, RecoverError, halted_refusal, remaining, unsettled_reply};
use crate::approve::{ApprovedParts, Contents};
use crate::breakers::Watched;
use crate::kill::Deed;
use crate::ledger::{
    BlobSet, Durability, Enqueue, FileBlob, InlineBlob, KeyChange, LedgerError, OpenIntent, OutcomeRow, Scope,
    SendMove, SendRow, Settled, StoredSend,
};
use crate::record::{Entry, encode};

/// Largest content, in bytes, that travels in the ledger instead of a file of the store.
const INLINE_MAX_BYTES: u64 = 64 * 1024;

/// How a commit goes on after its requests.
pub(super) enum Passed {
    /// All are sent: apply the rest.
    Apply,
    /// Nothing else is applied.
    Stopped(Stop),
}

/// How a commit ends because of its requests.
pub(super) struct Stop {
    pub(super) status: Status,
    pub(super) outcome: Outcome,
    pub(super) refusal: Refusal,
    /// How the ledger notes it; nothing where an operator has to look.
    pub(super) settled: Option<Settled>,
}

impl Stop {
    fn of(dispatched: Dispatched) -> Option<Self> {
        let refused = |problem: &str| {
            Refusal::new(Code::EffectRefused, format!("the other system did not do it: {problem}"))
                .hint("nothing else of the plan was applied; look at the problem before you try again")
        };
        Some(match dispatched {
            Dispatched::Sent => return None,
            Dispatched::Unknown { what, problem } => Self {
                status: Status::Unknown,
                outcome: Outcome::Unknown,
                refusal: Refusal::new(
                    Code::UnknownOutcome,
                    format!("nobody knows whether this was done: {what} ({problem})"),
                ),
                settled: None,
            },
            Dispatched::TakenBack { problem } => Self {
                status: Status::Failed,
                outcome: Outcome::Discarded,
                refusal: refused(&problem),
                settled: Some(Settled::RolledBack),
            },
            Dispatched::Killed { remnants, refusal } if remnants.is_empty() => Self {
                status: Status::Failed,
                outcome: Outcome::Discarded,
                refusal: *refusal,
                settled: Some(Settled::RolledBack),
            },
            Dispatched::Killed { remnants, refusal } => Self {
                status: Status::Failed,
                outcome: Outcome::Halted,
                refusal: Refusal::new(
                    Code::Halted,
                    format!("{}; these were sent before and stay: {}", refusal.message, remnants.join("; ")),
                )
                .hint(refusal.hint),
                settled: Some(Settled::Halted(remnants)),
            },
            Dispatched::Halted { remnants, problem } => Self {
                status: Status::Failed,
                outcome: Outcome::Halted,
                refusal: Refusal::new(
                    Code::Halted,
                    format!("{problem}; these were sent before and stay: {}", remnants.join("; ")),
                ),
                settled: Some(Settled::Halted(remnants)),
            },
        })
    }
}

/// What the requests of a plan come to: how many left or may have left, and what they cost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Metered {
    pub(super) requests: u64,
    pub(super) cost: Usd,
}

impl Metered {
    /// What has an answer has left, and so may have what is neither waiting nor refused.
    pub(super) fn of(sends: &[StoredSend]) -> Self {
        let kept = |send: &&StoredSend| !matches!(send.state, SendState::Pending | SendState::Refused);
        let left = sends.iter().filter(|send| send.answer.is_some() || kept(send));
        left.fold(Self::default(), |sum, send| Self {
            requests: sum.requests + 1,
            cost: sum.cost.plus(send.dispatch.price),
        })
    }

    /// Add it to what a reply says.
    pub(super) const fn add_to(self, usage: &mut Usage) {
        usage.http_requests = usage.http_requests.saturating_add(self.requests);
        usage.cost_usd = usage.cost_usd.plus(self.cost);
    }
}

/// How each request of a plan is sent. `contents` are what the effects carry.
///
/// # Errors
/// `stale_plan`: the manifest grants a request of the plan no more.
fn sends(
    plan: &Plan,
    entry: &Entry,
    grants: &[HttpGrant],
    contents: &BTreeMap<Digest, Content>,
) -> Result<Vec<SendRow>, Refusal> {
    let numbered = (0_u32..).zip(&plan.body().effects);
    let requests = numbered.filter_map(|(ordinal, effect)| match effect {
        Effect::HttpRequest(request) => Some((ordinal, request)),
        _ => None,
    });
    let rows = requests.map(|(ordinal, request)| {
        let grant = grants.iter().find(|grant| grant.name == request.grant && covers(grant, &request.url));
        let grant = grant.ok_or_else(|| {
            Refusal::new(Code::StalePlan, format!("the grant `{}` of the plan does not exist any more", request.grant))
        })?;
        let body = request.body.and_then(|body| bytes_of(contents.get(&body.sha256)?));
        let call = HttpCall {
            grant: request.grant.clone(),
            method: request.method.clone(),
            url: request.url.clone(),
            headers: request.headers.clone(),
            body: body.unwrap_or_default().into(),
        };
        Ok(SendRow { ordinal, dispatch: Dispatch::of(grant, idempotency_key(entry, ordinal), call.digest()) })
    });
    rows.collect()
}

fn covers(grant: &HttpGrant, url: &str) -> bool {
    let wanted = Origin::split_url(url).map(|(origin, _)| origin);
    matches!((grant.origin.parse::<Origin>(), wanted), (Ok(granted), Ok(wanted)) if granted == wanted)
}

/// The `Idempotency-Key` of a request: of the caller's key where there is one, so that a call which is made again with
/// it cannot have its effects twice; else of the call.
fn idempotency_key(entry: &Entry, ordinal: u32) -> String {
    let row = entry.row();
    let call = row.call.to_string();
    let name = row.key.as_ref().map_or(call.as_str(), |key| &key.key);
    let principal = &row.principal;
    let parts = [principal.tenant.as_str(), principal.user.as_str(), principal.agent.as_str(), row.tool.as_str(), name];
    let mut parts: Vec<&[u8]> = parts.iter().map(|part| part.as_bytes()).collect();
    let ordinal = ordinal.to_be_bytes();
    parts.push(&ordinal);
    Digest::of_parts("toolkeep.idempotency-key.v1", &parts).to_hex()
}

pub(super) fn bytes_of(content: &Content) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut content.reader(), &mut bytes).ok()?;
    Some(bytes)
}

/// What a plan changes in the ledger itself, with its outcome.
#[derive(Debug, Default)]
pub(super) struct Outside {
    pub(super) deliveries: Vec<Enqueue>,
    pub(super) keys: Vec<KeyChange>,
}

impl Outside {
    /// The messages and changes of keys of a plan, with their contents. The id of a message follows from its plan, so that
    /// recovery enqueues the same one.
    ///
    /// # Errors
    /// A content is missing: nothing is sent or kept in its place.
    pub(super) fn of(plan: &Plan, contents: &dyn Fn(&Digest) -> Option<Vec<u8>>) -> Result<Self, LedgerError> {
        let mut outside = Self::default();
        let content = |body: &BodyState| -> Result<Arc<[u8]>, LedgerError> {
            let empty = (body.size == 0).then(Vec::new);
            let found = contents(&body.sha256).or(empty).filter(|content| BodyState::of(content) == *body);
            let missing =
                || LedgerError::Damaged(format!("the content {} of plan {} is missing", body.sha256, plan.id()).into());
            found.map(Arc::from).ok_or_else(missing)
        };
        for (ordinal, effect) in plan.body().effects.iter().enumerate() {
            match effect {
                Effect::MessageSend(message) => outside.deliveries.push(Enqueue {
                    id: delivery_id(plan.id(), ordinal as u64),
                    tenant: plan.body().principal.tenant.clone(),
                    kind: DeliveryKind::Message,
                    channel: message.channel.clone(),
                    call: Some(plan.binding().call),
                    message: Message {
                        to: message.to.clone(),
                        subject: message.subject.clone(),
                        media_type: message.media_type.clone(),
                        body: content(&message.body)?,
                    },
                }),
                Effect::KvSet { bucket, key, after, .. } => outside.keys.push(KeyChange::Set {
                    bucket: bucket.clone(),
                    key: key.as_str().into(),
                    value: content(after)?,
                }),
                Effect::KvDelete { bucket, key, .. } => {
                    outside.keys.push(KeyChange::Delete { bucket: bucket.clone(), key: key.as_str().into() });
                }
                Effect::KvAdd { bucket, key, delta } => outside.keys.push(KeyChange::Add {
                    bucket: bucket.clone(),
                    key: key.as_str().into(),
                    delta: *delta,
                }),
                _ => {}
            }
        }
        Ok(outside)
    }
}

/// What a plan has besides files, made ready for its intent.
pub(super) struct Carried {
    /// Its requests.
    pub(super) sends: Vec<SendRow>,
    /// Its messages and changes of keys.
    pub(super) outside: Outside,
    /// What undo needs of it.
    pub(super) former: BlobSet,
    /// What the intent has to keep for it. A stored plan has its contents in the store.
    pub(super) logged: BlobSet,
}

impl Carried {
    /// Look at everything that a plan has besides files. Blocks.
    ///
    /// # Errors
    /// `stale_plan`: a request is not granted any more, or undoes nothing. A content is missing or cannot be kept.
    pub(super) fn of(
        committer: &Committer,
        parts: &ApprovedParts,
        contents: &BTreeMap<Digest, Content>,
    ) -> Result<Self, Refusal> {
        let plan = &parts.plan;
        let sends = match parts.undoes {
            Some(undone) => committer.sends_of_reversal(plan, undone)?,
            None => sends(plan, &parts.entry, &parts.grants, contents)?,
        };
        committer.circuits_closed(plan, &sends)?;
        let content = |digest: &Digest| contents.get(digest).and_then(bytes_of);
        let outside = Outside::of(plan, &content).map_err(|e| e.refusal())?;
        let former = committer.former_values(plan, contents)?;
        let logged = match parts.contents {
            Contents::Staged(_) => {
                committer.outside_contents(plan, contents).map_err(|e| committer.commit_refusal(&e))?
            }
            Contents::Stored => BlobSet::default(),
        };
        Ok(Self { sends, outside, former, logged })
    }
}

/// What came of going on with a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finished {
    /// It has its outcome, or waits for an operator.
    Done,
    /// It could not go on now. Everything that it needs is there.
    Later,
    /// Only the next start can go on.
    AtStart,
}

impl Finished {
    /// What an error says about the next time.
    fn of(error: &RecoverError) -> Self {
        match error {
            RecoverError::Ledger(LedgerError::Overloaded | LedgerError::DiskFull | LedgerError::Storage { .. })
            | RecoverError::Log { .. }
            | RecoverError::World { source: CommitError::System { .. }, .. } => Self::Later,
            _ => Self::AtStart,
        }
    }
}

impl Committer {
    /// What a stored plan changes in the ledger itself. Blocks.
    ///
    /// # Errors
    /// As [`Outside::of`].
    pub(super) fn outside(&self, plan: &Plan) -> Result<Outside, LedgerError> {
        Outside::of(plan, &|digest| self.blobs.content_blocking(digest).ok().flatten().as_ref().and_then(bytes_of))
    }

    /// The contents of requests, messages and keys, as the intent keeps them until its outcome.
    fn outside_contents(&self, plan: &Plan, contents: &BTreeMap<Digest, Content>) -> Result<BlobSet, CommitError> {
        let mut kept = BlobSet::default();
        for effect in plan.body().effects.iter().filter(|effect| effect.workspace().is_none()) {
            let state = effect.contents().1;
            if let Some(content) = state.and_then(|state| contents.get(&state.sha256)) {
                self.keep_content(state, content, &mut kept)?;
            }
        }
        Ok(kept)
    }

    /// Keep one content: in the ledger, or in a file of the store where it is large.
    pub(super) fn keep_content(
        &self,
        state: Option<BodyState>,
        content: &Content,
        kept: &mut BlobSet,
    ) -> Result<(), CommitError> {
        let Some(BodyState { sha256, size }) = state else { return Ok(()) };
        if size > INLINE_MAX_BYTES {
            self.blobs.put(&sha256, size, &mut content.reader()).map_err(CommitError::Undo)?;
            kept.files.push(FileBlob { digest: sha256, size });
        } else if let Some(bytes) = bytes_of(content) {
            kept.inline.push(InlineBlob { digest: sha256, content: bytes.into() });
        }
        Ok(())
    }

    /// Whether the other systems that a plan wants something of are asked at present.
    ///
    /// # Errors
    /// `circuit_open`: nothing of the plan happened.
    fn circuits_closed(&self, plan: &Plan, sends: &[SendRow]) -> Result<(), Refusal> {
        let Some(breakers) = self.breakers.as_ref().filter(|_| !sends.is_empty()) else { return Ok(()) };
        let body = plan.body();
        for send in sends {
            if let Some(Effect::HttpRequest(request)) = body.effects.get(send.ordinal as usize) {
                breakers.look_at_grant(&body.principal.tenant, &request.grant, &send.dispatch.origin)?;
            }
        }
        Ok(())
    }

    /// Let a request through; nothing to tell where nobody watches.
    pub(super) fn enter_grant(
        &self,
        tenant: &TenantName,
        grant: &GrantName,
        origin: &str,
    ) -> Result<Option<Watched>, Refusal> {
        self.breakers.as_ref().map(|breakers| breakers.enter_grant(tenant, grant, origin)).transpose()
    }

    /// What a plan is the work of, as far as a kill switch can be about it. What a reversal asks of other systems is the work
    /// of the call that it reverses, too: a tool that is stopped does not reach them that way either. Blocks.
    ///
    /// # Errors
    /// The ledger cannot say.
    pub(super) fn deed(&self, plan: &Plan, undoes: Option<CallId>) -> Result<Deed, LedgerError> {
        if let Some(run) = plan.binding().run.filter(|run| !self.kill.knows(*run))
            && let Some(workflow) = self.runtime.block_on(self.ledger.workflow_of_run(run))?
        {
            self.kill.learn(run, workflow);
        }
        let deed = self.kill.deed(plan);
        let asks = plan.body().effects.iter().any(|effect| matches!(effect, Effect::HttpRequest(_)));
        let Some(undone) = undoes.filter(|_| asks) else { return Ok(deed) };
        let undone = self.runtime.block_on(self.ledger.undo_of(&Scope::Operator, undone))?;
        Ok(undone.iter().fold(deed, |deed, undone| deed.and_of(&undone.plan)))
    }

    /// Send the requests of a plan whose intent is durable.
    ///
    /// # Errors
    /// The ledger cannot record a step: only the next start can go on.
    pub(super) fn send_all(
        &self,
        plan: &Plan,
        deed: &Deed,
        goal: Goal,
    ) -> Result<(Passed, Vec<StoredSend>), LedgerError> {
        let sends = self.runtime.block_on(self.ledger.sends(plan.id()))?;
        let contents = |digest: &Digest| self.blobs.content_blocking(digest).ok().flatten().as_ref().and_then(bytes_of);
        let mut sending = Sending::new(self, (plan.id(), deed.clone()), sends, &contents);
        let passed = Stop::of(sending.run(goal)?).map_or(Passed::Apply, Passed::Stopped);
        Ok((passed, sending.into_sends()))
    }

    /// A receipt that also states what other systems answered.
    pub(super) fn with_responses(&self, receipt: &Receipt, sends: &[StoredSend]) -> Result<Receipt, Refusal> {
        let responses = sends.iter().filter_map(|send| {
            let answer = send.answer.as_ref()?;
            Some(Response { ordinal: send.ordinal, status: answer.status, body: BodyState::of(&answer.body) })
        });
        let mut statement = receipt.statement.clone();
        statement.responses = responses.collect();
        Receipt::sign(statement, &self.key).map_err(|e| Refusal::new(Code::Internal, e.to_string()))
    }

    /// Go on with a commit that has requests and was interrupted: by a crash, or by a request of which nobody knew. `again`
    /// says that it was tried before in this life, and was cut off wherever that was.
    pub async fn finish(self: &Arc<Self>, intent: OpenIntent, again: bool) -> Finished {
        let call = intent.call;
        if let Some(why) = self.poisoned.get() {
            tracing::error!(%call, why, "an interrupted commit goes on at the next start");
            return Finished::AtStart;
        }
        // What it did would not be on record as it should. It is open, and goes on when that can be relied on again.
        if self.ledger.is_halted() {
            return Finished::Later;
        }
        if again && let Err(error) = self.judge_sends(&intent.plan).await {
            tracing::error!(%error, %call, "an interrupted commit could not go on");
            return Finished::of(&error.into());
        }
        let body = intent.plan.body();
        let paths = self.locks.lock(&body.effects, &body.read_set, &body.keys_read).await;
        let committer = Arc::clone(self);
        let finished = tokio::task::spawn_blocking(move || {
            let _paths = paths;
            committer.finish_blocking(&intent)
        });
        match finished.await {
            Ok(Ok(())) => Finished::Done,
            Ok(Err(error)) => {
                tracing::error!(%error, %call, "an interrupted commit could not go on");
                if let RecoverError::World { source: CommitError::Poisoned(failed), .. } = &error {
                    self.poison(&failed.to_string());
                }
                Finished::of(&error)
            }
            Err(_) => {
                tracing::error!(%call, "BUG: going on with a commit panicked");
                Finished::AtStart
            }
        }
    }

    fn finish_blocking(&self, intent: &OpenIntent) -> Result<(), RecoverError> {
        let plan = intent.plan.id();
        let steps: Prepared =
            serde_json::from_str(&intent.steps).map_err(|e| RecoverError::Steps { plan, problem: e.to_string() })?;
        let world = |source| RecoverError::World { plan, source };
        self.can_be_read(intent, &steps)?;
        let deed = self.deed(&intent.plan, intent.undoes)?;
        let (passed, mut sends) = self.send_all(&intent.plan, &deed, Goal::Apply)?;
        let stop = match passed {
            Passed::Stopped(stop) => stop,
            Passed::Apply => {
                let contents = |digest: &Digest| self.blobs.content_blocking(digest).ok().flatten();
                match files::recover(&steps, &self.roots, &contents).map_err(world)? {
                    Recovered::RolledForward => return Ok(self.finished(intent, &sends)?),
                    Recovered::RolledBack => {
                        let (passed, taken) = self.send_all(&intent.plan, &deed, Goal::TakeBack)?;
                        sends = taken;
                        match passed {
                            Passed::Stopped(stop) => stop,
                            Passed::Apply => return Ok(()),
                        }
                    }
                    Recovered::Halted(remnants) => {
                        let list = remaining(&remnants, sending::remnants(&sends));
                        Stop {
                            status: Status::Failed,
                            outcome: Outcome::Halted,
                            refusal: halted_refusal(&list),
                            settled: Some(Settled::Halted(list)),
                        }
                    }
                }
            }
        };
        if stop.settled.is_some() {
            match files::discard(&steps, &self.roots) {
                // The folder is another one: nothing of this commit is in it.
                Ok(()) | Err(CommitError::Stale(_)) => {}
                Err(error) => return Err(world(error)),
            }
        }
        Ok(self.stopped(intent, stop, Metered::of(&sends))?)
    }

    /// Look at everything that the rest of a commit may need before any of it is done: a content that cannot be read now
    /// must not look like one that is gone, and nothing is sent whose messages and keys could not follow.
    fn can_be_read(&self, intent: &OpenIntent, steps: &Prepared) -> Result<(), RecoverError> {
        let plan = intent.plan.id();
        let beyond = intent.plan.body().effects.iter().filter(|effect| effect.workspace().is_none());
        let carried = beyond.filter_map(|effect| effect.contents().1).map(|body| body.sha256);
        for digest in steps.logged().into_iter().chain(carried) {
            let found = self.blobs.content_blocking(&digest).map(drop);
            super::promised(found).map_err(|source| RecoverError::Log { plan, source })?;
        }
        self.outside(&intent.plan)?;
        Ok(())
    }

    /// An interrupted commit is complete.
    fn finished(&self, intent: &OpenIntent, sends: &[StoredSend]) -> Result<(), LedgerError> {
        let receipt = intent.receipt.as_ref().and_then(|receipt| self.with_responses(receipt, sends).ok());
        let reply = match serde_json::from_str::<Reply>(&intent.reply_when_done) {
            Ok(mut reply) => {
                reply.receipt.clone_from(&receipt);
                Metered::of(sends).add_to(&mut reply.usage);
                encode(&reply)
            }
            Err(_) => Arc::clone(&intent.reply_when_done),
        };
        self.settle_intent(intent, Settled::Committed, reply, None, receipt)
    }

    /// An interrupted commit ends because of its requests.
    fn stopped(&self, intent: &OpenIntent, stop: Stop, metered: Metered) -> Result<(), LedgerError> {
        let code = stop.refusal.code;
        let reply = unsettled_reply(intent, (stop.status, stop.outcome), stop.refusal, metered);
        if let Some(Settled::Halted(list)) = &stop.settled {
            self.halted.fetch_add(1, Ordering::Relaxed);
            tracing::error!(call = %intent.call, ?list, "a commit is halted: look at what it left");
        }
        match stop.settled {
            Some(settled) => self.settle_intent(intent, settled, reply, Some(code), None),
            None => self.runtime.block_on(self.ledger.not_known(intent.plan.id(), reply)),
        }
    }

    fn settle_intent(
        &self,
        intent: &OpenIntent,
        settled: Settled,
        reply: Arc<str>,
        error_code: Option<Code>,
        receipt: Option<Receipt>,
    ) -> Result<(), LedgerError> {
        let ended_ms = self.ambient.now_ms();
        let outside = if settled == Settled::Committed { self.outside(&intent.plan)? } else { Outside::default() };
        let Outside { deliveries, keys } = outside;
        let row = OutcomeRow { intent: intent.intent, settled, reply, error_code, receipt, ended_ms, deliveries, keys };
        self.runtime.block_on(self.ledger.outcome(row, Durability::Durable))
    }

    /// What may have left before a crash is not known now, or may be repeated. Says whether the plan has requests.
    pub(super) async fn judge_sends(&self, plan: &Plan) -> Result<bool, LedgerError> {
        let sends = self.ledger.sends(plan.id()).await?;
        for send in &sends {
            let state = send.state.after_crash(send.dispatch.idempotent);
            if state != send.state {
                let problem = match state {
                    SendState::Unknown => Some("the daemon stopped while it was sent".to_owned()),
                    SendState::Stuck => Some("the daemon stopped while it was undone".to_owned()),
                    _ => send.problem.clone(),
                };
                let answer = send.answer.clone();
                let (ordinal, took_ns) = (send.ordinal, send.took_ns);
                self.ledger.note_send(SendMove { plan: plan.id(), ordinal, state, answer, problem, took_ns }).await?;
            }
        }
        Ok(!sends.is_empty())
    }
}
