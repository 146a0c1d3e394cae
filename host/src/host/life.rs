//! The life of the daemon: open the state, recover, run, drain.
//!
//! Start is one order: state folders, ledger (which checks itself after an unclean stop), workspaces, recovery of every
//! open intent, plans that people approved but that were not settled, catalog. Only then does the host accept calls. A
//! stop waits for calls in flight, never for callers.

use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;
use toolkeep_core::display::visible;
use toolkeep_core::event::Depth;
use toolkeep_core::hex;
use toolkeep_core::id::CallId;
use toolkeep_core::kill::Standing;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::fault::HostFault;
use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};
use toolkeep_sandbox::workspace::{WorkspaceError, WorkspaceRoot};

use super::changes::tools;
use super::credentials::Failures;
use super::kill::{gate, of_file};
use super::observe::Measured;
use super::{Flights, Host, Notices, Services};
use crate::admit::Admission;
use crate::ambient::Ambient;
use crate::approve::Consent;
use crate::artifacts::{ArtifactError, Artifacts};
use crate::authenticate::issuer::Issuers;
use crate::authenticate::{Authenticator, Operator};
use crate::autonomy::Autonomies;
use crate::blobs::{BlobError, Blobs, SpoolRoom};
use crate::breakers::Breakers;
use crate::budget::Budgets;
use crate::catalog::{CatalogHandle, Configured, Known};
use crate::channel::Channels;
use crate::checkpoints::Witnesses;
use crate::commit::{Committer, Left, RecoverError, Stores};
use crate::config::Config;
use crate::egress::{Egress, Resolver, TlsError};
use crate::execute::Executor;
use crate::exposure::Exposures;
use crate::kill::{self, KillSwitch, RUNS_KNOWN_MAX};
use crate::ledger::approval::ApprovalState;
use crate::ledger::{ApprovalFilter, Ledger, LedgerError, LedgerHealth, LedgerOptions, PAGE_BYTES, Page, Scope};
use crate::load::Loader;
use crate::metrics::{Consented, Metrics};
use crate::notify::{Event, Notify};
use crate::outbox::Outbox;
use crate::policy::PolicyHandle;
use crate::results::Results;
use crate::secrets::Secrets;
use crate::standing::StandingBook;
use crate::throttle::Throttle;
use crate::trace::{self, BadSetting, Tracing};
use crate::transaction::Turns;
use crate::workspaces::Workspaces;

/// How often plans and approvals are looked through for expired ones.
const SWEEP_EVERY: Duration = Duration::from_secs(1);
/// How often plans are looked for that people approved and that could not be settled then.
const SETTLE_EVERY: Duration = Duration::from_secs(30);
/// How long a stop waits for deliveries under way: one that is cut off is made again, with the same id.
const OUTBOX_WAIT: Duration = Duration::from_secs(5);
/// How long a stop waits for a collector to take what is left.
const SPANS_WAIT: Duration = Duration::from_secs(2);
/// Characters of the admin token: 32 random bytes in hexadecimal.
const TOKEN_BYTES: usize = 32;

/// Why the daemon does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// A folder of the daemon cannot be made or used.
    #[error("`{path}`: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The ledger does not open.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The blob store does not open.
    #[error(transparent)]
    Blobs(#[from] BlobError),
    /// The artifact store does not open.
    #[error(transparent)]
    Artifacts(#[from] ArtifactError),
    /// The sandbox refuses its configuration.
    #[error("the sandbox does not start: {0}")]
    Sandbox(#[from] HostFault),
    /// Outgoing connections cannot be protected.
    #[error(transparent)]
    Egress(#[from] TlsError),
    /// A workspace cannot be opened.
    #[error("`workspace.{name}.path`: {source}")]
    Workspace {
        /// The workspace.
        name: toolkeep_core::id::WorkspaceName,
        /// Why.
        source: WorkspaceError,
    },
    /// Spans cannot be exported as the environment wants it.
    #[error(transparent)]
    Tracing(#[from] BadSetting),
    /// Recovery could not look at the world.
    #[error("recovery failed: {0}")]
    Recover(#[from] RecoverError),
    /// The daemon cannot find its own program, which compiles components.
    #[error("the daemon's own program cannot be found: {0}")]
    Program(std::io::Error),
}

/// What the ledger is opened with.
fn ledger_options(config: &Config) -> LedgerOptions {
    let pages = u32::try_from(config.ledger.max_bytes / u64::from(PAGE_BYTES)).unwrap_or(u32::MAX);
    LedgerOptions {
        max_pages: Some(pages),
        environment: Some(config.environment.word()),
        recipients: config.privacy.recipients.clone(),
        ..LedgerOptions::default()
    }
}

impl Host {
    /// Open everything and recover.
    ///
    /// # Errors
    /// Something of the state, the workspaces or the sandbox cannot be used. Nothing was accepted.
    pub async fn start(config: Config, ambient: Ambient) -> Result<Self, StartError> {
        let state = &config.state_dir;
        private_folder(state)?;
        let ledger = Ledger::open_with(&state.join("ledger"), ambient.clone(), ledger_options(&config)).await?;
        let blobs = Blobs::open(&state.join("blobs"), ledger.clone(), ambient.clone())?;
        let artifacts = Artifacts::open(&state.join("artifacts"), &ambient)?;
        let workspaces = open_workspaces(&config)?;
        let secrets = Secrets::new(config.secrets.clone(), ambient.clone());
        let egress = Egress::new(&config.egress, Resolver::system(), secrets)?;
        report_unreadable_secrets(egress.clone());
        let kill = kill_switch(&config, &ledger, ambient.now_ms()).await?;
        let stores = Stores {
            ledger: ledger.clone(),
            blobs: blobs.clone(),
            ambient: ambient.clone(),
            egress: egress.clone(),
            kill: kill.clone(),
        };
        let channels = Channels::new(config.channels.clone(), egress.clone());
        let notify = Notify::new(config.notify.clone(), channels.clone(), ledger.clone(), ambient.clone())
            .with_alerts(config.alerts.clone());
        let breakers = Breakers::new(config.breaker, &ambient, ledger.clone(), notify.clone());
        let committer = Arc::new(committer(&config, stores, &workspaces)?.with_breakers(breakers.clone()));
        let left = committer.recover().await?;
        ledger.end_retries().await?;
        let sandbox = Arc::new(Sandbox::new(SandboxConfig::default())?);
        let program = std::env::current_exe().map_err(StartError::Program)?;
        let known = Known::new(artifacts.clone(), sandbox.fingerprint());
        let token = admin_token(&config.runtime_dir, &ambient)?;
        let issuers = Issuers::new(config.issuers.clone());
        issuers.start(&egress, &ambient).await;
        let witnesses = witnesses(&config, &channels, &ledger, &ambient);
        let outbox =
            Outbox::start(ledger.clone(), channels, notify.clone(), ambient.clone(), gate(&kill, &ledger)).await?;
        let catalog = CatalogHandle::open(&config.tools_dir, known, Configured::of(&config));
        let (exposures, autonomy, standing) = oversight(&config, &ledger, ambient.now_ms()).await?;
        let budgets = Budgets::open(config.budgets.clone(), ledger.clone(), notify.clone(), ambient.clone()).await?;
        let loader = Loader::new(Arc::clone(&sandbox), artifacts, program);
        let metrics = Metrics::default();
        let about = trace::About { host_id: ledger.host_id(), environment: config.environment.word() };
        let tracing = Tracing::start(&ambient, &egress, &metrics, &about)?;
        let executor =
            executor((sandbox, loader, blobs.spool(), config.recording.depth), &ambient, &egress, &ledger, &breakers);
        let host = Self(Arc::new(Services {
            outbox,
            witnesses,
            notify,
            metrics,
            tracing,
            measured: Measured::begun(&ambient),
            exposures,
            autonomy,
            standing,
            authenticator: Authenticator::new(&config, token, issuers),
            failures: Failures::default(),
            policy: PolicyHandle::open(config.policy_dir.clone(), &catalog.current().shapes()),
            catalog,
            admission: Admission::new(&config.limits, Throttle::new(config.rates.clone(), &ambient), breakers.clone()),
            kill,
            budgets,
            executor,
            breakers,
            results: Results::default(),
            workspaces,
            committer,
            ledger,
            blobs,
            flights: Flights::default(),
            notices: Notices::default(),
            turns: Turns::default(),
            jobs: super::jobs::Jobs::default(),
            fresh_runs: tokio::sync::Mutex::default(),
            checks: super::checks::Checks::new(config.recording.check_permille),
            runtime: tokio::runtime::Handle::current(),
            ambient,
            config,
        }));
        host.begin(left).await;
        Ok(host)
    }

    /// What the last life left is taken up, and the daemon's own work begins.
    async fn begin(&self, left: Left) {
        self.report_problems();
        self.report_policies();
        self.load_credentials().await;
        self.settle_approved().await;
        self.go_on_with(left);
        self.note_start();
        self.keep_house();
        self.keep_what_is_wanted();
        self.watch_audit();
        self.warm_up();
        self.keep_versions();
    }

    /// Commits that were interrupted while they sent requests, then calls that wait for one. What is left for people then,
    /// they are told.
    fn go_on_with(&self, left: Left) {
        let host = self.clone();
        self.spawn(async move {
            for intent in left.halted {
                host.tell_end_of(&intent).await;
            }
            for intent in left.interrupted {
                host.finish_intent(intent).await;
            }
            host.report_waiting().await;
            host.resume_all().await;
        });
    }

    /// Plans that people approved and that were not settled: the daemon was stopped, or the disk refused.
    pub(super) async fn settle_approved(&self) {
        let filter = ApprovalFilter { state: Some(ApprovalState::Approved) };
        let mut page = Page::default();
        loop {
            let approvals = match self.ledger().approvals(&Scope::Operator, filter, page).await {
                Ok(approvals) => approvals,
                Err(error) => {
                    tracing::error!(%error, "approved plans could not be looked up");
                    return;
                }
            };
            for approval in approvals.items {
                if let Ok(Some(stored)) = self.ledger().plan(&Scope::Operator, approval.plan).await {
                    let (host, call) = (self.clone(), stored.call.row.call);
                    let answer = self.settle_stored(Consent::People(Box::new(stored))).await;
                    // A call may wait for this one, and nobody else has it go on.
                    self.spawn(async move {
                        host.resume(call).await;
                        host.0.notices.announce();
                    });
                    tracing::info!(plan = %approval.plan, outcome = ?answer.outcome, "settled a plan that was approved before");
                }
            }
            match approvals.next {
                Some(next) => page.cursor = Some(next),
                None => return,
            }
        }
    }

    fn keep_house(&self) {
        let host = self.clone();
        self.spawn(async move {
            let mut sweep = tokio::time::interval(SWEEP_EVERY);
            let mut settle = tokio::time::interval(SETTLE_EVERY);
            let mut told = LedgerHealth::Well;
            loop {
                tokio::select! {
                    _ = sweep.tick() => {
                        host.expire().await;
                        host.watch_the_ledger(&mut told);
                        host.budgets().keep_house();
                        host.mark_owed();
                        host.budgets().look_for_spikes().await;
                    }
                    _ = settle.tick() => host.settle_approved().await,
                }
                if host.admission().draining() {
                    return;
                }
            }
        });
    }

    async fn expire(&self) {
        // The turn may have come while the daemon stops: the ledger closes then, and the next start looks through it.
        if self.admission().draining() {
            return;
        }
        if let Err(error) = self.ledger().sync_outcomes().await {
            tracing::error!(%error, "outcomes could not be flushed; the next start judges their intents again");
        }
        match self.ledger().expire_due(self.ambient().now_ms()).await {
            Ok(calls) if calls.is_empty() => {}
            Ok(calls) => {
                for call in calls {
                    tracing::warn!(%call, "nobody answered in time: the plan expired");
                    self.resume(call).await;
                    self.tell_expired(call).await;
                }
                self.0.notices.announce();
            }
            Err(error) => tracing::error!(%error, "expired plans could not be looked through"),
        }
    }

    /// Tell operators of a plan that nobody answered for. A preview that nobody committed is nothing to tell of.
    async fn tell_expired(&self, call: CallId) {
        let Ok(Some(stored)) = self.ledger().call(&Scope::Operator, call).await else { return };
        let row = stored.row;
        if row.error_code == Some(Code::ApprovalExpired) {
            self.metrics().consented(Consented::Expired);
            let facts = json!({"call_id": call, "tool": row.tool, "requester": row.principal, "approved": false});
            self.0.notify.event(Event::ApprovalExpired, &row.principal.tenant, facts);
        }
    }

    /// Read the manifests and the policies again: because an operator says so, or a file changed.
    #[must_use]
    pub fn reload(&self, by: Option<&Operator>) -> serde_json::Value {
        let (offered, contracts) = (tools(&self.catalog().current()), self.contracts_now());
        let catalog = self.catalog().reload();
        self.note_changes(AuditKind::Tool, ("changed", &offered, &tools(&catalog)), by);
        self.keep_versions();
        self.report_problems();
        let policy = self.reload_policies(by);
        self.budgets().contracts().reload();
        self.note_changes(AuditKind::Configuration, ("contracts", &contracts, &self.contracts_now()), by);
        self.warm_up();
        json!({"tools": catalog.tools().map(|tool| tool.name.clone()).collect::<Vec<_>>(),
            "problems": catalog.problems(), "policy": policy})
    }

    fn report_problems(&self) {
        for problem in self.catalog().current().problems() {
            tracing::warn!(file = %problem.file.display(), kept_old = problem.kept_old, "manifest refused: {}", problem.problem);
        }
    }

    /// Whether calls are accepted.
    #[must_use]
    pub fn ready(&self) -> bool {
        !self.admission().draining()
    }

    /// Accept no more calls.
    pub fn drain(&self) {
        self.admission().drain();
    }

    /// Wait for calls in flight, cancel those that do not end in time, and close the ledger. Says whether all ended by
    /// themselves.
    pub async fn drained(&self, within: Duration) -> bool {
        self.drain();
        let in_time = tokio::time::timeout(within, self.flights().all_landed()).await.is_ok();
        if !in_time {
            self.flights().cancel_all();
            let grace = Duration::from_secs(5);
            if tokio::time::timeout(grace, self.flights().all_landed()).await.is_err() {
                tracing::warn!("calls in flight did not end after they were cancelled");
            }
        }
        self.tracing().close(SPANS_WAIT).await;
        if !self.0.outbox.close(OUTBOX_WAIT).await {
            tracing::warn!("deliveries were under way at the stop; the next start makes them again");
        }
        self.note_stop();
        self.vouch().await;
        if let Err(error) = self.ledger().close().await {
            tracing::error!(%error, "the ledger did not close cleanly");
        }
        in_time
    }
}

/// Run something that reads and writes files where blocking is allowed.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Refusal::new(Code::Internal, "BUG: the work panicked"))
}

/// Where checkpoints of the audit go.
fn witnesses(config: &Config, channels: &Channels, ledger: &Ledger, ambient: &Ambient) -> Witnesses {
    let tenant = config.operators.values().map(|operator| operator.tenant.clone()).next();
    Witnesses::new(config.checkpoints.clone(), channels.clone(), ledger.clone(), ambient.clone(), tenant)
}

fn committer(config: &Config, stores: Stores, workspaces: &Workspaces) -> Result<Committer, StartError> {
    let notes = config.state_dir.join("attempts");
    let committer = Committer::new(stores, workspaces.roots(), &notes, config.limits.undo_bytes);
    let committer = committer.map_err(|source| StartError::Folder { path: notes, source })?;
    Ok(committer.with_quotas(&config.quotas))
}

/// The kill switch as the last life left it, and as the file says.
async fn kill_switch(config: &Config, ledger: &Ledger, now_ms: u64) -> Result<KillSwitch, LedgerError> {
    let file = kill::file::look(&config.kill.file).map(|said| of_file(&said, now_ms));
    let standing = Standing::of(ledger.kill_switches().await?).with_file(file);
    for switch in standing.switches() {
        let (target, mode, by) = (&switch.target, switch.mode.word(), &switch.by);
        tracing::warn!(%target, mode, %by, "is stopped: {}", visible(&switch.reason));
    }
    let kill = KillSwitch::new(standing, config.kill.contact.clone());
    for (run, workflow) in ledger.runs_with_workflow(RUNS_KNOWN_MAX).await? {
        kill.learn(run, Some(workflow));
    }
    Ok(kill)
}

fn executor(
    (sandbox, loader, spool, depth): (Arc<Sandbox>, Loader, SpoolRoom, Depth),
    ambient: &Ambient,
    egress: &Egress,
    ledger: &Ledger,
    breakers: &Breakers,
) -> Executor {
    let (ambient, egress, ledger, breakers) = (ambient.clone(), egress.clone(), ledger.clone(), breakers.clone());
    Executor { sandbox, loader, spool, depth, ambient, egress, ledger, breakers }
}

/// What runs have seen, how far agents may go, and what people agreed to in advance, as the last life left it.
async fn oversight(
    config: &Config,
    ledger: &Ledger,
    now_ms: u64,
) -> Result<(Exposures, Arc<Autonomies>, StandingBook), StartError> {
    let exposures = Exposures::of_marks(&ledger.run_marks().await?);
    let autonomy = Arc::new(Autonomies::new(config.autonomy, ledger.autonomies().await?));
    let standing = StandingBook::default();
    standing.fill(ledger.standing(&Scope::Operator, false, now_ms).await?);
    Ok((exposures, autonomy, standing))
}

fn open_workspaces(config: &Config) -> Result<Workspaces, StartError> {
    let mut opened = Workspaces::default();
    for (name, workspace) in &config.workspaces {
        let root = WorkspaceRoot::open(name.clone(), &workspace.path)
            .map_err(|source| StartError::Workspace { name: name.clone(), source })?;
        opened.insert(name.clone(), workspace.tenant.clone(), Arc::new(root));
    }
    Ok(opened)
}

/// Make a folder that only the daemon can enter.
fn private_folder(path: &Path) -> Result<(), StartError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|source| StartError::Folder { path: path.to_path_buf(), source })
}

/// The digest of the admin token, which is made at the first start.
fn admin_token(runtime_dir: &Path, ambient: &Ambient) -> Result<Digest, StartError> {
    let folder = runtime_dir.join("admin");
    private_folder(&folder)?;
    let path = folder.join("token");
    let failed = |source| StartError::Folder { path: path.clone(), source };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) if text.trim().len() >= TOKEN_BYTES => text,
        Ok(_) => {
            return Err(failed(std::io::Error::other("the token is too short; remove the file, a new one is made")));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let text = hex::text(&ambient.random::<TOKEN_BYTES>());
            let mut options = std::fs::OpenOptions::new();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path).map_err(failed)?;
            std::io::Write::write_all(&mut file, text.as_bytes()).map_err(failed)?;
            text
        }
        Err(error) => return Err(failed(error)),
    };
    Ok(Digest::of(text.trim().as_bytes()))
}

/// Say early which secrets cannot be read; requests that need them are refused. A helper may take its time, so that nobody
/// waits for it.
fn report_unreadable_secrets(egress: Egress) {
    tokio::spawn(async move {
        for (name, problem) in egress.secrets().problems().await {
            tracing::error!(secret = %name, %problem, "a secret cannot be read");
        }
    });
}
