//! Standing approvals: consent that people give in advance to plans that are small and ordinary enough.
//!
//! A standing approval is a typed predicate over the effects of a plan, never the name of a tool alone: every effect has to be
//! of a kind, at a place and within a size that it names, and what it does not name it does not cover. Sensitive paths,
//! irreversible tools and tainted runs are covered only where it says so, and the first two only with the consent of two
//! people. Pure: how often it may be used and until when is the ledger's to count.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::capability::PathGlobs;
use crate::effect::Effect;
use crate::id::{AgentName, BucketName, ChannelName, ToolName, UserName, WorkspaceName};
use crate::limit::EFFECTS_MAX;
use crate::net::origin::Origin;
use crate::policy::is_sensitive;
use crate::principal::Principal;
use crate::taint::Taint;
use crate::tier::Tier;

/// Most entries of one list: a person reads them before agreeing.
pub const ENTRIES_MAX: usize = 32;
/// Most plans that one standing approval lets through.
pub const USES_MAX: u32 = 10_000;
/// The longest that one stands, in milliseconds: 90 days.
pub const TTL_MAX_MS: u64 = 90 * 24 * 3_600_000;

/// What a standing approval covers, as it is written and kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StandingText {
    /// The only tool.
    pub tool: ToolName,
    /// The only agent; every agent of the tenant if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentName>,
    /// The only user; every user of the tenant if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<UserName>,
    /// Kinds of effects, at least one.
    pub kinds: BTreeSet<String>,
    /// Where files may change: `workspace:pattern`, for example `books:reports/**`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Where requests may go: scheme, host and port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub origins: Vec<String>,
    /// Methods of requests.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub methods: BTreeSet<String>,
    /// Channels of messages.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub channels: BTreeSet<ChannelName>,
    /// Buckets of keys.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub buckets: BTreeSet<BucketName>,
    /// Effects of one plan.
    pub max_effects: u64,
    /// Bytes of one plan: what is written, sent and destroyed.
    pub max_bytes: u64,
    /// The largest amounts, by their names in the manifest; decimals of at most four digits after the point.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub max_amounts: BTreeMap<String, String>,
    /// Sensitive paths too.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sensitive: bool,
    /// Although the tool is tier 3.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub irreversible: bool,
    /// Although the run has read untrusted content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub tainted: bool,
}

/// Why a text is not a standing approval.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{field}` {problem}")]
pub struct BadStanding {
    /// The member.
    pub field: &'static str,
    /// What is wrong and what would be right.
    pub problem: String,
}

/// A checked predicate.
#[derive(Debug, Clone)]
pub struct Standing {
    text: StandingText,
    places: BTreeMap<WorkspaceName, PathGlobs>,
    origins: BTreeSet<Origin>,
    amounts: BTreeMap<String, i128>,
}

/// A plan that wants to be covered.
#[derive(Debug, Clone, Copy)]
pub struct Offer<'a> {
    /// Who acts.
    pub principal: &'a Principal,
    /// With which tool.
    pub tool: &'a ToolName,
    /// The tier that is declared for it.
    pub declared: Tier,
    /// What it wants to change.
    pub effects: &'a [Effect],
    /// Amounts of its input by name, decimals as texts.
    pub amounts: &'a BTreeMap<String, String>,
    /// What the run has seen.
    pub taint: Taint,
}

impl StandingText {
    /// What the text means.
    ///
    /// # Errors
    /// The first member that is wrong.
    pub fn check(self) -> Result<Standing, BadStanding> {
        let bad = |field, problem: String| Err(BadStanding { field, problem });
        if self.kinds.is_empty() {
            return bad("kinds", "is empty: name the kinds of effects that are covered".to_owned());
        }
        if let Some(kind) = self.kinds.iter().find(|kind| !Effect::KINDS.contains(&kind.as_str())) {
            return bad("kinds", format!("has `{kind}`, which is no kind; use {}", Effect::KINDS.join(", ")));
        }
        for (field, about, entries) in [
            ("paths", &["file.", "dir."][..], self.paths.len()),
            ("origins", &["http."], self.origins.len()),
            ("methods", &["http."], self.methods.len()),
            ("channels", &["message."], self.channels.len()),
            ("buckets", &["kv."], self.buckets.len()),
        ] {
            let wanted = self.kinds.iter().any(|kind| about.iter().any(|about| kind.starts_with(about)));
            match entries {
                0 if wanted => return bad(field, "is empty, but `kinds` has kinds that need it".to_owned()),
                1.. if !wanted => return bad(field, "says nothing without a kind that it is about".to_owned()),
                many if many > ENTRIES_MAX => return bad(field, format!("has {many} entries; at most {ENTRIES_MAX}")),
                _ => {}
            }
        }
        if self.max_amounts.len() > ENTRIES_MAX {
            return bad("max_amounts", format!("has more than {ENTRIES_MAX} entries"));
        }
        if !(1..=EFFECTS_MAX as u64).contains(&self.max_effects) {
            return bad("max_effects", format!("is {}; write 1 to {EFFECTS_MAX}", self.max_effects));
        }
        let places = places(&self.paths)?;
        let origins = self.origins.iter().map(|text| {
            let refused = |_| BadStanding { field: "origins", problem: format!("has `{text}`, which is no origin") };
            text.parse::<Origin>().map_err(refused)
        });
        let origins = origins.collect::<Result<_, _>>()?;
        let amounts = self.max_amounts.iter().map(|(name, text)| match ten_thousandths(text) {
            Some(most) if most >= 0 => Ok((name.clone(), most)),
            _ => Err(BadStanding { field: "max_amounts", problem: format!("has `{text}` for `{name}`: no amount") }),
        });
        let amounts = amounts.collect::<Result<_, _>>()?;
        Ok(Standing { text: self, places, origins, amounts })
    }
}

fn places(paths: &[String]) -> Result<BTreeMap<WorkspaceName, PathGlobs>, BadStanding> {
    let bad = |text: &str, problem: String| BadStanding { field: "paths", problem: format!("has `{text}`: {problem}") };
    let mut globs: BTreeMap<WorkspaceName, Vec<String>> = BTreeMap::new();
    for text in paths {
        let (workspace, glob) =
            text.split_once(':').ok_or_else(|| bad(text, "write `workspace:pattern`".to_owned()))?;
        let workspace = workspace.parse().map_err(|error| bad(text, format!("{error}")))?;
        globs.entry(workspace).or_default().push(glob.to_owned());
    }
    let compiled = globs.into_iter().map(|(workspace, patterns)| {
        let globs = PathGlobs::new(&patterns).map_err(|error| bad(workspace.as_str(), error.to_string()))?;
        Ok((workspace, globs))
    });
    compiled.collect()
}

/// A decimal number in units of a ten-thousandth; nothing if it is none, or has more than four digits after the point.
#[must_use]
pub fn ten_thousandths(text: &str) -> Option<i128> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
    let plain = |text: &str, most: usize| {
        !text.is_empty() && text.len() <= most && text.bytes().all(|byte| byte.is_ascii_digit())
    };
    if !plain(whole, 15) || !plain(fraction, 4) {
        return None;
    }
    let fraction: i128 = format!("{fraction:0<4}").parse().ok()?;
    Some(sign * (whole.parse::<i128>().ok()? * 10_000 + fraction))
}

impl Standing {
    /// As it was written.
    #[must_use]
    pub const fn text(&self) -> &StandingText {
        &self.text
    }

    /// How many distinct people have to make it.
    #[must_use]
    pub const fn people(&self) -> u8 {
        if self.text.sensitive || self.text.irreversible { 2 } else { 1 }
    }

    /// Whether it covers a plan.
    ///
    /// # Errors
    /// The first thing that it does not cover.
    pub fn covers(&self, offer: &Offer<'_>) -> Result<(), String> {
        let text = &self.text;
        let own = |name: &str, wanted: Option<&str>, is: &str| match wanted {
            Some(wanted) if wanted != is => Err(format!("it is for the {name} `{wanted}`")),
            _ => Ok(()),
        };
        own("tool", Some(text.tool.as_str()), offer.tool.as_str())?;
        own("agent", text.agent.as_ref().map(AgentName::as_str), offer.principal.agent.as_str())?;
        own("user", text.user.as_ref().map(UserName::as_str), offer.principal.user.as_str())?;
        if offer.declared == Tier::Irreversible && !text.irreversible {
            return Err("it does not cover tier 3".to_owned());
        }
        if offer.taint.untrusted && !text.tainted {
            return Err("it does not cover runs that have read untrusted content".to_owned());
        }
        let (effects, most) = (offer.effects.len() as u64, text.max_effects);
        if effects > most {
            return Err(format!("the plan has {effects} effects; it covers {most}"));
        }
        let bytes = offer.effects.iter().fold(0_u64, |sum, effect| sum.saturating_add(weight(effect)));
        if bytes > text.max_bytes {
            return Err(format!("the plan has {bytes} bytes; it covers {}", text.max_bytes));
        }
        offer.effects.iter().try_for_each(|effect| self.covers_effect(effect))?;
        self.amounts.iter().try_for_each(|(name, most)| {
            let amount = offer.amounts.get(name).and_then(|text| ten_thousandths(text));
            match amount {
                Some(amount) if (0..=*most).contains(&amount) => Ok(()),
                Some(_) => Err(format!("the amount `{name}` is not within what it covers")),
                None => Err(format!("the call has no amount `{name}`")),
            }
        })
    }

    fn covers_effect(&self, effect: &Effect) -> Result<(), String> {
        let text = &self.text;
        if !text.kinds.contains(effect.kind()) {
            return Err(format!("it does not cover `{}`", effect.kind()));
        }
        if is_sensitive(effect) && !text.sensitive {
            return Err("it does not cover sensitive paths".to_owned());
        }
        for place in effect.places() {
            if !self.places.get(place.workspace).is_some_and(|globs| globs.matches(place.path)) {
                return Err(format!("it does not cover `{}` of `{}`", place.path, place.workspace));
            }
        }
        let named = match effect {
            Effect::HttpRequest(request) => {
                let origin = Origin::split_url(&request.url);
                origin.is_ok_and(|(origin, _)| self.origins.contains(&origin)) && text.methods.contains(&request.method)
            }
            Effect::MessageSend(message) => text.channels.contains(&message.channel),
            Effect::KvSet { bucket, .. } | Effect::KvDelete { bucket, .. } | Effect::KvAdd { bucket, .. } => {
                text.buckets.contains(bucket)
            }
            Effect::FileWrite { .. }
            | Effect::FileDelete { .. }
            | Effect::FileRename { .. }
            | Effect::FileMetadata { .. }
            | Effect::DirCreate { .. }
            | Effect::DirDelete { .. } => true,
        };
        if named { Ok(()) } else { Err(format!("it does not cover where `{}` goes", effect.kind())) }
    }
}

/// Bytes that an effect writes or sends, and bytes that it destroys.
fn weight(effect: &Effect) -> u64 {
    let (before, after) = effect.contents();
    let size = |state: Option<crate::effect::BodyState>| state.map_or(0, |state| state.size);
    size(after).saturating_add(size(before))
}

#[cfg(test)]
mod tests;
