//! Manifests: what the operator grants to a tool. Two layers: the text that the operator wrote, and what it means.
//!
//! The text layer refuses unknown keys. The meaning layer is built only by [`ManifestText::check`], so a [`Manifest`] in
//! hand is one whose globs compile, whose limits are under the ceiling and whose grants do not contradict each other.
//! Nothing is granted by default.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::breaker::{BreakerRules, BreakerText};
use crate::budget::Price;
use crate::capability::{Access, ClockGrant, FileGrant, PathGlobs, SensitiveClass};
use crate::digest::Digest;
use crate::effect::Effect;
use crate::grant::{GRANTS_MAX, HttpGrant, HttpText, KeysGrant, KeysText, MessageGrant, MessageText};
use crate::id::{ToolName, WorkspaceName};
use crate::limit::{CONCURRENT_MAX, ExecutionLimits};
use crate::price::Usd;
use crate::rate::{self, QuotaRule, QuotaText, RateRule, RateText};
use crate::retry::{RetryRules, RetryText};
use crate::taint::Marks;
use crate::tier::Tier;

mod function;
mod rare;

pub use function::{FunctionText, Offer};
pub use rare::{AccessText, ClockText, Record, RecordText};

/// The only format that this version reads.
pub const FORMAT: u32 = 1;
/// Largest manifest, in bytes.
pub const MANIFEST_MAX_BYTES: usize = 256 * 1024;
/// Most workspaces in one manifest.
pub const WORKSPACES_MAX: usize = 16;

/// A manifest as it is written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestText {
    /// Always 1.
    pub format: u32,
    /// What agents call it. A component with several tools gives `name.tool` for each.
    pub name: ToolName,
    /// Path of the component, relative to the manifest.
    pub component: String,
    /// SHA-256 that the component must have; a changed file is quarantined.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
    /// Version shown to people.
    #[serde(default = "default_version")]
    pub version: String,
    /// Risk tier 0 to 3; left out means 3.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Tiers of single tools of the component, where they differ.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tiers: BTreeMap<ToolName, Tier>,
    /// Effect kinds that are held for an approval whatever their tier, for example `["file.delete"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hold: Vec<String>,
    /// `frozen` (default) or `real`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clock: Option<ClockText>,
    /// Functions that are tools, where the component was not built with the SDK.
    #[serde(default, rename = "function", skip_serializing_if = "Vec::is_empty")]
    pub functions: Vec<FunctionText>,
    /// Workspaces that it may see.
    #[serde(default, rename = "workspace", skip_serializing_if = "Vec::is_empty")]
    pub workspaces: Vec<WorkspaceText>,
    /// Origins that it may send requests to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub http: Vec<HttpText>,
    /// Channels that it may send messages through.
    #[serde(default, rename = "message", skip_serializing_if = "Vec::is_empty")]
    pub messages: Vec<MessageText>,
    /// Buckets of keys that it may use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<KeysText>,
    /// Amounts for policies: a name, and where in a call the number is, for example `"/input/total"`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub amounts: BTreeMap<String, String>,
    /// What calls cost; see budgets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price: Option<PriceText>,
    /// Limits that differ from the defaults.
    #[serde(default)]
    pub limits: LimitsText,
    /// When its tools rest because they fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerText>,
    /// How often its tools are executed again that fail for a moment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry: Option<RetryText>,
    /// The tool that is called instead of one of its own that rests or was given up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fallback: Option<ToolName>,
    /// Whether the same input over the same world always gives the same output, so that outputs may be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deterministic: bool,
    /// Whether its component is compiled and loaded before anybody calls it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub warm: bool,
    /// How long its plans stay committable, in seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan_ttl_s: Option<u64>,
    /// Whatever it returns may have been written by strangers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// Whatever it returns must not leave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
    /// What is looked for in what it gets and returns.
    #[serde(default)]
    pub screen: ScreenText,
    /// What is recorded of its calls, and what another version has to pass.
    #[serde(default)]
    pub record: RecordText,
}

fn default_version() -> String {
    "0.0.0".to_owned()
}

/// `[[workspace]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WorkspaceText {
    /// A workspace of the daemon's configuration.
    pub name: WorkspaceName,
    /// `read` or `write`.
    pub access: AccessText,
    /// Patterns that may be read; default `["**"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read: Option<Vec<String>>,
    /// Patterns that may be changed; default `["**"]` where access is `write`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub write: Option<Vec<String>>,
    /// Sensitive-path classes: `agent-config`, `automation`, `credentials`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sensitive: Vec<String>,
    /// What is read here may have been written by strangers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// What is read here must not leave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// `[screen]`: what is looked for besides the output, and how the output leaves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScreenText {
    /// Screen the input as outputs are: for tools whose input is text that others wrote.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub input: bool,
    /// Put the output between delimiters that carry a nonce of the call.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub delimit: bool,
    /// Bytes of output that stay in the reply; more is kept as a content, and the reply says where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spill_bytes: Option<u64>,
}

/// Least that may stay in a reply, in bytes: a marker is about as long.
pub const SPILL_MIN_BYTES: u64 = 256;

/// `[price]`: what the host counts against budgets, besides `price_usd` of requests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PriceText {
    /// Of one call.
    #[serde(default)]
    pub call_usd: Usd,
    /// Of a billion units of fuel.
    #[serde(default)]
    pub fuel_usd: Usd,
    /// Of one message.
    #[serde(default)]
    pub message_usd: Usd,
}

/// `[limits]`: every value is optional and at most the daemon's ceiling.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "each field overrides the field of the same name of ExecutionLimits, documented there")]
pub struct LimitsText {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fuel: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline_ms: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_elements: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handles: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub random_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_bytes: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage_effects: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recording_bytes: Option<u64>,
    /// Seconds of CPU that compiling the component may take; left out, it scales with the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_cpu_s: Option<u64>,
    /// Bytes of memory that compiling the component may take; left out, it scales with the size.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compile_memory_bytes: Option<u64>,
    /// Calls of its tools at one time, for each tenant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrent: Option<u64>,
    /// How often its tools may be called.
    #[serde(default, rename = "rate", skip_serializing_if = "Vec::is_empty")]
    pub rates: Vec<RateText>,
    /// How many effects of its tools may be committed.
    #[serde(default, rename = "quota", skip_serializing_if = "Vec::is_empty")]
    pub quotas: Vec<QuotaText>,
}

/// A checked manifest.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// What agents call it.
    pub name: ToolName,
    /// Path of the component, relative to the manifest.
    pub component: String,
    /// SHA-256 that the component must have.
    pub sha256: Option<Digest>,
    /// Version shown to people.
    pub version: String,
    /// The tier of tools that `tiers` does not name.
    pub tier: Tier,
    /// Tiers of single tools.
    pub tiers: BTreeMap<ToolName, Tier>,
    /// Effect kinds that are held whatever their tier.
    pub hold: Vec<String>,
    /// Which clock it sees.
    pub clock: ClockGrant,
    /// Functions that are tools, where the component was not built with the SDK.
    pub functions: Arc<[Offer]>,
    /// What it may do in which workspace.
    pub files: Vec<FileGrant>,
    /// Origins that it may send requests to.
    pub http: Arc<[HttpGrant]>,
    /// Channels that it may send messages through.
    pub messages: Arc<[MessageGrant]>,
    /// Buckets of keys that it may use.
    pub keys: Arc<[KeysGrant]>,
    /// Amounts for policies, in order of their names.
    pub amounts: Arc<[Amount]>,
    /// What calls cost.
    pub price: Price,
    /// What an execution may use.
    pub limits: ExecutionLimits,
    /// Calls of its tools at one time, for each tenant.
    pub concurrent: Option<usize>,
    /// How often its tools may be called.
    pub rates: Arc<[RateRule]>,
    /// How many effects of its tools may be committed.
    pub quotas: Arc<[QuotaRule]>,
    /// When its tools rest because they fail, where it says so itself.
    pub breaker: Option<BreakerRules>,
    /// How often its tools are executed again that fail for a moment.
    pub retry: RetryRules,
    /// What is recorded of its calls, and what another version has to pass.
    pub record: Record,
    /// The tool that is called instead of one of its own that rests or was given up.
    pub fallback: Option<ToolName>,
    /// Whether outputs may be kept.
    pub deterministic: bool,
    /// Whether its component is compiled and loaded before anybody calls it.
    pub warm: bool,
    /// Operator's limits for compiling: CPU seconds and bytes.
    pub compile: (Option<u64>, Option<u64>),
    /// How long its plans stay committable, in milliseconds.
    pub plan_ttl_ms: u64,
    /// What it reads that taints a run.
    pub marks: Marks,
    /// What is looked for in what it gets and returns.
    pub screen: ScreenText,
    /// SHA-256 of the text that it was read from.
    pub digest: Digest,
}

/// A number of the input that policies may look at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Amount {
    /// What policies call it.
    pub name: String,
    /// Where it is in the input: a JSON Pointer (RFC 6901).
    pub pointer: String,
}

/// Most amounts of one manifest: policies compare a few.
pub const AMOUNTS_MAX: usize = 16;

/// How long a plan stays committable if the manifest does not say: 15 minutes.
pub const PLAN_TTL_DEFAULT_S: u64 = 900;
/// The longest that a manifest may ask for: one week.
pub const PLAN_TTL_MAX_S: u64 = 604_800;

/// Why a manifest is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{key}`: {problem}")]
pub struct BadManifest {
    /// The key, for example `workspace.books.write`.
    pub key: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl BadManifest {
    pub(crate) fn new(key: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into() }
    }
}

impl ManifestText {
    /// What the text means. `digest` is the SHA-256 of the text.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self, digest: Digest) -> Result<Manifest, BadManifest> {
        if self.format != FORMAT {
            return Err(BadManifest::new("format", format!("{} is not known; write `format = 1`", self.format)));
        }
        if self.component.is_empty() || self.component.contains('\0') {
            return Err(BadManifest::new("component", "write the path of the component, relative to the manifest"));
        }
        if self.workspaces.len() > WORKSPACES_MAX {
            return Err(BadManifest::new("workspace", format!("{} workspaces; at most 16", self.workspaces.len())));
        }
        let mut files = Vec::with_capacity(self.workspaces.len());
        for workspace in &self.workspaces {
            if files.iter().any(|grant: &FileGrant| grant.workspace == workspace.name) {
                return Err(BadManifest::new(format!("workspace.{}", workspace.name), "is granted twice"));
            }
            files.push(workspace.check()?);
        }
        let tier = self.tier.unwrap_or(Tier::Irreversible);
        let http = several("http", &self.http, HttpText::check, |grant: &HttpGrant| grant.name.as_str())?;
        let messages = several("message", &self.messages, MessageText::check, |grant| grant.channel.as_str())?;
        let keys = several("keys", &self.keys, KeysText::check, |grant: &KeysGrant| grant.bucket.as_str())?;
        let writes = files.iter().any(|grant| grant.access == Access::Write)
            || http.iter().any(HttpGrant::writes)
            || !messages.is_empty()
            || keys.iter().any(|grant| grant.writes);
        let read_only = tier == Tier::ReadOnly && self.tiers.values().all(|t| *t == Tier::ReadOnly);
        if read_only && writes {
            return Err(BadManifest::new(
                "tier",
                "tier 0 is read-only, but the manifest grants writing (`access = \"write\"`, a method that writes, or \
                 messages); grant `read` or raise the tier",
            ));
        }
        if let Some(unknown) = self.hold.iter().find(|kind| !Effect::KINDS.contains(&kind.as_str())) {
            return Err(BadManifest::new(
                "hold",
                format!("`{unknown}` is not an effect kind; use {}", Effect::KINDS.join(", ")),
            ));
        }
        let ttl = self.plan_ttl_s.unwrap_or(PLAN_TTL_DEFAULT_S);
        if ttl == 0 || ttl > PLAN_TTL_MAX_S {
            return Err(BadManifest::new("plan_ttl_s", format!("{ttl} is not between 1 and {PLAN_TTL_MAX_S}")));
        }
        if let Some(bytes) = self.screen.spill_bytes.filter(|bytes| *bytes < SPILL_MIN_BYTES) {
            return Err(BadManifest::new("screen.spill_bytes", format!("{bytes} is less than {SPILL_MIN_BYTES}")));
        }
        Ok(Manifest {
            name: self.name.clone(),
            component: self.component.clone(),
            sha256: self.sha256,
            version: self.version.clone(),
            tier,
            tiers: self.tiers.clone(),
            hold: self.hold.clone(),
            clock: self.clock(),
            functions: self.functions()?,
            files,
            price: self.price(&http),
            http: http.into(),
            messages: messages.into(),
            keys: keys.into(),
            amounts: self.amounts()?,
            limits: self.limits.check()?,
            concurrent: self.limits.concurrent()?,
            rates: rate::rates(&self.limits.rates, true)?.into(),
            quotas: rate::quotas(&self.limits.quotas, true)?.into(),
            breaker: self.breaker.map(|text| text.check(BreakerRules::default())).transpose()?,
            retry: self.retry.unwrap_or_default().check()?,
            fallback: self.fallback()?,
            record: self.record(),
            deterministic: self.deterministic(read_only)?,
            warm: self.warm,
            compile: (self.limits.compile_cpu_s, self.limits.compile_memory_bytes),
            plan_ttl_ms: ttl * 1000,
            marks: Marks::of(self),
            screen: self.screen,
            digest,
        })
    }
}

impl ManifestText {
    fn price(&self, http: &[HttpGrant]) -> Price {
        let price = self.price.unwrap_or_default();
        Price {
            call: price.call_usd.micro(),
            fuel: price.fuel_usd.micro(),
            message: price.message_usd.micro(),
            request: http.iter().map(|grant| grant.price.micro()).max().unwrap_or(0),
        }
    }
}

/// Check the entries of one list; no two may have the same name.
fn several<T, G>(
    what: &str,
    texts: &[T],
    check: impl Fn(&T) -> Result<G, BadManifest>,
    name: impl Fn(&G) -> &str,
) -> Result<Vec<G>, BadManifest> {
    if texts.len() > GRANTS_MAX {
        return Err(BadManifest::new(what, format!("{} entries; at most {GRANTS_MAX}", texts.len())));
    }
    let grants = texts.iter().map(check).collect::<Result<Vec<G>, _>>()?;
    let mut names: Vec<&str> = grants.iter().map(&name).collect();
    names.sort_unstable();
    if let Some(twice) = names.windows(2).find_map(|pair| pair.first().filter(|one| pair.last() == Some(one))) {
        return Err(BadManifest::new(format!("{what}.{twice}"), "is granted twice"));
    }
    Ok(grants)
}

impl WorkspaceText {
    fn check(&self) -> Result<FileGrant, BadManifest> {
        let key = |part: &str| format!("workspace.{}.{part}", self.name);
        if self.access == AccessText::Read && self.write.is_some() {
            return Err(BadManifest::new(
                key("write"),
                "is set, but `access = \"read\"`; set `access = \"write\"` or remove it",
            ));
        }
        let globs = |part: &str, list: &Option<Vec<String>>| match list {
            None => Ok(PathGlobs::everything()),
            Some(patterns) => PathGlobs::new(patterns).map_err(|e| BadManifest::new(key(part), e.to_string())),
        };
        let sensitive = self
            .sensitive
            .iter()
            .map(|word| {
                SensitiveClass::ALL.into_iter().find(|class| class.name() == word).ok_or_else(|| {
                    BadManifest::new(
                        key("sensitive"),
                        format!("`{word}` is not a class; use `agent-config`, `automation` or `credentials`"),
                    )
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        Ok(FileGrant {
            workspace: self.name.clone(),
            access: match self.access {
                AccessText::Read => Access::Read,
                AccessText::Write => Access::Write,
            },
            read: globs("read", &self.read)?,
            write: globs("write", &self.write)?,
            sensitive,
        })
    }
}

impl LimitsText {
    fn concurrent(&self) -> Result<Option<usize>, BadManifest> {
        match self.concurrent {
            None => Ok(None),
            Some(most) if (1..=CONCURRENT_MAX).contains(&most) => Ok(usize::try_from(most).ok()),
            Some(most) => {
                let problem = format!("{most} is not between 1 and {CONCURRENT_MAX}");
                Err(BadManifest::new("limits.concurrent", problem))
            }
        }
    }

    fn check(&self) -> Result<ExecutionLimits, BadManifest> {
        let defaults = ExecutionLimits::default();
        let most = ExecutionLimits::CEILING;
        let pick = |key: &str, wanted: Option<u64>, default: u64, ceiling: u64| match wanted {
            None => Ok(default),
            Some(0) if key != "recording_bytes" => {
                Err(BadManifest::new(format!("limits.{key}"), "is 0; write at least 1"))
            }
            Some(value) if value > ceiling => {
                Err(BadManifest::new(format!("limits.{key}"), format!("{value} is over the ceiling of {ceiling}")))
            }
            Some(value) => Ok(value),
        };
        let handles = pick("handles", self.handles.map(u64::from), defaults.handles.into(), most.handles.into())?;
        Ok(ExecutionLimits {
            fuel: pick("fuel", self.fuel, defaults.fuel, most.fuel)?,
            deadline_ms: pick("deadline_ms", self.deadline_ms, defaults.deadline_ms, most.deadline_ms)?,
            memory_bytes: pick("memory_bytes", self.memory_bytes, defaults.memory_bytes, most.memory_bytes)?,
            table_elements: pick("table_elements", self.table_elements, defaults.table_elements, most.table_elements)?,
            handles: u32::try_from(handles).unwrap_or(defaults.handles),
            output_bytes: pick("output_bytes", self.output_bytes, defaults.output_bytes, most.output_bytes)?,
            log_bytes: pick("log_bytes", self.log_bytes, defaults.log_bytes, most.log_bytes)?,
            random_bytes: pick("random_bytes", self.random_bytes, defaults.random_bytes, most.random_bytes)?,
            stage_bytes: pick("stage_bytes", self.stage_bytes, defaults.stage_bytes, most.stage_bytes)?,
            stage_effects: pick("stage_effects", self.stage_effects, defaults.stage_effects, most.stage_effects)?,
            recording_bytes: pick(
                "recording_bytes",
                self.recording_bytes,
                defaults.recording_bytes,
                most.recording_bytes,
            )?,
        })
    }
}

#[cfg(test)]
mod tests;
