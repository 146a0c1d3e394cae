//! One call of one sample tool in the sandbox, with what a test wants to be different.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc::Sender;
use toolkeep::replay::compare;
use toolkeep_core::call::Mode;
use toolkeep_core::capability::{Access, ClockGrant, FileGrant, PathGlobs};
use toolkeep_core::event::{Depth, How, Recording};
use toolkeep_core::limit::ExecutionLimits;
use toolkeep_core::principal::{Origin, Principal};
use toolkeep_sandbox::capability::context::{Context, Progress};
use toolkeep_sandbox::execution::{Cancel, Ended, Entry, Execution, Order, Outward, Playing};
use toolkeep_sandbox::fault::{Fault, HostFault};
use toolkeep_sandbox::pool::Loaded;
use toolkeep_sandbox::stage::{Mount, Root};
use toolkeep_sandbox::tape::{Matching, Tape};
use toolkeep_sandbox::workspace::WorkspaceRoot;

use super::components::{compiled, sandbox, wasm};
use super::scratch::Scratch;

/// The wall clock of every call: 2023-11-14T22:13:20Z.
pub const WALL_CLOCK_NS: u64 = 1_700_000_000_000_000_000;

/// A call that can be changed before it is made.
#[derive(Debug)]
pub struct GuestCall {
    /// The sample tool, and the tool inside of it unless `local` says otherwise.
    pub tool: String,
    /// The tool inside of it.
    pub local: Option<String>,
    /// The function that is called, of a component that was not built with the SDK.
    pub function: Option<String>,
    /// Its input.
    pub input: String,
    /// What it may use.
    pub limits: ExecutionLimits,
    /// Seed of its randomness.
    pub seed: u8,
    /// Which clock it sees.
    pub clock: ClockGrant,
    /// Commit or preview.
    pub mode: Mode,
    /// Workspaces.
    pub mounts: Vec<Mount>,
    /// What it may reach beyond files.
    pub outward: Outward,
    /// Ends it early.
    pub cancel: Cancel,
    /// Who hears about progress.
    pub progress: Option<Sender<Progress>>,
    /// The tenant whose pool it runs in.
    pub tenant: String,
}

impl GuestCall {
    /// A call of the sample tool `tool` with an empty object and the default limits.
    #[must_use]
    pub fn new(tool: &str) -> Self {
        Self {
            tool: tool.to_owned(),
            local: None,
            function: None,
            input: "{}".to_owned(),
            limits: ExecutionLimits::default(),
            seed: 7,
            clock: ClockGrant::Frozen,
            mode: Mode::Commit,
            mounts: Vec::new(),
            outward: Outward::default(),
            cancel: Cancel::new(),
            progress: None,
            tenant: "tests".to_owned(),
        }
    }

    /// Of another tool of the component.
    #[must_use]
    pub fn local(mut self, name: &str) -> Self {
        self.local = Some(name.to_owned());
        self
    }

    /// Of a function that the component exports.
    #[must_use]
    pub fn function(mut self, label: &str) -> Self {
        self.function = Some(label.to_owned());
        self
    }

    /// With this number in its input.
    #[must_use]
    pub fn number(mut self, n: u64) -> Self {
        self.input = format!("{{\"n\":{n}}}");
        self
    }

    /// With this input.
    #[must_use]
    pub fn input(mut self, input: &str) -> Self {
        input.clone_into(&mut self.input);
        self
    }

    /// With other limits.
    #[must_use]
    pub fn limits(mut self, change: impl FnOnce(&mut ExecutionLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// With `directory` as the workspace `books`, everything in it granted.
    ///
    /// # Panics
    /// The directory cannot be opened.
    #[must_use]
    pub fn workspace(mut self, directory: &Path, access: Access) -> Self {
        let root = WorkspaceRoot::open("books".parse().expect("name"), directory).expect("workspace");
        let grant = FileGrant {
            workspace: root.name().clone(),
            access,
            read: PathGlobs::everything(),
            write: PathGlobs::everything(),
            sensitive: Vec::new(),
        };
        self.mounts.push(Mount { root: Arc::new(root).into(), grant });
        self
    }

    /// The component, ready for the call's tenant.
    ///
    /// # Panics
    /// It cannot be loaded.
    #[must_use]
    pub fn load(&self) -> Arc<Loaded> {
        sandbox().load(&self.tenant.parse().expect("tenant"), &compiled(&wasm(&self.tool))).expect("loaded")
    }

    /// The order of this call for a loaded component.
    ///
    /// # Panics
    /// A name is not one.
    #[must_use]
    pub fn order(self, loaded: Arc<Loaded>) -> Order {
        let name = |text: &str| text.to_owned();
        let principal = Principal {
            tenant: self.tenant.parse().expect("tenant"),
            user: name("ada").parse().expect("user"),
            agent: name("agent").parse().expect("agent"),
        };
        let call = "call_00000000-0000-0000-0000-000000000007".parse().expect("call");
        Order {
            loaded,
            entry: self.function.map_or_else(
                || Entry::Tool(self.local.unwrap_or(self.tool).parse().expect("tool")),
                |label| Entry::Function(label.parse().expect("a function")),
            ),
            input: self.input.into(),
            context: Context { principal, origin: Origin::record(), run: String::new(), call, mode: self.mode },
            limits: self.limits,
            deadline: Duration::from_millis(self.limits.deadline_ms),
            clock: self.clock,
            wall_clock_ns: WALL_CLOCK_NS,
            seed: [self.seed; 32],
            outward: self.outward,
            mounts: self.mounts,
            spool: Scratch::spool(),
            depth: Depth::Full,
            tape: None,
            cancel: self.cancel,
            progress: self.progress,
        }
    }

    /// Make the call.
    ///
    /// # Errors
    /// A fault of the host.
    pub async fn try_run(self) -> Result<Execution, HostFault> {
        let loaded = self.load();
        sandbox().execute(self.order(loaded)).await
    }

    /// Make the call, and replay it: whatever a test does to a tool, its recording has to be enough to do it again.
    ///
    /// # Panics
    /// A fault of the host, or a replay that is not what was recorded.
    pub async fn run(self) -> Execution {
        let loaded = self.load();
        let again = Self {
            tool: self.tool.clone(),
            local: self.local.clone(),
            function: self.function.clone(),
            input: self.input.clone(),
            mounts: self.mounts.clone(),
            outward: self.outward.clone(),
            cancel: Cancel::new(),
            progress: None,
            tenant: self.tenant.clone(),
            ..self
        };
        let execution = sandbox().execute(self.order(Arc::clone(&loaded))).await.expect("no fault of the host");
        if execution.recording.not_replayable().is_none() {
            let replayed = again.replay(&execution, loaded).await;
            let verdict = compare(&execution.recording, &replayed, None);
            assert!(verdict.identical, "{verdict:#?}\n{:#?}", execution.recording);
        }
        execution
    }

    /// Replay an execution of this call.
    ///
    /// # Panics
    /// It has no valid recording, or the host fails.
    pub async fn replay(self, execution: &Execution, loaded: Arc<Loaded>) -> Execution {
        let find = |digest: &toolkeep_core::digest::Digest| execution.kept.get(digest).map(|part| part.to_vec());
        let written = serde_json::to_string(&execution.recording).expect("JSON");
        let recording: Recording = serde_json::from_str(&written).expect("read back");
        let tape = Arc::new(Tape::of(&recording, Matching::Strict, find).expect("a tape"));
        let mut order = self.order(loaded);
        for mount in &mut order.mounts {
            mount.root = Root::Recorded(mount.grant.workspace.clone(), Arc::clone(&tape));
        }
        let stopped_at = (recording.end.how == How::Stopped).then_some(recording.end.fuel);
        order.tape = Some(Playing { tape, stopped_at, behind: false });
        sandbox().execute(order).await.expect("no fault of the host")
    }
}

/// The output of an execution that ended with one.
///
/// # Panics
/// It ended otherwise.
#[must_use]
pub fn output(execution: &Execution) -> &str {
    match &execution.ended {
        Ended::Output(text) => text,
        other => panic!("ended with {other:?}; log {:?}", execution.log),
    }
}

/// The fault of an execution that ended with one.
///
/// # Panics
/// It ended otherwise.
#[must_use]
pub fn fault(execution: &Execution) -> &Fault {
    match &execution.ended {
        Ended::Fault(fault) => fault,
        other => panic!("ended with {other:?}"),
    }
}
