//! Keys that few manifests have: what stands in for a tool, whether outputs may be kept, and which inputs are amounts.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{AMOUNTS_MAX, Amount, BadManifest, ManifestText};
use crate::capability::ClockGrant;
use crate::event::Depth;
use crate::id::{NAME_MAX_BYTES, ToolName};

/// `clock = "…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ClockText {
    /// Frozen and virtual.
    Frozen,
    /// The host's.
    Real,
}

/// `access = "…"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AccessText {
    /// See.
    Read,
    /// See and change.
    Write,
}

/// `[record]`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordText {
    /// `full`, `hashes` or `off`; what the daemon says where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<Depth>,
    /// The suite of golden cases that another version has to pass before it is installed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suite: Option<ToolName>,
}

/// What is recorded of the calls of a tool.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Record {
    /// How much; what the daemon says if the manifest does not.
    pub depth: Option<Depth>,
    /// The suite that another version has to pass.
    pub suite: Option<ToolName>,
}

impl ManifestText {
    pub(super) fn fallback(&self) -> Result<Option<ToolName>, BadManifest> {
        let own = |name: &&ToolName| {
            let rest = name.as_str().strip_prefix(self.name.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        match self.fallback.as_ref().filter(own) {
            Some(_) => Err(BadManifest::new("fallback", "is a tool of this manifest; name one of another")),
            None => Ok(self.fallback.clone()),
        }
    }

    pub(super) const fn clock(&self) -> ClockGrant {
        match self.clock {
            Some(ClockText::Real) => ClockGrant::Real,
            Some(ClockText::Frozen) | None => ClockGrant::Frozen,
        }
    }

    pub(super) fn record(&self) -> Record {
        Record { depth: self.record.depth, suite: self.record.suite.clone() }
    }

    pub(super) fn deterministic(&self, read_only: bool) -> Result<bool, BadManifest> {
        let changes = [
            (!read_only, "has tools above tier 0"),
            (self.clock == Some(ClockText::Real), "sees the real clock"),
            (!self.http.is_empty(), "sends requests"),
            (!self.messages.is_empty(), "sends messages"),
            (!self.keys.is_empty(), "reads keys"),
        ];
        match changes.into_iter().find(|(applies, _)| self.deterministic && *applies) {
            Some((_, what)) => Err(BadManifest::new("deterministic", format!("the manifest {what}; leave it out"))),
            None => Ok(self.deterministic),
        }
    }

    pub(super) fn amounts(&self) -> Result<Arc<[Amount]>, BadManifest> {
        if self.amounts.len() > AMOUNTS_MAX {
            return Err(BadManifest::new("amounts", format!("{} amounts; at most {AMOUNTS_MAX}", self.amounts.len())));
        }
        let amount = |(name, place): (&String, &String)| {
            let wrong = |problem: &str| BadManifest::new(format!("amounts.{name}"), problem);
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if name.is_empty() || name.len() > NAME_MAX_BYTES || !name.bytes().all(plain) {
                return Err(wrong("the name has 1 to 64 characters of a-z, 0-9 and `_`"));
            }
            match place.strip_prefix("/input") {
                Some(pointer) if pointer.starts_with('/') => Ok(Amount { name: name.clone(), pointer: pointer.into() }),
                _ => Err(wrong("write a JSON Pointer into the input, for example `/input/total`")),
            }
        };
        self.amounts.iter().map(amount).collect()
    }
}
