//! The admin plane: from methods to the [`Host`].
//!
//! A session is an [`Operator`]. Where agent and operator share a uid the kernel cannot tell them apart; then the session
//! stays closed until the peer shows the token with `session.authenticate`, and every other method answers
//! `unauthorized`. Calling a tool is no method here: an operator who wants to be an agent uses the agent socket.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value, json};
use tokio::sync::watch;
use toolkeep_core::refusal::{Code, Refusal};

use super::agent::later;
use super::alerts;
use super::audit;
use super::method::AdminMethod;
use super::oversight;
use super::params;
use super::plane::{Dispatch, Notes, Plane};
use super::privacy;
use super::replay;
use super::reply::{Body, Fault, INVALID_PARAMS};
use crate::authenticate::{Operator, Peer};
use crate::host::Host;

/// The admin socket.
#[derive(Debug)]
pub(super) struct AdminPlane {
    host: Host,
    /// Told `true` by `daemon.drain`.
    stop: Arc<watch::Sender<bool>>,
}

/// What an admin connection proved so far.
#[derive(Debug)]
pub(super) struct AdminSession {
    peer: Peer,
    /// Why the uid alone is not enough, until the token was shown.
    proof: Result<Arc<Operator>, Refusal>,
}

/// What an operator asked.
pub(super) struct Asked {
    pub(super) host: Host,
    pub(super) op: Arc<Operator>,
    pub(super) method: AdminMethod,
    pub(super) params: Map<String, Value>,
}

impl AdminPlane {
    /// A plane in front of `host` that can tell the daemon to stop.
    pub(super) const fn new(host: Host, stop: Arc<watch::Sender<bool>>) -> Self {
        Self { host, stop }
    }

    /// A wrong token is never ignored, not even where none was needed.
    fn authenticate(&self, session: &mut AdminSession, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let shown: params::ShowToken = params::read(params)?;
        session.proof = self.host.authenticate_operator(session.peer, Some(&shown.token)).map(Arc::new);
        match &session.proof {
            Ok(operator) => Ok(Dispatch::Now(Body::Value(json!({"operator": operator.user()})))),
            Err(refusal) => Err(refusal.clone().into()),
        }
    }

    fn begin(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        use AdminMethod as Method;
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            // Dispatched before there is an operator; with one there is nothing left to do.
            Method::SessionAuthenticate => Dispatch::Now(Body::Value(json!({"operator": op.user()}))),
            Method::ApprovalsList | Method::ApprovalsShow | Method::ApprovalsApprove | Method::ApprovalsReject => {
                return self.consent(&op, method, params);
            }
            Method::TokensMint | Method::TokensList | Method::TokensRevoke => {
                return self.tokens(&op, method, params);
            }
            Method::StandingList
            | Method::StandingPreview
            | Method::StandingMake
            | Method::StandingAgree
            | Method::StandingRevoke
            | Method::AutonomyList
            | Method::AutonomyShow
            | Method::AutonomySet
            | Method::IncidentGet => {
                return oversight::begin(Asked { host, op, method, params });
            }
            Method::AlertsList | Method::AlertsShow | Method::AlertsAck => {
                return alerts::begin(Asked { host, op, method, params });
            }
            Method::OutcomesList | Method::OutcomesResolve => return self.outcomes(&op, method, params),
            Method::ToolsInstall | Method::ToolsList | Method::ToolsReload => {
                return self.tools(&op, method, params);
            }
            Method::PlansList | Method::PlansShow | Method::RunsList | Method::RunsShow | Method::TransactionsList => {
                return self.pages(&op, method, params);
            }
            Method::RunsRelease | Method::BudgetsShow | Method::BudgetsSpend | Method::BudgetsResume => {
                return self.runs(&op, method, params);
            }
            Method::UndoCall => return self.undo(&op, params),
            Method::DeadlettersList
            | Method::DeadlettersGet
            | Method::DeadlettersRetry
            | Method::DeadlettersDiscard => return self.deadletters(&op, method, params),
            Method::PolicyGet
            | Method::PolicyCheck
            | Method::PolicyExplain
            | Method::PolicyDiff
            | Method::PolicyReload => return self.policy(&op, method, params),
            Method::ReplayCall
            | Method::ReplayStart
            | Method::ReplayProgress
            | Method::ReplayCancel
            | Method::EvalAdd
            | Method::EvalList
            | Method::EvalShow
            | Method::EvalRemove
            | Method::EvalRun => return replay::begin(Asked { host, op, method, params }),
            Method::BreakersList
            | Method::BreakersOpen
            | Method::BreakersClose
            | Method::KillSet
            | Method::KillClear
            | Method::KillList => return self.stopping(&op, method, params),
            Method::AuditVerify
            | Method::AuditEntries
            | Method::AuditProve
            | Method::AuditExport
            | Method::AuditKey
            | Method::AuditCheckpoints
            | Method::AuditCheckpoint => return audit::begin(Asked { host, op, method, params }),
            Method::HealthGet | Method::DaemonDrain => return self.life(&op, method, params),
            Method::AuditRead
            | Method::RetentionShow
            | Method::RetentionRun
            | Method::RetentionHold
            | Method::RetentionRelease
            | Method::PrivacyForget
            | Method::StatsCalls
            | Method::StatsRuns
            | Method::StatsFile => return privacy::begin(Asked { host, op, method, params }),
        })
    }

    fn life(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        params::read::<params::Nothing>(params)?;
        if method == AdminMethod::HealthGet {
            return Ok(later(async move { host.health(&op).await.into() }));
        }
        let stop = Arc::clone(&self.stop);
        Ok(later(async move {
            let told = host.stopped_by(&op).await;
            stop.send_replace(true);
            told.into()
        }))
    }

    fn tools(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::ToolsInstall => {
                let install: params::InstallTool = params::read(params)?;
                check_absolute(&install.manifest)?;
                later(
                    async move { host.install(&op, &install.manifest, install.accept_failing.as_deref()).await.into() },
                )
            }
            AdminMethod::ToolsList => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(Body::Value(host.tools_admin(&op)))
            }
            _ => {
                params::read::<params::Nothing>(params)?;
                later(async move { super::reload(&host, Some(op)).await.into() })
            }
        })
    }

    fn undo(&self, op: &Arc<Operator>, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        let undo: params::Undo = params::read(params)?;
        let target = undo.target()?;
        Ok(later(async move { host.undo(&op, target, undo.preview).await.into() }))
    }

    fn tokens(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::TokensMint => {
                let mint: crate::host::Mint = params::read(params)?;
                later(async move { host.mint_token(&op, mint).await.into() })
            }
            AdminMethod::TokensRevoke => {
                let of: params::OfToken = params::read(params)?;
                later(async move { host.revoke_token(&op, of.token).await.into() })
            }
            _ => {
                let list: params::ListTokens = params::read(params)?;
                later(async move { host.tokens(&op, (list.all, list.sessions), list.cursor).await.into() })
            }
        })
    }

    fn outcomes(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        if method == AdminMethod::OutcomesList {
            params::read::<params::Nothing>(params)?;
            return Ok(later(async move { host.unknown_outcomes(&op).await.into() }));
        }
        let said: params::ResolveOutcome = params::read(params)?;
        Ok(later(async move { host.resolve_outcome(&op, said.call, said.sent, &said.reason).await.into() }))
    }

    fn pages(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::PlansList => {
                let page: params::Page = params::read(params)?;
                later(async move { host.plans(&op, page.cursor).await.into() })
            }
            AdminMethod::PlansShow => {
                let page: params::PlanShow = params::read(params)?;
                later(async move { host.plan_detail(&op, page.plan.0, page.cursor).await.into() })
            }
            AdminMethod::RunsList => {
                let page: params::Page = params::read(params)?;
                later(async move { host.runs(&op, page.cursor).await.into() })
            }
            AdminMethod::RunsShow => {
                let page: params::RunPage = params::read(params)?;
                later(async move { host.run_detail(&op, page.run, page.cursor).await.into() })
            }
            _ => {
                let page: params::Page = params::read(params)?;
                later(async move { host.all_transactions(&op, page.cursor).await.into() })
            }
        })
    }

    fn consent(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::ApprovalsList => {
                let list: params::ListApprovals = params::read(params)?;
                later(async move { host.approvals(&op, list.all).await.into() })
            }
            AdminMethod::ApprovalsShow => {
                let of: params::OfApproval = params::read(params)?;
                later(async move { host.approval_detail(&op, of.approval).await.into() })
            }
            AdminMethod::ApprovalsApprove => {
                let made: params::Approve = params::read(params)?;
                later(
                    async move { host.approve(&op, made.approval, &made.reason, made.confirm.as_deref()).await.into() },
                )
            }
            _ => {
                let made: params::Reject = params::read(params)?;
                later(async move { host.reject(&op, made.approval, &made.reason).await.into() })
            }
        })
    }

    fn runs(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::RunsRelease => {
                let release: params::ReleaseRun = params::read(params)?;
                later(async move { host.release_run(&op, release.run, release.more).await.into() })
            }
            AdminMethod::BudgetsSpend => {
                let spend: params::SpendParams = params::read(params)?;
                later(async move { host.budgets_spend(&op, spend.into()).await.into() })
            }
            AdminMethod::BudgetsResume => {
                let resume: params::ResumeParams = params::read(params)?;
                later(async move { host.budgets_resume(&op, resume.into()).await.into() })
            }
            _ => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(host.budgets_show(&op).into())
            }
        })
    }

    fn deadletters(
        &self,
        op: &Arc<Operator>,
        method: AdminMethod,
        params: Map<String, Value>,
    ) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        if method == AdminMethod::DeadlettersList {
            let list: params::ListDeadletters = params::read(params)?;
            return Ok(later(async move { host.dead_letters(&op, list.all, list.cursor).await.into() }));
        }
        let of: params::OfDelivery = params::read(params)?;
        Ok(match method {
            AdminMethod::DeadlettersRetry | AdminMethod::DeadlettersDiscard => {
                let retry = method == AdminMethod::DeadlettersRetry;
                later(async move { host.resolve_dead_letter(&op, of.delivery, retry).await.into() })
            }
            _ => later(async move { host.dead_letter(&op, of.delivery).await.into() }),
        })
    }

    fn stopping(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::BreakersList => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(host.circuits(&op).into())
            }
            AdminMethod::BreakersOpen | AdminMethod::BreakersClose => {
                let name: crate::host::CircuitName = params::read(params)?;
                Dispatch::Now(host.override_circuit(&op, name, method == AdminMethod::BreakersOpen).into())
            }
            AdminMethod::KillSet => {
                let set: params::SetKill = params::read(params)?;
                let mode = set.mode;
                later(async move { host.kill_set(&op, set.into(), mode).await.into() })
            }
            AdminMethod::KillClear => {
                let clear: params::ClearKill = params::read(params)?;
                later(async move { host.kill_clear(&op, clear.into()).await.into() })
            }
            _ => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(host.kill_list(&op).into())
            }
        })
    }

    fn policy(&self, op: &Arc<Operator>, method: AdminMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, op) = (self.host.clone(), Arc::clone(op));
        Ok(match method {
            AdminMethod::PolicyGet => {
                let get: params::PolicyGet = params::read(params)?;
                Dispatch::Now(host.policy_in_force(&op, get.schema).into())
            }
            AdminMethod::PolicyCheck => {
                let check: params::PolicyCheck = params::read(params)?;
                later(async move { host.policy_check(&op, check.files).await.into() })
            }
            AdminMethod::PolicyExplain => {
                let explain: params::PolicyExplain = params::read(params)?;
                match (explain.call, explain.suppose) {
                    (Some(call), None) => later(async move { host.policy_explain(&op, call).await.into() }),
                    (None, Some(supposed)) => Dispatch::Now(host.policy_suppose(&op, &supposed).into()),
                    _ => return Err(neither_nor()),
                }
            }
            AdminMethod::PolicyDiff => {
                let diff: params::PolicyDiff = params::read(params)?;
                later(async move { host.policy_diff(&op, diff.files, diff.calls).await.into() })
            }
            _ => {
                params::read::<params::Nothing>(params)?;
                later(async move { host.policy_reload(&op).await.into() })
            }
        })
    }
}

impl Plane for AdminPlane {
    type Session = AdminSession;

    /// Whoever connects may show the token; until then every method answers why the uid is not enough.
    fn open(&self, peer: Peer) -> Result<Self::Session, Refusal> {
        let proof = self.host.authenticate_operator(peer, None).map(Arc::new);
        Ok(AdminSession { peer, proof })
    }

    /// Where a uid is enough, or nearly, nobody is hurried: only the operator's own user reaches the socket.
    fn is_proven(&self, _: &Self::Session) -> bool {
        true
    }

    fn dispatch(&self, session: &mut Self::Session, method: &str, params: Map<String, Value>, _: Notes) -> Dispatch {
        let begun = match (AdminMethod::named(method), &session.proof) {
            (None, _) => Err(Fault::no_method(method)),
            (Some(AdminMethod::SessionAuthenticate), _) => self.authenticate(session, params),
            (Some(method), Ok(operator)) => match operator.check(|| self.host.now_ms()) {
                Ok(()) => self.begin(operator, method, params),
                Err(refusal) => Err(refusal.into()),
            },
            (Some(_), Err(refusal)) => Err(refusal.clone().into()),
        };
        begun.unwrap_or_else(|fault| Dispatch::Now(Body::Error(fault)))
    }
}

/// `policy.explain` is about one call.
fn neither_nor() -> Fault {
    let refusal = Refusal::new(Code::InvalidInput, "one of `call` and `suppose` is wanted").field(
        "/call",
        "is missing, or `suppose` is there too",
        "the id of a call, or else `suppose` with user, agent, tool and input",
    );
    Fault::protocol(INVALID_PARAMS, refusal)
}

/// The daemon's working directory means nothing to an operator.
fn check_absolute(manifest: &Path) -> Result<(), Fault> {
    if manifest.is_absolute() {
        return Ok(());
    }
    let refusal = Refusal::new(Code::InvalidInput, "`manifest` is a relative path").field(
        "/manifest",
        "is relative",
        "an absolute path on the daemon's machine",
    );
    Err(Fault::protocol(INVALID_PARAMS, refusal))
}
