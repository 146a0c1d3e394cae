//! The agent plane: from methods to the [`Host`].
//!
//! A session is a [`Caller`], made from the credentials of the peer or from what it shows as its first message; afterwards
//! it never changes. Every call is made in that name; there is no parameter that could change it, and no method here that
//! grants, approves, installs or stops. Before each request the credential is asked whether it still stands.

use serde_json::{Map, Value};
use tokio::sync::{mpsc, watch};
use toolkeep_core::call::Mode;
use toolkeep_core::id::CallId;
use toolkeep_core::principal;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::capability::context::Progress;

use super::bounds::{NOTES_MAX, WAIT_DEFAULT_MS, WAIT_MAX_MS};
use super::envelope::RequestId;
use super::method::AgentMethod;
use super::params::{self, Cancelled};
use super::plane::{Dispatch, Notes, Plane, Work};
use super::reply::{self, Body, Fault};
use super::server::stop_asked;
use crate::authenticate::{Caller, Peer};
use crate::host::{CloseRun, Delegate, Host};
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

    fn begin(&self, caller: &Caller, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let (host, caller) = (self.host.clone(), caller.clone());
        Ok(match method {
            AgentMethod::SessionAuthenticate
            | AgentMethod::SessionGet
            | AgentMethod::SessionsDelegate
            | AgentMethod::SessionsList
            | AgentMethod::SessionsRevoke => session(host, caller, method, params)?,
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
            AgentMethod::RunsOpen | AgentMethod::RunsGet | AgentMethod::RunsReport | AgentMethod::RunsClose => {
                run(host, caller, method, params)?
            }
            AgentMethod::CallsGet => {
                let of: params::OfCall = params::read(params)?;
                later(async move { host.call_state(&caller, of.call).await.into() })
            }
            AgentMethod::CallsOutput => {
                let part: params::OutputPart = params::read(params)?;
                later(async move { host.output(&caller, part.call, part.offset).await.into() })
            }
            AgentMethod::PlansGet | AgentMethod::PlansCommit | AgentMethod::PlansDiscard => {
                plan(host, caller, method, params)?
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
            // These know of the other requests of their connection.
            AgentMethod::CallsExecute | AgentMethod::CallsPreview | AgentMethod::CallsCancel => {
                return Err(Fault::no_method(method.name()));
            }
        })
    }
}

fn plan(host: Host, caller: Caller, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
    Ok(match method {
        AgentMethod::PlansGet => {
            let page: params::PlanPage = params::read(params)?;
            later(async move { host.plan(&caller, page.plan.0, page.cursor, page.diffs).await.into() })
        }
        AgentMethod::PlansCommit => {
            let of: params::OfPlan = params::read(params)?;
            later(async move { host.commit_plan(&caller, of.plan.0).await.into() })
        }
        _ => {
            let of: params::OfPlanId = params::read(params)?;
            later(async move { host.discard_plan(&caller, of.plan).await.into() })
        }
    })
}

/// What an agent connection proved so far.
#[derive(Debug)]
pub(super) struct AgentSession {
    peer: Peer,
    /// Why the uid alone is not enough, until something was shown.
    proof: Result<Caller, Refusal>,
    /// Whether a request was made in the name that the connection has.
    used: bool,
    /// Calls that requests of the connection have made and that are not answered; at most as many as may be in flight.
    calls: Vec<(RequestId, CallId)>,
}

impl AgentSession {
    /// In whose name the next request is made.
    ///
    /// # Errors
    /// `unauthorized`: nobody's, or that of a credential which does not stand any more.
    pub(super) fn caller(&mut self, now_ms: impl FnOnce() -> u64) -> Result<Caller, Refusal> {
        let caller = self.proof.clone()?;
        self.used = true;
        caller.check(now_ms)?;
        Ok(caller)
    }
}

impl AgentPlane {
    /// Make a call, which the connection can cancel by the id of its request from now on.
    fn call(
        &self,
        caller: &Caller,
        calls: &mut Vec<(RequestId, CallId)>,
        call: params::Call,
        notes: Notes,
    ) -> Dispatch {
        let params::Call { request, progress } = call;
        let (sender, news) = if progress { Some(mpsc::channel(NOTES_MAX)) } else { None }.unzip();
        let boarded = self.host.board(caller, sender);
        calls.push((notes.id.clone(), boarded.id()));
        let (host, caller) = (self.host.clone(), caller.clone());
        let work = async move { host.call_aboard(boarded, &caller, request).await.into() };
        match news {
            None => later(work),
            Some(news) => later(with_news(Box::pin(work), news, notes)),
        }
    }

    /// Cancel a call, by its id or by that of its request.
    fn cancel(
        &self,
        caller: &Caller,
        calls: &[(RequestId, CallId)],
        params: Map<String, Value>,
    ) -> Result<Dispatch, Fault> {
        let cancel: params::CancelCall = params::read(params)?;
        let call = match cancel.target()? {
            Cancelled::Call(call) => Some(call),
            Cancelled::Request(id) => calls.iter().find(|(known, _)| *known == id).map(|(_, call)| *call),
        };
        let call = call.ok_or_else(|| Refusal::not_found("call in flight"))?;
        Ok(Dispatch::Now(self.host.cancel(caller, call).into()))
    }

    /// What is shown takes the place of the uid, and what is refused leaves nobody: a wrong token is never ignored.
    fn authenticate(&self, session: &mut AgentSession, params: Map<String, Value>) -> Result<Dispatch, Fault> {
        let shown: params::ShowToken = params::read(params)?;
        if session.used {
            let refusal = Refusal::new(Code::Denied, "this connection was used in another name")
                .hint("show the token as the first message of a connection of its own");
            return Err(refusal.into());
        }
        session.proof = self.host.show(session.peer, &shown.token);
        match &session.proof {
            Ok(caller) => {
                session.used = true;
                Ok(Dispatch::Now(Body::Value(self.host.session(caller))))
            }
            Err(refusal) => Err(refusal.clone().into()),
        }
    }
}

impl Plane for AgentPlane {
    type Session = AgentSession;

    /// Where nothing could be shown, a peer that is nobody by its uid hears so at once.
    fn open(&self, peer: Peer) -> Result<Self::Session, Refusal> {
        match self.host.authenticate(peer) {
            Err(refusal) if !self.host.takes_credentials() => {
                self.host.refused_credential(peer, principal::Plane::Agent, &refusal);
                Err(refusal)
            }
            proof => Ok(AgentSession { peer, proof, used: false, calls: Vec::new() }),
        }
    }

    fn is_proven(&self, session: &Self::Session) -> bool {
        session.proof.is_ok()
    }

    fn answered(&self, session: &mut Self::Session, request: &RequestId) {
        if let Some(place) = session.calls.iter().position(|(known, _)| known == request) {
            session.calls.swap_remove(place);
        }
    }

    fn dispatch(
        &self,
        session: &mut Self::Session,
        method: &str,
        params: Map<String, Value>,
        notes: Notes,
    ) -> Dispatch {
        let begun = match (AgentMethod::named(method), &session.proof) {
            (None, _) => Err(Fault::no_method(method)),
            (Some(AgentMethod::SessionAuthenticate), _) => self.authenticate(session, params),
            (Some(method), Ok(caller)) => {
                session.used = true;
                match (caller.check(|| self.host.now_ms()), method) {
                    (Err(refusal), _) => Err(refusal.into()),
                    (Ok(()), AgentMethod::CallsExecute) => {
                        let call = params::call(params, None);
                        call.map(|call| self.call(caller, &mut session.calls, call, notes))
                    }
                    (Ok(()), AgentMethod::CallsPreview) => {
                        let call = params::call(params, Some(Mode::Preview));
                        call.map(|call| self.call(caller, &mut session.calls, call, notes))
                    }
                    (Ok(()), AgentMethod::CallsCancel) => self.cancel(caller, &session.calls, params),
                    (Ok(()), method) => self.begin(caller, method, params),
                }
            }
            (Some(_), Err(refusal)) => Err(refusal.clone().into()),
        };
        begun.unwrap_or_else(|fault| Dispatch::Now(Body::Error(fault)))
    }
}

/// Make a dispatch of what takes time.
pub(super) fn later(work: impl Future<Output = Body> + Send + 'static) -> Dispatch {
    Dispatch::Later(Box::pin(work))
}

/// The methods of sessions.
fn session(host: Host, caller: Caller, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
    Ok(match method {
        // Showing something is dispatched before there is a caller; with one there is nothing left to do.
        AgentMethod::SessionAuthenticate | AgentMethod::SessionGet => {
            params::read::<params::Nothing>(params)?;
            Dispatch::Now(Body::Value(host.session(&caller)))
        }
        AgentMethod::SessionsDelegate => {
            let wanted: Delegate = params::read(params)?;
            later(async move { host.delegate(&caller, wanted).await.into() })
        }
        AgentMethod::SessionsList => {
            let page: params::Page = params::read(params)?;
            later(async move { host.sessions(&caller, page.cursor).await.into() })
        }
        AgentMethod::SessionsRevoke => {
            let of: params::OfSession = params::read(params)?;
            later(async move { host.revoke_session(&caller, of.session).await.into() })
        }
        other => return Err(Fault::no_method(other.name())),
    })
}

/// The methods of runs.
fn run(host: Host, caller: Caller, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
    Ok(match method {
        AgentMethod::RunsOpen => {
            let open: params::OpenRunParams = params::read(params)?;
            Dispatch::Now(host.open_run(&caller, open.into()).into())
        }
        AgentMethod::RunsGet => {
            let page: params::RunPage = params::read(params)?;
            later(async move { host.run(&caller, page.run, page.cursor).await.into() })
        }
        AgentMethod::RunsClose => {
            let close: params::CloseRunParams = params::read(params)?;
            let (run, close) = (close.run, CloseRun { outcome: close.outcome, abandon: close.abandon });
            later(async move { host.close_run(&caller, run, close).await.into() })
        }
        AgentMethod::RunsReport => {
            let report: params::ReportRun = params::read(params)?;
            later(async move { host.report_run(&caller, report.run, &report.usage).await.into() })
        }
        other => return Err(Fault::no_method(other.name())),
    })
}

/// The methods of transactions.
fn transaction(host: Host, caller: Caller, method: AgentMethod, params: Map<String, Value>) -> Result<Dispatch, Fault> {
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

/// Pass the news of a call on until it is done. News that the peer does not read in time are dropped.
async fn with_news(mut work: Work, mut news: mpsc::Receiver<Progress>, notes: Notes) -> Body {
    let tell = |note: Progress| {
        if notes.lines.try_send(reply::progress_line(&notes.id, &note)).is_err() {
            tracing::debug!("a progress note is dropped: the peer does not read");
        }
    };
    loop {
        tokio::select! {
            biased;
            Some(note) = news.recv() => tell(note),
            body = &mut work => {
                // A quick tool is done before anybody looks for its news.
                while let Ok(note) = news.try_recv() {
                    tell(note);
                }
                return body;
            }
        }
    }
}

/// A wait that a stopping daemon ends: the approval stays as it is and can be waited for again.
pub(super) async fn until_stop(
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
