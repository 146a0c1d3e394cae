//! What operators see of calls, what they may read in full and on which record, and what is kept of it.
//!
//! An operator sees calls with the parts hidden that policies and schemas hide. Reading one in full is a deed of its own: who
//! and why is on the disk before a byte is handed out, operators are told, and what is encrypted leaves encrypted. Legal
//! holds and forgetting are decided here and done by the ledger; the rules of retention stand in the configuration.

use std::collections::BTreeSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::id::{CallId, RunId, TenantName, UserName};
use toolkeep_core::refusal::{Code, Refusal};

use super::Host;
use crate::authenticate::Operator;
use crate::ledger::{Class, Forgetting, Forgotten, Hold, HoldOf, LedgerError, Pruned, Scope, StoredCall};
use crate::notes::Notes;
use crate::notify::Event;
use crate::redaction::{Redaction, Shown};
use crate::vault::Part;

/// Longest reason, in bytes: a sentence or two.
const REASON_MAX_BYTES: usize = 1_024;
/// How often the sweeper looks whether the daemon stops.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many looks lie between two sweeps: ten minutes.
const LOOKS_PER_SWEEP: u64 = 600;
/// Part of the largest size, in hundredths, from which on the ledger is said to be nearly full.
const NEARLY_FULL: u64 = 80;

/// What is forgotten.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Forget {
    /// The tenant.
    pub tenant: TenantName,
    /// One person of it; everybody if absent.
    #[serde(default)]
    pub user: Option<UserName>,
    /// Why.
    pub reason: String,
    /// The tenant's name, and `/` and the person's where one is named, typed by the operator.
    pub confirm: String,
}

/// A call or a run.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeldThing {
    /// The call.
    #[serde(default)]
    pub call: Option<CallId>,
    /// The run.
    #[serde(default)]
    pub run: Option<RunId>,
}

impl HeldThing {
    fn of(self) -> Result<HoldOf, Refusal> {
        match (self.call, self.run) {
            (Some(call), None) => Ok(HoldOf::Call(call)),
            (None, Some(run)) => Ok(HoldOf::Run(run)),
            _ => Err(Refusal::new(Code::InvalidInput, "one of `call` and `run` is wanted").field(
                "/call",
                "is missing, or `run` is there too",
                "the id of a call, or else `run` with that of a run",
            )),
        }
    }
}

fn checked_reason(reason: &str) -> Result<&str, Refusal> {
    let reason = reason.trim();
    if (1..=REASON_MAX_BYTES).contains(&reason.len()) {
        return Ok(reason);
    }
    Err(Refusal::new(Code::InvalidInput, "a reason is wanted").field(
        "/reason",
        "is empty, or longer than 1,024 bytes",
        "why, for whoever reads the record",
    ))
}

fn names(of: HoldOf) -> Value {
    match of {
        HoldOf::Call(call) => json!({"call_id": call}),
        HoldOf::Run(run) => json!({"run": run}),
    }
}

fn facts(what: &str, operator: &Operator, reason: &str, more: Value) -> String {
    let mut facts = Map::from_iter([
        ("by".to_owned(), json!(operator.user())),
        ("reason".to_owned(), json!(reason)),
        ("tenant".to_owned(), json!(operator.tenant())),
        ("what".to_owned(), json!(what)),
    ]);
    if let Value::Object(more) = more {
        facts.extend(more);
    }
    canonical_body(&Value::Object(facts))
}

impl Host {
    /// Hides parts of calls for the eyes of operators.
    #[must_use]
    pub fn redaction(&self) -> Redaction {
        Redaction::new(self.ledger().marking())
    }

    /// What is hidden of a call wherever it is shown: what policies and schemas said then, and what the schema says now.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn hidden_of(&self, scope: &Scope, stored: &StoredCall) -> Result<BTreeSet<String>, Refusal> {
        let notes = self.ledger().notes(scope, stored.row.call).await.map_err(|error| error.refusal())?;
        Ok(self.hidden_by(notes.as_deref().map(Notes::read).unwrap_or_default(), stored))
    }

    /// As [`Host::hidden_of`], where the notes are known.
    pub(crate) fn hidden_by(&self, notes: Notes, stored: &StoredCall) -> BTreeSet<String> {
        let Notes { redact: mut hidden, sensitive, .. } = notes;
        hidden.extend(sensitive);
        if let Some(tool) = self.catalog().current().tool(&stored.row.tool) {
            hidden.extend(tool.sensitive().iter().cloned());
        }
        hidden
    }

    /// Input and output of a call as eyes may see them: on the console, in an export, in an incident.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn shown(&self, scope: &Scope, stored: &StoredCall) -> Result<Shown, Refusal> {
        let hidden = self.hidden_of(scope, stored).await?;
        Ok(self.redaction().shown(&stored.row.input, &stored.row.reply, &hidden))
    }

    /// The payloads of a call in full, for a reason. The record of who reads and why is durable before this returns.
    ///
    /// # Errors
    /// `not_found`, `invalid_input` for no reason, or the record cannot be written: then nothing is handed out.
    pub async fn break_glass(&self, operator: &Operator, call: CallId, reason: &str) -> Result<Value, Refusal> {
        let reason = checked_reason(reason)?;
        let scope = Scope::Tenant(operator.tenant().clone());
        let stored = self.ledger().call(&scope, call).await.map_err(|error| error.refusal())?;
        let stored = stored.ok_or_else(|| Refusal::not_found("call"))?;
        let body = facts("break_glass", operator, reason, json!({"call": call, "tool": stored.row.tool}));
        let written: Value = serde_json::from_str(&body).unwrap_or_default();
        self.note(operator, AuditKind::Privacy, written).await?;
        let told = json!({"call_id": call, "tool": stored.row.tool, "by": operator.user(), "reason": reason});
        self.0.notify.event(Event::BreakGlass, operator.tenant(), told);
        tracing::warn!(%call, operator = operator.user().as_str(), "the payloads of a call are read in full");
        let payload = self.ledger().payload(&scope, call).await.map_err(|error| error.refusal())?;
        let payload = payload.ok_or_else(|| Refusal::not_found("call"))?;
        let parts = payload.parts.iter().filter(|part| part.part == Part::Input || !part.text.is_empty());
        let parts: Map<String, Value> =
            parts.map(|part| (part.part.word().to_owned(), Value::String(part.text.clone()))).collect();
        let keys: Map<String, Value> =
            payload.keys.iter().map(|(id, age)| (id.to_string(), Value::String(STANDARD.encode(age)))).collect();
        Ok(json!({"call_id": call, "tool": stored.row.tool, "principal": stored.row.principal,
            "status": stored.row.status, "outcome": stored.row.outcome, "input_digest": payload.input_digest,
            "parts": parts, "keys": keys}))
    }

    /// How long what is kept, what is held, and how much room it takes.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn retention(&self, operator: &Operator) -> Result<Value, Refusal> {
        let config = &self.0.config;
        let ages: Vec<Value> = Class::ALL
            .iter()
            .map(|class| json!({"class": class.word(), "age_ms": config.retention.age(*class)}))
            .collect();
        let holds = self.ledger().holds(operator.tenant()).await.map_err(|error| error.refusal())?;
        let holds: Vec<Value> = holds
            .iter()
            .map(|hold| {
                let mut line = names(hold.of);
                if let Value::Object(members) = &mut line {
                    members.extend(Map::from_iter([
                        ("reason".to_owned(), json!(&*hold.reason)),
                        ("set_by".to_owned(), json!(hold.set_by)),
                        ("set_at_ms".to_owned(), json!(hold.set_ms)),
                    ]));
                }
                line
            })
            .collect();
        Ok(json!({"classes": ages, "holds": holds, "encrypted": self.ledger().seals(),
            "readable_ms": config.privacy.recipients.as_ref().map(|_| config.privacy.readable_ms),
            "room": self.ledger_room().await}))
    }

    /// How large the ledger is, against what it may be; nothing if it cannot be read.
    pub(crate) async fn ledger_room(&self) -> Value {
        let most = self.0.config.ledger.max_bytes;
        match self.ledger().room().await {
            Ok(room) => {
                let used = room.bytes.saturating_sub(room.free_bytes);
                json!({"bytes": room.bytes, "free_bytes": room.free_bytes, "max_bytes": most,
                    "nearly_full": used.saturating_mul(100) >= most.saturating_mul(NEARLY_FULL)})
            }
            Err(_) => Value::Null,
        }
    }

    /// Let go of what is over and not to be kept, now; or say what would go.
    ///
    /// # Errors
    /// The ledger failed; what is gone stays gone.
    pub async fn retain(&self, operator: &Operator, rehearse: bool) -> Result<Value, Refusal> {
        let keep = self.0.config.retention.at(self.ambient().now_ms());
        if rehearse {
            let would = self.ledger().would_prune(keep).await.map_err(|error| error.refusal())?;
            return Ok(json!({"would": would}));
        }
        tracing::info!(operator = operator.user().as_str(), "retention runs by hand");
        self.note(operator, AuditKind::Retention, json!({"what": "run"})).await?;
        let gone = self.collect().await.map_err(|error| error.refusal())?;
        Ok(json!({"gone": gone, "room": self.ledger_room().await}))
    }

    /// Hold a call or a run of the operator's tenant: nothing of it is let go of until it is released.
    ///
    /// # Errors
    /// `not_found`, or `invalid_input` for no reason.
    pub async fn hold_for_law(&self, operator: &Operator, thing: HeldThing, reason: &str) -> Result<Value, Refusal> {
        let (of, reason) = (thing.of()?, checked_reason(reason)?);
        let scope = Scope::Tenant(operator.tenant().clone());
        let found = match of {
            HoldOf::Call(call) => {
                self.ledger().call(&scope, call).await.map_err(|error| error.refusal())?.map(drop).ok_or("call")
            }
            HoldOf::Run(run) => {
                self.ledger().run(&scope, run).await.map_err(|error| error.refusal())?.map(drop).ok_or("run")
            }
        };
        found.map_err(Refusal::not_found)?;
        let hold = Hold {
            of,
            tenant: operator.tenant().clone(),
            reason: reason.into(),
            set_by: operator.user().clone(),
            set_ms: self.ambient().now_ms(),
        };
        let set = self.ledger().hold_for_law(hold, facts("hold", operator, reason, names(of))).await;
        Ok(json!({"held": true, "was_held": !set.map_err(|error| error.refusal())?}))
    }

    /// Release what is held.
    ///
    /// # Errors
    /// `not_found`: nothing of the operator's tenant is held by this name.
    pub async fn release_hold(&self, operator: &Operator, thing: HeldThing, reason: &str) -> Result<Value, Refusal> {
        let (of, reason) = (thing.of()?, checked_reason(reason)?);
        let body = facts("release", operator, reason, names(of));
        let released = self.ledger().release_hold(of, operator.tenant(), body).await;
        if released.map_err(|error| error.refusal())? {
            Ok(json!({"released": true}))
        } else {
            Err(Refusal::not_found("hold"))
        }
    }

    /// Forget a tenant, or a person of it. Who asked and why is durable before anything goes.
    ///
    /// # Errors
    /// `not_found` for another tenant, `denied` for a wrong confirmation, `invalid_input` for no reason.
    pub async fn forget(&self, operator: &Operator, asked: Forget) -> Result<Value, Refusal> {
        let reason = checked_reason(&asked.reason)?;
        if asked.tenant != *operator.tenant() {
            return Err(Refusal::not_found("tenant"));
        }
        let wanted = match &asked.user {
            None => asked.tenant.to_string(),
            Some(user) => format!("{}/{user}", asked.tenant),
        };
        if asked.confirm != wanted {
            return Err(Refusal::new(Code::Denied, "the confirmation is not the name of what is forgotten")
                .hint(format!("type `{wanted}` to confirm; what is forgotten cannot be restored")));
        }
        let body = facts("forget", operator, reason, json!({"user": asked.user}));
        let noted = self.ledger().ask_to_forget(&asked.tenant, asked.user.as_ref(), body).await;
        let done =
            self.forget_noted(&noted.map_err(|error| error.refusal())?).await.map_err(|error| error.refusal())?;
        if let Err(error) = self.0.blobs.collect().await {
            tracing::warn!(%error, "contents that nothing needs any more go with the next sweep");
        }
        // Last, because contents go through the log, too.
        if let Err(error) = self.ledger().cut_log().await {
            tracing::warn!(%error, "the write-ahead log is cut with the next sweep");
        }
        Ok(json!({"forgotten": {"calls": done.calls, "keys": done.keys}, "left": done.left, "done": done.left == 0}))
    }

    /// Forget what goes now. What is under way is looked up first: a call that is gone from there has been handed to the ledger.
    async fn forget_noted(&self, what: &Forgetting) -> Result<Forgotten, LedgerError> {
        let under_way = self.flights().begun_before(&what.tenant, what.user.as_ref(), what.asked_ms);
        let done = self.ledger().forget(what, under_way).await?;
        // Also what a call left there that ended meanwhile.
        self.0.results.clear();
        Ok(done)
    }

    /// Let go of what is over and not to be kept, then of contents that nothing needs any more, and give room back.
    async fn collect(&self) -> Result<Pruned, LedgerError> {
        let (now_ms, config) = (self.ambient().now_ms(), &self.0.config);
        let keep = config.retention.at(now_ms);
        let gone = self.ledger().prune(keep).await?;
        let mut removed = !gone.is_nothing();
        for what in self.ledger().to_forget().await? {
            let done = self.forget_noted(&what).await?;
            if done.calls > 0 || done.left == 0 {
                removed = true;
                tracing::info!(
                    calls = done.calls,
                    keys = done.keys,
                    left = done.left,
                    "what was to be forgotten is gone"
                );
            }
        }
        let readable = now_ms.saturating_sub(config.privacy.readable_ms);
        let keys = self.ledger().let_go_of_keys(readable).await?;
        if keys > 0 {
            tracing::info!(keys, "payloads of past days can be opened by operators alone now");
        }
        if let Err(error) = self.ledger().forget_credentials(keep.since_ms).await {
            tracing::warn!(%error, "credentials that ended could not be forgotten");
        }
        if let Err(error) = self.ledger().forget_alerts(keep.since_ms).await {
            tracing::warn!(%error, "alerts that are over could not be forgotten");
        }
        match self.0.blobs.collect().await {
            Ok(0) => {}
            Ok(blobs) => {
                removed = true;
                tracing::info!(removed = blobs, "unreferenced blobs were removed");
            }
            Err(error) => tracing::warn!(%error, "blobs could not be collected"),
        }
        if removed || keys > 0 || self.ledger().log_is_uncut() {
            self.ledger().cut_log().await?;
        }
        self.ledger().shrink().await?;
        Ok(gone)
    }

    /// Sweep now and every ten minutes, apart from the rest of the house: a long sweep must not hold up what expires.
    pub(super) fn keep_what_is_wanted(&self) {
        let host = self.clone();
        self.spawn(async move {
            let mut look = tokio::time::interval(LOOK_EVERY);
            let (mut looks, mut nearly_full) = (0_u64, false);
            loop {
                look.tick().await;
                if !host.ready() {
                    return;
                }
                if looks.is_multiple_of(LOOKS_PER_SWEEP) {
                    nearly_full = host.sweep(nearly_full).await;
                }
                looks += 1;
            }
        });
    }

    /// The sweep that nobody asked for. Says whether the ledger is nearly full; operators are told when it becomes so.
    async fn sweep(&self, was_nearly_full: bool) -> bool {
        self.count_blobs().await;
        self.0.authenticator.registry().sweep(self.ambient().now_ms());
        match self.collect().await {
            Ok(gone) if gone.is_nothing() => {}
            Ok(gone) => tracing::info!(?gone, "what is over was let go of"),
            Err(error) => tracing::warn!(%error, "the ledger could not be pruned"),
        }
        let nearly_full = self.ledger_room().await.get("nearly_full") == Some(&Value::Bool(true));
        if nearly_full && !was_nearly_full {
            tracing::error!("the ledger is nearly as large as `ledger.max_bytes` allows; keep less, or allow more");
            self.tell_full();
        }
        nearly_full
    }

    /// Operators of every tenant that has a channel are told.
    fn tell_full(&self) {
        let tenants: BTreeSet<&TenantName> =
            self.0.config.operators.values().map(|operator| &operator.tenant).collect();
        for tenant in tenants {
            let facts = json!({"max_bytes": self.0.config.ledger.max_bytes});
            self.0.notify.event(Event::LedgerNearlyFull, tenant, facts);
        }
    }
}
