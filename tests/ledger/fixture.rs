//! A ledger in a directory of its own, with a clock that stands still, and rows to put into it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use toolkeep::ambient::Ambient;
use toolkeep::channel::Channels;
use toolkeep::channel::config::ChannelText;
use toolkeep::egress::{Egress, EgressConfig, Resolver};
use toolkeep::ledger::{
    ApprovalRow, BlobSet, CallKey, CallRow, Enqueue, InlineBlob, Intent, KeyClaim, Ledger, LedgerOptions, OutcomeRow,
    Proposal, Scope, Settled,
};
use toolkeep::notify::{Notify, Route};
use toolkeep::secrets::Secrets;
use toolkeep_core::call::{Mode, Outcome, Status, Usage};
use toolkeep_core::delivery::{DeliveryKind, Message, delivery_id};
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::hex;
use toolkeep_core::id::{ApprovalId, CallId, ChannelName, PlanId, ReceiptId};
use toolkeep_core::plan::{FORMAT, Plan, PlanBody, SealBinding};
use toolkeep_core::price::Usd;
use toolkeep_core::principal::{Credential, Origin, Principal};
use toolkeep_core::receipt::{Receipt, Statement};

/// The message that the first effect of a plan sends.
pub(crate) fn enqueue(plan: PlanId, call: CallId, body: &str) -> Enqueue {
    Enqueue {
        id: delivery_id(plan, 0),
        tenant: "acme".parse().expect("name"),
        kind: DeliveryKind::Message,
        channel: "ops".parse().expect("name"),
        call: Some(call),
        message: Message {
            to: vec!["ann".to_owned()],
            subject: "s".to_owned(),
            media_type: "text/plain".to_owned(),
            body: Arc::from(body.as_bytes()),
        },
    }
}

/// When every test begins: milliseconds since the epoch.
pub(crate) const NOW_MS: u64 = 1_700_000_000_000;

/// A directory that goes with the test.
pub(crate) struct Place(PathBuf);

impl Place {
    pub(crate) fn new(name: &str) -> Self {
        let unique = Ambient::real().uuid_v7();
        let path = std::env::temp_dir().join(format!("toolkeep-ledger-{name}-{unique}"));
        std::fs::create_dir_all(&path).expect("temporary directory");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _best_effort = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) struct Fixture {
    pub(crate) place: Place,
    pub(crate) ambient: Ambient,
    pub(crate) ledger: Ledger,
}

impl Fixture {
    pub(crate) async fn new(name: &str) -> Self {
        Self::with(name, LedgerOptions::default()).await
    }

    pub(crate) async fn with(name: &str, options: LedgerOptions) -> Self {
        let place = Place::new(name);
        let ambient = Ambient::fixed(NOW_MS, 1, BTreeMap::new());
        let ledger = Ledger::open_with(place.path(), ambient.clone(), options).await.expect("ledger");
        Self { place, ambient, ledger }
    }

    /// Close and open again.
    pub(crate) async fn reopen(&mut self) {
        self.ledger.close().await.expect("closed");
        self.ledger = Ledger::open(self.place.path(), self.ambient.clone()).await.expect("opened again");
    }

    /// A call that ended well.
    pub(crate) fn call(&self) -> CallRow {
        let call = CallId::new(self.ambient.uuid_v7());
        CallRow {
            trace: None,
            suspended: false,
            call,
            principal: principal("acme"),
            origin: Origin::of(Credential::AgentUid(1_000)),
            run: None,
            step: None,
            tool: "csv-report".parse().expect("name"),
            component: Some(Digest::of(b"component")),
            manifest: Some(Digest::of(b"manifest")),
            tier: None,
            policy_set: None,
            mode: Mode::Commit,
            input: Arc::from("{}"),
            input_digest: Digest::of(b"{}"),
            status: Status::Ok,
            outcome: Outcome::None,
            error_code: None,
            reply: reply(call, "ok", "none"),
            usage: Usage {
                fuel: 7,
                wall_ms: 2,
                memory_peak: 3,
                host_calls: 4,
                http_requests: 5,
                cost_usd: Usd::of_micro(6),
            },
            recording: Some(Arc::from(r#"{"format":1}"#)),
            beside: None,
            started_ms: NOW_MS,
            ended_ms: NOW_MS + 2,
            key: None,
            notes: None,
            charge: None,
            output: None,
        }
    }

    /// A sealed plan of a call that writes one file.
    pub(crate) fn plan(&self, call: &CallRow, content: &[u8]) -> Arc<Plan> {
        let body = PlanBody {
            format: FORMAT,
            principal: call.principal.clone(),
            tool: call.tool.clone(),
            component: Digest::of(b"component"),
            manifest: Digest::of(b"manifest"),
            policy_set: Digest::of(b"policy"),
            input: call.input_digest,
            keys_read: Vec::new(),
            segment: 0,
            steps: Vec::new(),
            taint: toolkeep_core::taint::Taint::NONE,
            read_set: Vec::new(),
            effects: vec![Effect::FileWrite {
                workspace: "books".parse().expect("name"),
                path: "report.md".parse().expect("path"),
                before: None,
                after: FileState { sha256: Digest::of(content), size: content.len() as u64, mode: 0o644 },
            }],
        };
        self.sealed(call, body)
    }

    fn sealed(&self, call: &CallRow, body: PlanBody) -> Arc<Plan> {
        let nonce = hex::text(&self.ambient.random::<16>());
        let binding = SealBinding { run: call.run, call: call.call, expires_at_ms: NOW_MS + 60_000, nonce };
        Arc::new(Plan::seal(body, PlanId::new(self.ambient.uuid_v7()), binding).expect("sealed"))
    }

    /// The intent to commit a plan at once: what `change` makes of that of a call that writes one file. No content is kept.
    pub(crate) fn intent_of(&self, change: impl FnOnce(&mut PlanBody)) -> Intent {
        let mut proposal = self.proposal(b"content");
        let mut body = proposal.plan.body().clone();
        change(&mut body);
        proposal.plan = self.sealed(&proposal.call, body);
        proposal.blobs.inline.clear();
        let mut intent = self.intent(&proposal.plan);
        intent.proposal = Some(Box::new(proposal));
        intent
    }

    /// A preview of a plan that writes `content`.
    pub(crate) fn proposal(&self, content: &[u8]) -> Proposal {
        let mut call = self.call();
        call.outcome = Outcome::Previewed;
        call.reply = reply(call.call, "ok", "previewed");
        let plan = self.plan(&call, content);
        let inline = vec![InlineBlob { digest: Digest::of(content), content: content.into() }];
        Proposal {
            call,
            plan,
            witnesses: Arc::from("[]"),
            blobs: BlobSet { inline, files: Vec::new() },
            approval: None,
            transaction: None,
        }
    }

    /// A plan that waits for `approvers` people.
    pub(crate) fn held(&self, content: &[u8], approvers: u8) -> Proposal {
        let mut proposal = self.proposal(content);
        proposal.call.status = Status::Held;
        proposal.call.outcome = Outcome::Pending;
        proposal.call.reply = reply(proposal.call.call, "held", "pending");
        proposal.approval = Some(ApprovalRow {
            id: ApprovalId::new(self.ambient.uuid_v7()),
            approvers,
            barred: (approvers > 1).then(|| "ada".parse().expect("name")),
            reason: Arc::from("tier 2"),
            expires_at_ms: NOW_MS + 30_000,
        });
        proposal
    }

    /// The intent to commit a stored plan.
    pub(crate) fn intent(&self, plan: &Plan) -> Intent {
        let statement = Statement {
            responses: Vec::new(),
            format: 1,
            receipt: ReceiptId::new(self.ambient.uuid_v7()),
            call: plan.binding().call,
            run: None,
            principal: plan.body().principal.clone(),
            tool: plan.body().tool.clone(),
            component: plan.body().component,
            plan: plan.id(),
            plan_digest: plan.digest(),
            totals: plan.totals(),
            committed_at_ms: NOW_MS,
        };
        let undo = b"what was there".as_slice();
        Intent {
            quotas: Vec::new(),
            sends: Vec::new(),
            plan: plan.id(),
            proposal: None,
            approval: None,
            standing: None,
            undoes: None,
            steps: Arc::from(r#"{"steps":1}"#),
            undo_blobs: BlobSet {
                inline: vec![InlineBlob { digest: Digest::of(undo), content: undo.into() }],
                files: Vec::new(),
            },
            reply_when_done: reply(plan.binding().call, "ok", "committed"),
            receipt: Some(Receipt::sign(statement, &self.ledger.signing_key()).expect("signed")),
        }
    }
}

pub(crate) fn outcome(intent: toolkeep::ledger::IntentId, call: CallId, settled: Settled) -> OutcomeRow {
    let reply = match &settled {
        Settled::Committed => reply(call, "ok", "committed"),
        Settled::RolledBack => reply(call, "failed", "discarded"),
        Settled::Halted(_) => reply(call, "failed", "halted"),
    };
    OutcomeRow {
        receipt: None,
        intent,
        settled,
        reply,
        error_code: None,
        ended_ms: NOW_MS + 9,
        deliveries: Vec::new(),
        keys: Vec::new(),
    }
}

pub(crate) fn reply(call: CallId, status: &str, outcome: &str) -> Arc<str> {
    let usage = r#"{"fuel":7,"wall_ms":2,"memory_peak":3,"host_calls":4}"#;
    Arc::from(format!(
        r#"{{"status":"{status}","outcome":"{outcome}","call_id":"{call}","usage":{usage},"warnings":[]}}"#
    ))
}

pub(crate) fn principal(tenant: &str) -> Principal {
    Principal {
        tenant: tenant.parse().expect("name"),
        user: "ada".parse().expect("name"),
        agent: "bot".parse().expect("name"),
    }
}

pub(crate) fn acme() -> Scope {
    Scope::Tenant("acme".parse().expect("name"))
}

pub(crate) fn stranger() -> Scope {
    Scope::Tenant("other".parse().expect("name"))
}

/// Let a call be known by a key, and the claim for it.
pub(crate) fn keyed(call: &mut CallRow, key: &str) -> KeyClaim {
    let request = Digest::of(b"request");
    call.key = Some(CallKey { key: Arc::from(key), request });
    KeyClaim {
        principal: call.principal.clone(),
        tool: call.tool.clone(),
        key: Arc::from(key),
        request,
        call: call.call,
    }
}

/// What tells operators, by the channels `ops` and `news`: both write to `told.jsonl` beside the ledger.
pub(crate) fn notify(fixture: &Fixture, routes: Vec<Route>) -> Notify {
    let channels = ["ops", "news"].map(|name| {
        let name: ChannelName = name.parse().expect("name");
        let text: ChannelText = toml::from_str("kind = \"file\"\npath = \"told.jsonl\"").expect("text");
        let config = text.check(&name, Some(fixture.place.path())).expect("a channel");
        (name, config)
    });
    let secrets = Secrets::new(BTreeMap::default(), fixture.ambient.clone());
    let egress = Egress::new(&EgressConfig { ca_file: None }, Resolver::system(), secrets).expect("an egress");
    let channels = Channels::new(channels.into_iter().collect(), egress);
    Notify::new(routes, channels, fixture.ledger.clone(), fixture.ambient.clone())
}
