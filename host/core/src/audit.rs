//! The audit chain: each entry carries the digest of the one before it.
//!
//! An entry's digest covers its sequence number, the previous digest and its canonical body, so that a change, deletion,
//! swap or duplicate anywhere breaks every later link. The digests are the leaves of a Merkle tree ([`crate::merkle`]).
//! That the end was cut off shows only against a checkpoint of it ([`crate::checkpoint`]) that is kept elsewhere.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::Digest;

const DOMAIN: &str = "toolkeep.audit.v1";

/// What happened, as one word. The list only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditKind {
    /// A call ended without effects.
    Call,
    /// A plan is about to be applied.
    Intent,
    /// A plan was applied, rolled back or halted.
    Outcome,
    /// A plan waits for a human.
    Held,
    /// A human or the clock resolved an approval.
    Approval,
    /// A plan was discarded or expired.
    Discarded,
    /// A request of a plan was sent, refused or undone, or nobody knows.
    Request,
    /// An operator said what became of a request of which nobody knew.
    Resolved,
    /// Something tried to exceed its grant or tier.
    Breach,
    /// A delivery was made or given up, or a person decided about one that was given up.
    Delivery,
    /// A tool was installed, changed or refused.
    Tool,
    /// The daemon started, recovered or stopped.
    Daemon,
    /// Another policy set is in force, or one was refused.
    Policy,
    /// A credential was made, taken back, or refused.
    Identity,
    /// A kill switch was set or cleared.
    Kill,
    /// A circuit opened, or an operator opened or closed one.
    Breaker,
    /// An operator set how far an agent may go.
    Autonomy,
    /// Consent in advance was made, agreed to or ended.
    Standing,
    /// Something was found in what a tool returned.
    Finding,
    /// A run, or a call alone, went too far: out of scope or contract, over budget, turning in circles, failing again and
    /// again, or testing boundaries; or a run was released.
    Escalation,
    /// Spending was far above what is usual, was paused or resumed, or a budget was raised.
    Budget,
    /// A run was opened or closed.
    Run,
    /// What the daemon is told to do is not what it was told before.
    Configuration,
    /// A person looked at contents that are kept from eyes.
    BreakGlass,
    /// Contents were dropped because their time was over, or because a tenant is to be forgotten.
    Retention,
    /// An operator said that an alert was seen.
    Alert,
    /// An operator read a payload, held one for the law, or had somebody forgotten.
    Privacy,
    /// A golden case was made or taken away, or cases were run.
    Evaluation,
}

impl AuditKind {
    /// All of them, in the order in which they came to be.
    pub const ALL: [Self; 28] = [
        Self::Call,
        Self::Intent,
        Self::Outcome,
        Self::Held,
        Self::Approval,
        Self::Discarded,
        Self::Request,
        Self::Resolved,
        Self::Breach,
        Self::Delivery,
        Self::Tool,
        Self::Daemon,
        Self::Policy,
        Self::Identity,
        Self::Kill,
        Self::Breaker,
        Self::Autonomy,
        Self::Standing,
        Self::Finding,
        Self::Escalation,
        Self::Budget,
        Self::Run,
        Self::Configuration,
        Self::BreakGlass,
        Self::Retention,
        Self::Alert,
        Self::Privacy,
        Self::Evaluation,
    ];

    /// The word for it, in rows and exports.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Call => "call",
            Self::Intent => "intent",
            Self::Outcome => "outcome",
            Self::Held => "held",
            Self::Approval => "approval",
            Self::Discarded => "discarded",
            Self::Request => "request",
            Self::Resolved => "resolved",
            Self::Breach => "breach",
            Self::Delivery => "delivery",
            Self::Tool => "tool",
            Self::Daemon => "daemon",
            Self::Policy => "policy",
            Self::Identity => "identity",
            Self::Kill => "kill",
            Self::Breaker => "breaker",
            Self::Autonomy => "autonomy",
            Self::Standing => "standing",
            Self::Finding => "finding",
            Self::Escalation => "escalation",
            Self::Budget => "budget",
            Self::Run => "run",
            Self::Configuration => "configuration",
            Self::BreakGlass => "break_glass",
            Self::Retention => "retention",
            Self::Alert => "alert",
            Self::Privacy => "privacy",
            Self::Evaluation => "evaluation",
        }
    }

    /// The kind that a word names.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

/// One entry of the chain.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuditEntry {
    /// Position, from 1, without gaps.
    pub seq: u64,
    /// What happened.
    pub kind: AuditKind,
    /// When: milliseconds since the Unix epoch. Order is by `seq`, never by time.
    pub at_ms: u64,
    /// The facts, as RFC 8785 canonical JSON text.
    pub body: String,
    /// Digest of the entry before; of the empty text for the first.
    pub previous: Digest,
    /// Digest of this entry.
    pub digest: Digest,
}

impl AuditEntry {
    /// The tenant whose entry it is; nothing for what is about the daemon.
    #[must_use]
    pub fn tenant(&self) -> Option<String> {
        let facts: Value = serde_json::from_str(&self.body).ok()?;
        let tenant = facts.get("tenant").or_else(|| facts.pointer("/principal/tenant"))?;
        tenant.as_str().map(str::to_owned)
    }
}

/// Why a chain is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainBroken {
    /// A sequence number is missing or repeated.
    #[error("audit entry {expected} is missing or out of place (found {found})")]
    Sequence {
        /// The number that should have come.
        expected: u64,
        /// The number that came.
        found: u64,
    },
    /// An entry does not follow the one before it.
    #[error("audit entry {0} does not continue the chain")]
    Link(u64),
    /// An entry's content was changed.
    #[error("audit entry {0} was changed")]
    Content(u64),
    /// What is stored is no entry.
    #[error("audit entry {0} cannot be read")]
    Unreadable(u64),
    /// There are rows that belong to no place of the chain.
    #[error("there are audit entries without a place in the chain")]
    Stray,
    /// A stored hash of the Merkle tree is missing, or is not that of the entries below it.
    #[error("the stored hash over the audit entries {first} to {last} is missing or was changed")]
    Node {
        /// The first entry that it covers.
        first: u64,
        /// The last.
        last: u64,
    },
    /// There are stored hashes that belong to no place of the Merkle tree.
    #[error("there are stored hashes without a place in the tree over the audit entries")]
    StrayNodes,
    /// A checkpoint says something else about the first entries.
    #[error("the first {0} audit entries are not those that a checkpoint was made of")]
    Root(u64),
    /// There were more entries.
    #[error("a checkpoint was made of {size} audit entries, and there are {found}: the end was cut off")]
    Short {
        /// Entries of the checkpoint.
        size: u64,
        /// Entries that are there.
        found: u64,
    },
    /// A stored checkpoint is not one of this log.
    #[error("the checkpoint at audit entry {size} cannot be believed: {why}")]
    Checkpoint {
        /// Which one.
        size: u64,
        /// What is wrong with it.
        why: String,
    },
}

/// The digest before the first entry.
#[must_use]
pub fn genesis() -> Digest {
    Digest::of(b"")
}

/// The end of a chain: what the next entry continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChainHead {
    /// Sequence number of the last entry; 0 for an empty chain.
    pub seq: u64,
    /// Its digest.
    pub digest: Digest,
}

impl Default for ChainHead {
    fn default() -> Self {
        Self { seq: 0, digest: genesis() }
    }
}

fn entry_digest(seq: u64, kind: AuditKind, at_ms: u64, previous: &Digest, body: &str) -> Digest {
    let kind = serde_json::to_string(&kind).unwrap_or_default();
    Digest::of_parts(
        DOMAIN,
        &[&seq.to_be_bytes(), kind.as_bytes(), &at_ms.to_be_bytes(), previous.as_bytes(), body.as_bytes()],
    )
}

impl ChainHead {
    /// Append an entry and move the head.
    pub fn append(&mut self, kind: AuditKind, at_ms: u64, body: String) -> AuditEntry {
        let seq = self.seq + 1;
        let digest = entry_digest(seq, kind, at_ms, &self.digest, &body);
        let entry = AuditEntry { seq, kind, at_ms, body, previous: self.digest, digest };
        *self = Self { seq, digest };
        entry
    }

    /// Check that an entry continues the chain and move the head over it.
    ///
    /// # Errors
    /// The entry is missing, out of place, or changed.
    pub fn follow(&mut self, entry: &AuditEntry) -> Result<(), ChainBroken> {
        if entry.seq != self.seq + 1 {
            return Err(ChainBroken::Sequence { expected: self.seq + 1, found: entry.seq });
        }
        if entry.previous != self.digest {
            return Err(ChainBroken::Link(entry.seq));
        }
        if entry_digest(entry.seq, entry.kind, entry.at_ms, &entry.previous, &entry.body) != entry.digest {
            return Err(ChainBroken::Content(entry.seq));
        }
        *self = Self { seq: entry.seq, digest: entry.digest };
        Ok(())
    }
}

/// Facts as canonical JSON; a fact that cannot be canonical is replaced by an object that says so.
#[must_use]
pub fn canonical_body(facts: &Value) -> String {
    serde_json_canonicalizer::to_string(facts).unwrap_or_else(|_| r#"{"unreadable":true}"#.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(n: usize) -> Vec<AuditEntry> {
        let mut head = ChainHead::default();
        (0..n).map(|i| head.append(AuditKind::Call, i as u64, format!("{{\"n\":{i}}}"))).collect()
    }

    fn verify(entries: &[AuditEntry]) -> Result<ChainHead, ChainBroken> {
        let mut head = ChainHead::default();
        entries.iter().try_for_each(|entry| head.follow(entry))?;
        Ok(head)
    }

    #[test]
    fn r40_every_change_deletion_swap_and_duplicate_is_found() {
        let entries = chain(6);
        assert!(verify(&entries).is_ok());
        for at in 0..entries.len() {
            let mut changed = entries.clone();
            changed[at].body.push(' ');
            assert!(verify(&changed).is_err(), "change {at}");
            let mut timed = entries.clone();
            timed[at].at_ms += 1;
            assert!(verify(&timed).is_err(), "time {at}");
            let mut kind = entries.clone();
            kind[at].kind = AuditKind::Breach;
            assert!(verify(&kind).is_err(), "kind {at}");
            let mut doubled = entries.clone();
            doubled.insert(at, entries[at].clone());
            assert!(verify(&doubled).is_err(), "duplicate {at}");
            if at + 1 < entries.len() {
                let mut removed = entries.clone();
                removed.remove(at);
                assert!(verify(&removed).is_err(), "deletion {at}");
                let mut swapped = entries.clone();
                swapped.swap(at, at + 1);
                assert!(verify(&swapped).is_err(), "swap {at}");
            }
        }
    }
}
