//! Plans: the sealed, ordered list of effects with everything they depend on, named by a digest.
//!
//! Two digests with two purposes. The *plan digest* covers what the plan is and what it was made from: same inputs, same
//! world, same digest, so that a preview can be compared with a later commit. The *seal* adds this run, this
//! call, the expiry and a nonce: it is what an approval leases, once. Renderings and diffs are never digested.

use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::Effect;
use crate::id::{BucketName, CallId, PlanId, RunId, ToolName, WorkspaceName};
use crate::json::canonical_text;
use crate::limit::EFFECTS_MAX;
use crate::path::WorkspacePath;
use crate::principal::Principal;
use crate::taint::Taint;
use crate::tier::Tier;

/// The only format that this version writes and reads.
pub const FORMAT: u32 = 1;
const PLAN_DOMAIN: &str = "toolkeep.plan.v1\n";
const SEAL_DOMAIN: &str = "toolkeep.seal.v1";

/// Something that an execution learned about the world and that its effects may depend on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "saw", rename_all = "snake_case", deny_unknown_fields)]
pub enum Observation {
    /// Nothing exists at the path.
    Absent,
    /// Something of this kind and size exists. The size of directories is 0.
    Stat {
        /// What it is.
        entry: EntryKind,
        /// Bytes, for files.
        size: u64,
    },
    /// The bytes `[offset, offset+length)` of a file had this digest.
    Content {
        /// First byte.
        offset: u64,
        /// Bytes served; fewer than asked at the end of the file.
        length: u64,
        /// SHA-256 of those bytes.
        sha256: Digest,
    },
    /// The directory held exactly these entries: SHA-256 over the sorted names and kinds.
    List {
        /// See [`listing_digest`].
        sha256: Digest,
    },
}

/// What kind of thing a directory entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO, socket, device, or a file with more than one hard link: shown, never opened.
    Refused,
}

/// The digest of a directory listing: names and kinds, sorted by the bytes of the name.
#[must_use]
pub fn listing_digest<'a>(entries: impl IntoIterator<Item = (&'a str, EntryKind)>) -> Digest {
    let mut sorted: Vec<(&str, EntryKind)> = entries.into_iter().collect();
    sorted.sort_unstable();
    let kinds: Vec<[u8; 1]> = sorted
        .iter()
        .map(|(_, kind)| {
            [match kind {
                EntryKind::File => b'f',
                EntryKind::Directory => b'd',
                EntryKind::Symlink => b'l',
                EntryKind::Refused => b'x',
            }]
        })
        .collect();
    let mut parts: Vec<&[u8]> = Vec::with_capacity(sorted.len() * 2);
    for ((name, _), kind) in sorted.iter().zip(&kinds) {
        parts.push(name.as_bytes());
        parts.push(kind);
    }
    Digest::of_parts("toolkeep.listing.v1", &parts)
}

/// One entry of the read set.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReadEntry {
    /// Where.
    pub workspace: WorkspaceName,
    /// At which path.
    pub path: WorkspacePath,
    /// What was seen.
    pub observation: Observation,
}

/// What a plan is and what it was made from. Its canonical JSON is what the plan digest names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanBody {
    /// Always [`FORMAT`].
    pub format: u32,
    /// Who acts.
    pub principal: Principal,
    /// Which tool.
    pub tool: ToolName,
    /// SHA-256 of the component.
    pub component: Digest,
    /// SHA-256 of the manifest text.
    pub manifest: Digest,
    /// SHA-256 of the policy set that decides.
    pub policy_set: Digest,
    /// SHA-256 of the canonical input.
    pub input: Digest,
    /// What the execution learned, sorted and without repeats.
    pub read_set: Vec<ReadEntry>,
    /// The keys that it read, sorted and without repeats.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys_read: Vec<KeyRead>,
    /// Which part of an execution with live requests it is, counted from 0.
    #[serde(default, skip_serializing_if = "is_zero_u32")]
    pub segment: u32,
    /// The calls of a transaction, in their order; empty for the plan of a single call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<PlanStep>,
    /// What the run, or the call alone, had seen when it was made.
    #[serde(default, skip_serializing_if = "Taint::is_none")]
    pub taint: Taint,
    /// What it wants to change, in the order in which it is applied.
    pub effects: Vec<Effect>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature is serde's")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The value of a key when it was read.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRead {
    /// Where.
    pub bucket: BucketName,
    /// Which key; the listing of a bucket has the prefix that was listed, followed by `*`.
    pub key: String,
    /// SHA-256 of the value, or of the sorted names of a listing; absent if there was nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<Digest>,
}

/// What [`KeyRead::sha256`] says about a listing: a digest of all keys of the bucket, which must come in the order of their
/// bytes. Nothing for an empty bucket.
#[must_use]
pub fn key_listing_digest<'a>(keys: impl IntoIterator<Item = &'a str>) -> Option<Digest> {
    let parts: Vec<&[u8]> = keys.into_iter().map(str::as_bytes).collect();
    (!parts.is_empty()).then(|| Digest::of_parts("toolkeep.keys.v1", &parts))
}

/// One call of a transaction, as its plan names it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlanStep {
    /// Which tool.
    pub tool: ToolName,
    /// SHA-256 of its component.
    pub component: Digest,
    /// SHA-256 of its manifest.
    pub manifest: Digest,
    /// SHA-256 of its canonical input.
    pub input: Digest,
}

/// Why effects cannot become a plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanRefused {
    /// More than [`EFFECTS_MAX`] effects.
    #[error("{0} effects; a plan holds at most 10000")]
    TooManyEffects(usize),
    /// The body cannot be written as canonical JSON.
    #[error("the plan cannot be written as canonical JSON: {0}")]
    Canonical(String),
    /// The digest does not name the body.
    #[error("the plan's digest does not match its content")]
    DigestMismatch,
    /// The seal does not name the plan.
    #[error("the plan's seal does not match")]
    SealMismatch,
    /// Another format version.
    #[error("the plan has format {0}; this version reads format 1")]
    Format(u32),
}

/// A plan as it was sealed: immutable, verified whenever it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    body: PlanBody,
    canonical: String,
    digest: Digest,
    id: PlanId,
    binding: SealBinding,
    seal: Digest,
}

/// What the seal adds to the digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealBinding {
    /// The run, if the call belongs to one.
    pub run: Option<RunId>,
    /// The call.
    pub call: CallId,
    /// When the plan stops being committable: milliseconds since the Unix epoch.
    pub expires_at_ms: u64,
    /// 16 random bytes, hexadecimal.
    pub nonce: String,
}

impl Plan {
    /// Seal a body.
    ///
    /// # Errors
    /// There are too many effects, or the body cannot be made canonical.
    pub fn seal(mut body: PlanBody, id: PlanId, binding: SealBinding) -> Result<Self, PlanRefused> {
        if body.effects.len() > EFFECTS_MAX {
            return Err(PlanRefused::TooManyEffects(body.effects.len()));
        }
        body.format = FORMAT;
        body.read_set.sort_unstable();
        body.read_set.dedup();
        body.keys_read.sort_unstable();
        body.keys_read.dedup();
        let canonical = canonical_text(&body).map_err(|e| PlanRefused::Canonical(e.to_string()))?;
        let digest = plan_digest(&canonical);
        let seal = seal_digest(&digest, &binding);
        Ok(Self { body, canonical, digest, id, binding, seal })
    }

    /// Read a stored plan back and verify that its digest and seal name it.
    ///
    /// # Errors
    /// Anything was changed: a bit of the text, the digest, the binding or the seal.
    pub fn verify(
        id: PlanId,
        canonical: String,
        digest: Digest,
        binding: SealBinding,
        seal: Digest,
    ) -> Result<Self, PlanRefused> {
        if plan_digest(&canonical) != digest {
            return Err(PlanRefused::DigestMismatch);
        }
        if seal_digest(&digest, &binding) != seal {
            return Err(PlanRefused::SealMismatch);
        }
        let body: PlanBody = serde_json::from_str(&canonical).map_err(|e| PlanRefused::Canonical(e.to_string()))?;
        if body.format != FORMAT {
            return Err(PlanRefused::Format(body.format));
        }
        let again = canonical_text(&body).map_err(|e| PlanRefused::Canonical(e.to_string()))?;
        if again != canonical {
            return Err(PlanRefused::DigestMismatch);
        }
        Ok(Self { body, canonical, digest, id, binding, seal })
    }

    /// What the plan is.
    #[must_use]
    pub const fn body(&self) -> &PlanBody {
        &self.body
    }

    /// The RFC 8785 text that the digest names.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Names the content.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// Names this one offer of it.
    #[must_use]
    pub const fn seal_digest(&self) -> Digest {
        self.seal
    }

    /// The stored plan's id.
    #[must_use]
    pub const fn id(&self) -> PlanId {
        self.id
    }

    /// Run, call, expiry and nonce.
    #[must_use]
    pub const fn binding(&self) -> &SealBinding {
        &self.binding
    }

    /// Counts by kind, for the first line of every rendering.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(&self.body.effects)
    }

    /// The highest tier of its effects.
    pub fn tier(&self, keeps_undo: impl Fn(&Effect) -> bool, sensitive: impl Fn(&Effect) -> bool) -> Tier {
        self.body
            .effects
            .iter()
            .map(|effect| effect.tier(keeps_undo(effect), sensitive(effect)))
            .max()
            .unwrap_or(Tier::ReadOnly)
    }
}

fn plan_digest(canonical: &str) -> Digest {
    let mut hasher = crate::digest::Hasher::new();
    hasher.update(PLAN_DOMAIN.as_bytes());
    hasher.update(canonical.as_bytes());
    hasher.finish()
}

fn seal_digest(digest: &Digest, binding: &SealBinding) -> Digest {
    let run = binding.run.map(|run| run.to_string()).unwrap_or_default();
    Digest::of_parts(
        SEAL_DOMAIN,
        &[
            digest.as_bytes(),
            run.as_bytes(),
            binding.call.to_string().as_bytes(),
            &binding.expires_at_ms.to_be_bytes(),
            binding.nonce.as_bytes(),
        ],
    )
}

/// What a plan does, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Effects in all.
    pub effects: u64,
    /// Files created.
    pub creates: u64,
    /// Files whose content is replaced.
    pub overwrites: u64,
    /// Files removed.
    pub deletes: u64,
    /// Files moved.
    pub renames: u64,
    /// Directories created or removed, and times set.
    pub others: u64,
    /// Bytes of new content.
    pub bytes_written: u64,
    /// Requests sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub requests: u64,
    /// Messages sent.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub messages: u64,
    /// Keys changed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub keys: u64,
}

impl Totals {
    /// Count effects.
    #[must_use]
    pub fn of(effects: &[Effect]) -> Self {
        let mut totals = Self { effects: effects.len() as u64, ..Self::default() };
        for effect in effects {
            match effect {
                Effect::FileWrite { before: None, after, .. } => {
                    totals.creates += 1;
                    totals.bytes_written = totals.bytes_written.saturating_add(after.size);
                }
                Effect::FileWrite { before: Some(_), after, .. } => {
                    totals.overwrites += 1;
                    totals.bytes_written = totals.bytes_written.saturating_add(after.size);
                }
                Effect::FileDelete { .. } => totals.deletes += 1,
                Effect::FileRename { .. } => totals.renames += 1,
                Effect::FileMetadata { .. } | Effect::DirCreate { .. } | Effect::DirDelete { .. } => totals.others += 1,
                Effect::HttpRequest(_) => totals.requests += 1,
                Effect::MessageSend(_) => totals.messages += 1,
                Effect::KvSet { .. } | Effect::KvDelete { .. } | Effect::KvAdd { .. } => totals.keys += 1,
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::FileState;
    use uuid::Uuid;

    fn body() -> PlanBody {
        PlanBody {
            format: FORMAT,
            principal: Principal {
                tenant: "t".parse().expect("name"),
                user: "u".parse().expect("name"),
                agent: "a".parse().expect("name"),
            },
            tool: "csv-report".parse().expect("name"),
            component: Digest::of(b"component"),
            manifest: Digest::of(b"manifest"),
            policy_set: Digest::of(b"policy"),
            input: Digest::of(b"{}"),
            keys_read: vec![],
            segment: 0,
            steps: vec![],
            taint: Taint::NONE,
            read_set: vec![ReadEntry {
                workspace: "books".parse().expect("name"),
                path: "a.csv".parse().expect("path"),
                observation: Observation::Content { offset: 0, length: 3, sha256: Digest::of(b"abc") },
            }],
            effects: vec![Effect::FileWrite {
                workspace: "books".parse().expect("name"),
                path: "r.md".parse().expect("path"),
                before: None,
                after: FileState { sha256: Digest::of(b"x"), size: 1, mode: 0o644 },
            }],
        }
    }

    fn binding() -> SealBinding {
        SealBinding { run: None, call: CallId::new(Uuid::from_u128(1)), expires_at_ms: 5, nonce: "00".repeat(16) }
    }

    fn plan() -> Plan {
        Plan::seal(body(), PlanId::new(Uuid::from_u128(2)), binding()).expect("sealed")
    }

    #[test]
    fn r06_the_same_inputs_and_world_give_the_same_digest_and_another_seal() {
        let one = plan();
        let mut other_binding = binding();
        other_binding.nonce = "11".repeat(16);
        let two = Plan::seal(body(), PlanId::new(Uuid::from_u128(3)), other_binding).expect("sealed");
        assert_eq!(one.digest(), two.digest());
        assert_ne!(one.seal_digest(), two.seal_digest());
    }

    #[test]
    fn t_p4_every_flipped_bit_of_a_stored_plan_is_refused() {
        let plan = plan();
        let read = |canonical: String, digest, binding, seal| Plan::verify(plan.id(), canonical, digest, binding, seal);
        assert_eq!(read(plan.canonical().to_owned(), plan.digest(), binding(), plan.seal_digest()).as_ref(), Ok(&plan));
        let bytes = plan.canonical().as_bytes();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            let Ok(text) = String::from_utf8(changed) else { continue };
            assert!(read(text, plan.digest(), binding(), plan.seal_digest()).is_err(), "bit {bit}");
        }
        for bit in 0..256 {
            let mut digest = *plan.digest().as_bytes();
            digest[bit / 8] ^= 1 << (bit % 8);
            assert!(
                read(plan.canonical().to_owned(), Digest::from_bytes(digest), binding(), plan.seal_digest()).is_err()
            );
            let mut seal = *plan.seal_digest().as_bytes();
            seal[bit / 8] ^= 1 << (bit % 8);
            assert!(read(plan.canonical().to_owned(), plan.digest(), binding(), Digest::from_bytes(seal)).is_err());
        }
        for change in [
            SealBinding { expires_at_ms: 6, ..binding() },
            SealBinding { nonce: "01".repeat(16), ..binding() },
            SealBinding { call: CallId::new(Uuid::from_u128(9)), ..binding() },
            SealBinding { run: Some(RunId::new(Uuid::from_u128(9))), ..binding() },
        ] {
            assert!(read(plan.canonical().to_owned(), plan.digest(), change, plan.seal_digest()).is_err());
        }
    }

    #[test]
    fn r06_every_field_of_the_body_is_in_the_digest() {
        let base = plan().digest();
        let edits: [fn(&mut PlanBody); 8] = [
            |b| b.principal.user = "v".parse().expect("name"),
            |b| b.tool = "other".parse().expect("name"),
            |b| b.component = Digest::of(b"1"),
            |b| b.manifest = Digest::of(b"1"),
            |b| b.policy_set = Digest::of(b"1"),
            |b| b.input = Digest::of(b"1"),
            |b| b.read_set.clear(),
            |b| b.effects.clear(),
        ];
        for (at, edit) in edits.iter().enumerate() {
            let mut changed = body();
            edit(&mut changed);
            let plan = Plan::seal(changed, PlanId::new(Uuid::from_u128(2)), binding()).expect("sealed");
            assert_ne!(plan.digest(), base, "edit {at}");
        }
    }

    #[test]
    fn effects_hold_at_n_and_n_plus_1() {
        let with = |n: usize| {
            let mut b = body();
            let effect = b.effects.first().cloned().expect("one");
            b.effects = vec![effect; n];
            Plan::seal(b, PlanId::new(Uuid::from_u128(2)), binding()).is_ok()
        };
        assert!(with(EFFECTS_MAX) && !with(EFFECTS_MAX + 1));
    }
}
