//! The agent plane: from methods to the [`Host`].
//!
//! A session is a [`Caller`], made once from the credentials of the peer. Every call is made in that name; there is no
//! parameter that could change it, and no method here that grants, approves, installs or stops.

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use toolkeep_core::call::Mode;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;

use super::bounds::{NOTES_MAX, WAIT_DEFAULT_MS, WAIT_MAX_MS};
use super::method::AgentMethod;
use super::params;
use super::plane::{Dispatch, Notes, Plane, Work};
use super::reply::{self, Body, Fault};
use super::server::stop_asked;
use crate::authenticate::{Caller, Peer};
use crate::host::Host;
use crate::record::Answer;

/// The agent socket.
#[derive(Debug)]
pub(super) struct AgentPlane {
    host: Host,
    stop: watch::Receiver<bool>,
}

impl AgentPlane {
    /// A plane in front of `host`; waits end when `stop` says so.
    pub(super) const fn new(host: Host, stop: watch::Receiver<bool>) -> Self {
        Self { host, stop }
    }

    fn begin(
        &self,
        caller: &Arc<Caller>,
        method: AgentMethod,
        params: Map<String, Value>,
        notes: Notes,
    ) -> Result<Dispatch, Fault> {
        let (host, caller) = (self.host.clone(), Arc::clone(caller));
        Ok(match method {
            AgentMethod::HostInfo => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(Body::Value(host.info()))
            }
            AgentMethod::ToolsList => {
                params::read::<params::Nothing>(params)?;
                Dispatch::Now(Body::Value(host.tools(&caller)))
            }
            AgentMethod::ToolsDescribe => {
                let of: params::OfTool = params::read(params)?;
                Dispatch::Now(host.tool(&caller, &of.tool).into())
            }
            AgentMethod::RunsOpen | AgentMethod::RunsGet | AgentMethod::RunsClose => run(host, caller, method, params)?,
            AgentMethod::CallsExecute => call(host, caller, params::call(params, None)?, notes),
            AgentMethod::CallsPreview => call(host, caller, params::call(params, Some(Mode::Preview))?, notes),
            AgentMethod::CallsGet => {
                let of: params::OfCall = params::read(params)?;
                later(async move { host.call_state(&caller, of.call).await.into() })
            }
            AgentMethod::CallsCancel => {
                let of: params::OfCall = params::read(params)?;
                Dispatch::Now(host.cancel(&caller, of.call).into())
            }
            AgentMethod::PlansGet => {
                let page: params::PlanPage = params::read(params)?;
                later(async move { host.plan(&caller, page.plan.0, page.cursor, page.diffs).await.into() })
            }
            AgentMethod::PlansCommit => {
                let of: params::OfPlan = params::read(params)?;
                later(async move { host.commit_plan(&caller, of.plan.0).await.into() })
            }
            AgentMethod::PlansDiscard => {
                let of: params::OfPlanId = params::read(params)?;
                later(async move { host.discard_plan(&caller, of.plan).await.into() })
            }
            AgentMethod::ApprovalsGet => {
                let of: params::OfApproval = params::read(params)?;
                later(async move { host.approval(&caller, of.approval).await.into() })
            }
            AgentMethod::ApprovalsWait => {
                let wait: params::WaitApproval = params::read(params)?;
                let timeout_ms = wait.timeout_ms.unwrap_or(WAIT_DEFAULT_MS).min(WAIT_MAX_MS);
                let stop = self.stop.clone();
                let waiting = async move { host.wait_approval(&caller, wait.approval, timeout_ms).await };
                later(async move { until_stop(waiting, stop).await.into() })
            }
            AgentMethod::TransactionsBegin
            | AgentMethod::TransactionsGet
            | AgentMethod::TransactionsList
            | AgentMethod::TransactionsPreview
            | AgentMethod::TransactionsCommit
            | AgentMethod::TransactionsRollback => transaction(host, caller, method, params)?,
            AgentMethod::UndoPropose => {
                let undo: params::Undo = params::read(params)?;
                let target = undo.target()?;
                later(async move { host.propose_undo(&caller, target).await.into() })
            }
            AgentMethod::ReceiptsVerify => {
                let verify: params::VerifyReceipt = params::read(params)?;
                Dispatch::Now(host.verify_receipt(&verify.receipt).into())
            }
        })
    }
}

impl Plane for AgentPlane {
    type Session = Arc<Caller>;

    fn open(&self, peer: Peer) -> Result<Self::Session, Refusal> {
        self.host.authenticate(peer).map(Arc::new)
    }

    fn dispatch(
        &self,
        session: &mut Self::Session,
        method: &str,
        params: Map<String, Value>,
        notes: Notes,
    ) -> Dispatch {
        let Some(method) = AgentMethod::named(method) else {
            return Dispatch::Now(Body::Error(Fault::no_method(method)));
        };
        self.begin(session, method, params, notes).unwrap_or_else(|fault| Dispatch::Now(Body::Error(fault)))
    }
}

/// Make a dispatch of what takes time.
pub(super) fn later(work: impl Future<Output = Body> + Send + 'static) -> Dispatch {
    Dispatch::Later(Box::pin(work))
}

/// The methods of runs.
fn run(host: Host, caller: Arc<Caller>, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
    Ok(match method {
        AgentMethod::RunsOpen => {
            let open: params::OpenRun = params::read(params)?;
            Dispatch::Now(host.open_run(&caller, &open.label).into())
        }
        AgentMethod::RunsGet => {
            let page: params::RunPage = params::read(params)?;
            later(async move { host.run(&caller, page.run, page.cursor).await.into() })
        }
        AgentMethod::RunsClose => {
            let of: params::OfRun = params::read(params)?;
            later(async move { host.close_run(&caller, of.run).await.into() })
        }
        other => return Err(Fault::no_method(other.name())),
    })
}

/// The methods of transactions.
fn transaction(
    host: Host,
    caller: Arc<Caller>,
    method: AgentMethod,
    params: Map<String, Value>,
) -> Result<Dispatch, Fault> {
    Ok(match method {
        AgentMethod::TransactionsBegin => {
            let begin: params::Begin = params::read(params)?;
            later(async move { host.begin_transaction(&caller, begin.into()).await.into() })
        }
        AgentMethod::TransactionsGet => {
            let of: params::OfTransaction = params::read(params)?;
            later(async move { host.transaction(&caller, of.transaction).await.into() })
        }
        AgentMethod::TransactionsList => {
            let page: params::Page = params::read(params)?;
            later(async move { host.transactions(&caller, page.cursor).await.into() })
        }
        AgentMethod::TransactionsPreview => {
            let of: params::OfTransaction = params::read(params)?;
            later(async move { host.preview_transaction(&caller, of.transaction).await.into() })
        }
        AgentMethod::TransactionsCommit => {
            let commit: params::CommitParams = params::read(params)?;
            later(async move { host.commit_transaction(&caller, commit.into()).await.into() })
        }
        AgentMethod::TransactionsRollback => {
            let of: params::OfTransaction = params::read(params)?;
            later(async move { host.rollback_transaction(&caller, of.transaction).await.into() })
        }
        other => return Err(Fault::no_method(other.name())),
    })
}

fn call(host: Host, caller: Arc<Caller>, call: params::Call, notes: Notes) -> Dispatch {
    let params::Call { request, progress } = call;
    if !progress {
        return later(async move { host.call(&caller, request, None).await.into() });
    }
    let (sender, news) = mpsc::channel(NOTES_MAX);
    let work: Work = Box::pin(async move { host.call(&caller, request, Some(sender)).await.into() });
    later(with_news(work, news, notes))
}

/// Pass the news of a call on until it is done. News that the peer does not read in time are dropped.
async fn with_news(mut work: Work, mut news: mpsc::Receiver<Progress>, notes: Notes) -> Body {
    loop {
        tokio::select! {
            biased;
            Some(note) = news.recv() => {
                if notes.lines.try_send(reply::progress_line(&notes.id, &note)).is_err() {
                    tracing::debug!("a progress note is dropped: the peer does not read");
                }
            }
            body = &mut work => return body,
        }
    }
}

/// A wait that a stopping daemon ends: the approval stays as it is and can be waited for again.
async fn until_stop(
    waiting: impl Future<Output = Result<Answer, Refusal>>,
    mut stop: watch::Receiver<bool>,
) -> Result<Answer, Refusal> {
    tokio::select! {
        answer = waiting => answer,
        () = stop_asked(&mut stop) => {
            Err(Refusal::new(Code::Overloaded, "the daemon is stopping; the approval still waits").after_ms(WAIT_AGAIN_MS))
        }
    }
}

/// When to wait again after a stop, in milliseconds: the time of a restart.
const WAIT_AGAIN_MS: u64 = 2_000;
