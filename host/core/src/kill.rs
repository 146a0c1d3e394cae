//! The kill switch: what is stopped, at which of five levels, and in which of two modes.
//!
//! A pure set of switches and one question: what stops this? A switch of a tenant says nothing about another tenant; the
//! global one is about everybody. Of all switches that match, the strictest is the answer. What a switch has to be told and
//! is not known yet never matches by itself; [`Standing::of_unknown`] is the question for what can never be known, and a run
//! whose workflow nobody can say may be one of any ([`Workflow::Unknown`]).
//!
//! Not here: who may set a switch, how it survives a restart, and where it is asked.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::id::{AgentName, NotAnId, TenantName, ToolName, WorkflowName};

/// Bytes of the reason of a switch: a few sentences, shown with every refusal.
pub const KILL_REASON_MAX_BYTES: usize = 500;
/// Switches of workflows, agents and tools that one tenant has at one time: each call is held against all of them. Those that
/// stop a whole tenant, or everything, do not count: nobody can use up the room for them.
pub const SWITCHES_MAX: usize = 1_000;

/// What may still run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KillMode {
    /// Tools of tier 0 only.
    ReadOnly,
    /// Nothing.
    Stop,
}

impl KillMode {
    /// Both, the milder first.
    pub const ALL: [Self; 2] = [Self::ReadOnly, Self::Stop];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Stop => "stop",
        }
    }

    /// The mode that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.word() == word)
    }
}

/// How much a switch is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum KillLevel {
    /// Everything of every tenant.
    Global,
    /// Everything of one tenant.
    Tenant,
    /// Runs of one workflow.
    Workflow,
    /// One agent.
    Agent,
    /// One tool, or all tools of one manifest.
    Tool,
}

impl KillLevel {
    /// All of them, the widest first.
    pub const ALL: [Self; 5] = [Self::Global, Self::Tenant, Self::Workflow, Self::Agent, Self::Tool];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Global => "global",
            Self::Tenant => "tenant",
            Self::Workflow => "workflow",
            Self::Agent => "agent",
            Self::Tool => "tool",
        }
    }

    /// The level that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.word() == word)
    }
}

/// What a switch is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KillTarget {
    /// Everything.
    Global,
    /// A tenant.
    Tenant(TenantName),
    /// A workflow of a tenant.
    Workflow(TenantName, WorkflowName),
    /// An agent of a tenant.
    Agent(TenantName, AgentName),
    /// A tool as a tenant calls it. The name of a manifest is about all of its tools.
    Tool(TenantName, ToolName),
}

/// Why level and name give no target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotATarget {
    /// The level wants a name.
    #[error("the level `{}` wants the name of what is stopped", .0.word())]
    Nameless(KillLevel),
    /// The level has no name.
    #[error("the level `{}` has no name: it is about everything", .0.word())]
    Named(KillLevel),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] NotAnId),
}

impl KillTarget {
    /// The target of a level. `tenant` is whose workflow, agent or tool it is, and the tenant of that level itself.
    ///
    /// # Errors
    /// A name is missing, too much, or none.
    pub fn new(level: KillLevel, tenant: TenantName, name: Option<&str>) -> Result<Self, NotATarget> {
        let named = name.ok_or(NotATarget::Nameless(level));
        Ok(match level {
            KillLevel::Global | KillLevel::Tenant if name.is_some() => return Err(NotATarget::Named(level)),
            KillLevel::Global => Self::Global,
            KillLevel::Tenant => Self::Tenant(tenant),
            KillLevel::Workflow => Self::Workflow(tenant, named?.parse()?),
            KillLevel::Agent => Self::Agent(tenant, named?.parse()?),
            KillLevel::Tool => Self::Tool(tenant, named?.parse()?),
        })
    }

    /// Its level.
    #[must_use]
    pub const fn level(&self) -> KillLevel {
        match self {
            Self::Global => KillLevel::Global,
            Self::Tenant(_) => KillLevel::Tenant,
            Self::Workflow(..) => KillLevel::Workflow,
            Self::Agent(..) => KillLevel::Agent,
            Self::Tool(..) => KillLevel::Tool,
        }
    }

    /// The tenant that it is about; nothing for everybody.
    #[must_use]
    pub const fn tenant(&self) -> Option<&TenantName> {
        match self {
            Self::Global => None,
            Self::Tenant(tenant) | Self::Workflow(tenant, _) | Self::Agent(tenant, _) | Self::Tool(tenant, _) => {
                Some(tenant)
            }
        }
    }

    /// The name within the tenant.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Global | Self::Tenant(_) => None,
            Self::Workflow(_, name) => Some(name.as_str()),
            Self::Agent(_, name) => Some(name.as_str()),
            Self::Tool(_, name) => Some(name.as_str()),
        }
    }

    /// Whether it is about this.
    fn covers(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Global => true,
            Self::Tenant(tenant) => tenant == subject.tenant,
            Self::Workflow(tenant, name) => {
                tenant == subject.tenant
                    && match subject.workflow {
                        Workflow::None => false,
                        Workflow::Of(own) => own == name,
                        // It may be this one.
                        Workflow::Unknown => true,
                    }
            }
            Self::Agent(tenant, name) => tenant == subject.tenant && subject.agent == Some(name),
            Self::Tool(tenant, name) => {
                tenant == subject.tenant && subject.tool.is_some_and(|tool| is_or_belongs_to(tool, name))
            }
        }
    }
}

/// Whether a tool is the one of this name, or a tool of the manifest of this name.
fn is_or_belongs_to(tool: &ToolName, name: &ToolName) -> bool {
    let rest = tool.as_str().strip_prefix(name.as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

impl fmt::Display for KillTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Global => f.write_str("everything"),
            Self::Tenant(tenant) => write!(f, "tenant `{tenant}`"),
            Self::Workflow(_, name) => write!(f, "workflow `{name}`"),
            Self::Agent(_, name) => write!(f, "agent `{name}`"),
            Self::Tool(_, name) => write!(f, "tool `{name}`"),
        }
    }
}

/// The workflow that something is part of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Workflow {
    /// None, or it is not known yet and asked about again when it is.
    #[default]
    None,
    /// This one.
    Of(WorkflowName),
    /// It belongs to a run, and nobody can say now to which workflow.
    Unknown,
}

/// What wants to go on, as far as it is known.
#[derive(Debug, Clone, Copy)]
pub struct Subject<'a> {
    /// For whom.
    pub tenant: &'a TenantName,
    /// By which agent.
    pub agent: Option<&'a AgentName>,
    /// With which tool.
    pub tool: Option<&'a ToolName>,
    /// In a run of which workflow.
    pub workflow: &'a Workflow,
    /// Whether it only reads: a tool of tier 0 that has nothing to commit. Nothing while that is not known.
    pub reads: Option<bool>,
}

/// One switch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// What is stopped.
    pub target: KillTarget,
    /// What may still run.
    pub mode: KillMode,
    /// Why, for everybody who is refused.
    pub reason: Arc<str>,
    /// Who set it.
    pub by: Arc<str>,
    /// When, in milliseconds since the Unix epoch.
    pub set_ms: u64,
}

impl Switch {
    /// Whether it stops this.
    #[must_use]
    pub fn stops(&self, subject: &Subject<'_>) -> bool {
        self.target.covers(subject)
            && match self.mode {
                KillMode::Stop => true,
                KillMode::ReadOnly => subject.reads == Some(false),
            }
    }
}

/// The tenant has as many switches of workflows, agents and tools as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tenant has {SWITCHES_MAX} switches of workflows, agents and tools; clear some, or stop the tenant")]
pub struct TooMany;

/// The switch of a target is not the one that was looked at any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SetAgain(pub Switch);

/// All switches at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Standing {
    switches: BTreeMap<KillTarget, Switch>,
    /// The one that a file sets: only its removal clears it.
    file: Option<Switch>,
}

impl Standing {
    /// These switches.
    #[must_use]
    pub fn of(switches: impl IntoIterator<Item = Switch>) -> Self {
        let switches = switches.into_iter().map(|switch| (switch.target.clone(), switch)).collect();
        Self { switches, file: None }
    }

    /// Whether nothing is stopped.
    #[must_use]
    pub fn is_clear(&self) -> bool {
        self.switches.is_empty() && self.file.is_none()
    }

    /// All switches, the widest level first.
    pub fn switches(&self) -> impl Iterator<Item = &Switch> {
        self.file.iter().chain(self.switches.values())
    }

    /// Whether the switch is the one that a file sets.
    #[must_use]
    pub fn is_of_file(&self, switch: &Switch) -> bool {
        self.file.as_ref() == Some(switch)
    }

    /// The switch of a target, if it is set; not that of the file.
    #[must_use]
    pub fn get(&self, target: &KillTarget) -> Option<&Switch> {
        self.switches.get(target)
    }

    /// With one more switch. It takes the place of one of the same target.
    ///
    /// # Errors
    /// The tenant has too many. A switch of a whole tenant, or of everything, is always taken.
    pub fn with(&self, switch: Switch) -> Result<Self, TooMany> {
        let of_same = |target: &&KillTarget| target.name().is_some() && target.tenant() == switch.target.tenant();
        let counts = switch.target.name().is_some() && !self.switches.contains_key(&switch.target);
        if counts && self.switches.keys().filter(of_same).count() >= SWITCHES_MAX {
            return Err(TooMany);
        }
        let mut next = self.clone();
        next.switches.insert(switch.target.clone(), switch);
        Ok(next)
    }

    /// Without this switch.
    ///
    /// # Errors
    /// Its target has another one by now, which stays.
    pub fn without(&self, switch: &Switch) -> Result<Self, SetAgain> {
        if let Some(other) = self.switches.get(&switch.target).filter(|other| *other != switch) {
            return Err(SetAgain(other.clone()));
        }
        let mut next = self.clone();
        next.switches.remove(&switch.target);
        Ok(next)
    }

    /// With what the file says: a switch while it is there.
    #[must_use]
    pub fn with_file(&self, file: Option<Switch>) -> Self {
        Self { switches: self.switches.clone(), file }
    }

    /// What stops this: the strictest of the switches that do, of equally strict ones the widest.
    #[must_use]
    pub fn of_subject(&self, subject: &Subject<'_>) -> Option<&Switch> {
        self.strictest(|switch| switch.stops(subject))
    }

    /// What may stop something of a tenant of which nothing else can be known: any switch about that tenant.
    #[must_use]
    pub fn of_unknown(&self, tenant: &TenantName) -> Option<&Switch> {
        self.strictest(|switch| switch.target.tenant().is_none_or(|own| own == tenant))
    }

    fn strictest(&self, stops: impl Fn(&Switch) -> bool) -> Option<&Switch> {
        let wider = |one: &Switch| (one.mode, std::cmp::Reverse(one.target.level()));
        let mut found: Option<&Switch> = None;
        for switch in self.switches().filter(|switch| stops(switch)) {
            if found.is_none_or(|best| wider(switch) > wider(best)) {
                found = Some(switch);
            }
        }
        found
    }
}

#[cfg(test)]
mod tests;
