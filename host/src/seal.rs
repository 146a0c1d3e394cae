//! Stage 6, plan: from [`Executed`] to [`Planned`], the staged effects sealed under a digest.
//!
//! Only an execution that returned an output which its schema allows gets here with effects; everything else has ended
//! before. The plan names whose it is, which component, manifest, policy and input it came from, what was read, and what
//! would change. What it needs at commit, but what does not name it, travels beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use toolkeep_core::call::Mode;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Delivery, Effect};
use toolkeep_core::hex;
use toolkeep_core::id::{CallId, PlanId};
use toolkeep_core::plan::{Plan, PlanBody, SealBinding};
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::taint::Taint;
use toolkeep_sandbox::execution::Ended;
use toolkeep_sandbox::port::HttpCall;
use toolkeep_sandbox::stage::{Content, Witness};

use crate::admit::Ticket;
use crate::ambient::Ambient;
use crate::execute::Executed;
use crate::screen::Screened;
use crate::transaction::{Layer, TRANSACTION_TOOL};
use crate::validate::Call;

/// Bytes of randomness in a plan's nonce.
const NONCE_BYTES: usize = 16;

/// Proof: what a call wants to change, sealed.
#[derive(Debug)]
pub struct Planned {
    ticket: Box<Ticket>,
    output: Screened,
    plan: Arc<Plan>,
    witnesses: Vec<Witness>,
    contents: BTreeMap<Digest, Content>,
}

impl Planned {
    /// The ticket that the call holds.
    #[must_use]
    pub const fn ticket(&self) -> &Ticket {
        &self.ticket
    }

    /// What the tool returned.
    #[must_use]
    pub const fn output(&self) -> &Screened {
        &self.output
    }

    /// The plan.
    #[must_use]
    pub const fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// Stat tuples of what was read.
    #[must_use]
    pub fn witnesses(&self) -> &[Witness] {
        &self.witnesses
    }

    /// Hide these parts of what the tool returned: JSON Pointers that begin with `/output`.
    pub fn redact(&mut self, pointers: &BTreeSet<String>) {
        self.output.redact(pointers);
    }

    /// What the effects write, by digest.
    #[must_use]
    pub const fn contents(&self) -> &BTreeMap<Digest, Content> {
        &self.contents
    }

    /// Take apart: ticket, output, plan, witnesses and contents.
    #[must_use]
    #[expect(clippy::type_complexity, reason = "one consumer takes all five")]
    pub fn into_parts(self) -> (Box<Ticket>, Screened, Arc<Plan>, Vec<Witness>, BTreeMap<Digest, Content>) {
        (self.ticket, self.output, self.plan, self.witnesses, self.contents)
    }
}

/// What an execution came to.
#[derive(Debug)]
pub enum Sealed {
    /// It changes nothing, and nobody asked for a certain plan: there is nothing to seal.
    Nothing(Screened),
    /// It has a plan.
    Planned(Planned),
}

/// Sixteen random bytes in hexadecimal.
#[must_use]
pub fn nonce(ambient: &Ambient) -> String {
    hex::text(&ambient.random::<NONCE_BYTES>())
}

/// How a plan is named besides its content.
#[derive(Debug, Clone, Copy)]
pub struct Naming {
    /// The call that it belongs to: that of a part of an execution is a child of the execution's own.
    pub call: CallId,
    /// Which part of the execution it is.
    pub segment: u32,
    /// How long a plan that is likely to be held may wait for people, in milliseconds.
    pub approval_ttl_ms: u64,
    /// What the run, or the call alone, has seen.
    pub taint: Taint,
}

/// Seal what an execution staged, or the live request at which it ended. What is staged beside a live request stays where it
/// is: the execution that goes on stages it again.
///
/// # Errors
/// `memory_exceeded`: more effects than a plan holds. `plan_diverged`: the caller expected another plan.
pub fn seal(executed: Executed, output: Screened, ambient: &Ambient, naming: Naming) -> Result<Sealed, Refusal> {
    let (ticket, mut execution) = executed.into_parts();
    let grant = ticket.grant();
    let call = grant.call();
    if let Ended::Live(request) = &execution.ended {
        let (effect, contents) = live_effect(call, request)?;
        execution.staged.effects = vec![effect];
        execution.staged.contents = contents;
    }
    if execution.staged.effects.is_empty() && call.options().expect_plan.is_none() {
        return Ok(Sealed::Nothing(output));
    }
    let tool = call.tool();
    let body = PlanBody {
        format: toolkeep_core::plan::FORMAT,
        principal: call.caller().principal().clone(),
        tool: tool.name.clone(),
        component: tool.component.digest,
        manifest: tool.manifest.digest,
        policy_set: grant.policy_set(),
        input: call.input_digest(),
        read_set: execution.staged.read_set,
        keys_read: execution.staged.keys_read,
        segment: naming.segment,
        steps: Vec::new(),
        taint: naming.taint,
        effects: execution.staged.effects,
    };
    let binding = SealBinding {
        run: call.options().run,
        call: naming.call,
        expires_at_ms: ambient.now_ms().saturating_add(time_to_live(call, naming.approval_ttl_ms)),
        nonce: nonce(ambient),
    };
    let plan = Plan::seal(body, PlanId::new(ambient.uuid_v7()), binding)
        .map_err(|e| Refusal::new(Code::MemoryExceeded, e.to_string()))?;
    if naming.segment == 0 {
        as_expected(call, &plan)?;
    }
    Ok(Sealed::Planned(Planned {
        output,
        plan: Arc::new(plan),
        witnesses: execution.staged.witnesses,
        contents: execution.staged.contents,
        ticket,
    }))
}

/// Whether the plan is the one that the caller expects, if it expects one.
fn as_expected(call: &Call, plan: &Plan) -> Result<(), Refusal> {
    match call.options().expect_plan.filter(|expected| *expected != plan.digest()) {
        None => Ok(()),
        Some(expected) => Err(Refusal::new(
            Code::PlanDiverged,
            format!("this call makes plan {}, not the expected {expected}", plan.digest()),
        )),
    }
}

/// Seal what a whole transaction would be after a call, to be shown: `layer` is that of the call and of those before it.
///
/// # Errors
/// `memory_exceeded`: more effects than a plan holds. `plan_diverged`: the caller expected another plan.
pub fn seal_union(executed: Executed, output: Screened, layer: Layer, ambient: &Ambient) -> Result<Planned, Refusal> {
    let (ticket, execution) = executed.into_parts();
    let grant = ticket.grant();
    let call = grant.call();
    let witnesses = layer.witnesses.clone();
    let tool = TRANSACTION_TOOL.parse().map_err(|_| Refusal::new(Code::Internal, "BUG: the tool of transactions"))?;
    let body = layer.into_body(call.caller().principal().clone(), tool, grant.policy_set());
    let binding = SealBinding {
        run: call.options().run,
        call: call.id(),
        expires_at_ms: ambient.now_ms().saturating_add(call.tool().manifest.plan_ttl_ms),
        nonce: nonce(ambient),
    };
    let plan = Plan::seal(body, PlanId::new(ambient.uuid_v7()), binding)
        .map_err(|e| Refusal::new(Code::MemoryExceeded, e.to_string()))?;
    as_expected(call, &plan)?;
    Ok(Planned { output, plan: Arc::new(plan), witnesses, contents: execution.staged.contents, ticket })
}

/// The effect of a live request, with its body.
fn live_effect(call: &Call, request: &HttpCall) -> Result<(Effect, BTreeMap<Digest, Content>), Refusal> {
    let tool = call.tool();
    let grant = tool.manifest.http.iter().find(|grant| grant.name == request.grant);
    let grant = grant.ok_or_else(|| Refusal::new(Code::Internal, "BUG: a request without its grant"))?;
    let effect = request.effect(grant, Delivery::Live);
    let contents = effect.body.map(|body| (body.sha256, Content::Memory(Arc::from(&*request.body))));
    Ok((Effect::HttpRequest(effect), contents.into_iter().collect()))
}

/// How long the plan of a call stays committable, in milliseconds. Any policy may want people to agree, and then it waits
/// for them.
fn time_to_live(call: &Call, approval_ttl_ms: u64) -> u64 {
    let manifest = &call.tool().manifest;
    match call.options().mode {
        Mode::Commit => manifest.plan_ttl_ms.max(approval_ttl_ms),
        Mode::Preview => manifest.plan_ttl_ms,
    }
}
