//! Keys of buckets as an execution sees them: its own changes over the committed values.
//!
//! A key holds one change at most, the last. Setting and deleting rest on the value that was there (`before`), so they
//! conflict with whoever changes the key in between; adding rests on nothing, so additions of different plans commute.
//! Looking at a committed value puts its digest into the read set; looking at an own value does not, and neither does the
//! sum that an addition answers: what a tool does with that is not known, so a tool that decides by a number must get it.
//! A change that leaves a key as it was is no effect but a reading of it.

use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use toolkeep_core::effect::{BodyState, Effect};
use toolkeep_core::grant::{KeysGrant, VALUE_BYTES_MAX, key_problem};
use toolkeep_core::id::BucketName;
use toolkeep_core::plan::{KeyRead, key_listing_digest};

use super::Sealed;
use crate::execution::Outward;
use crate::fault::{Fault, Stop};
use crate::port::{Keys, KeysFailure};
use crate::stage::{Content, StageError};

/// Keys that one execution may look at, change or list: bounds the host's memory and the read set.
pub const KEYS_MAX: usize = 10_000;
/// Keys that one page of a listing holds.
pub const LIST_PAGE: usize = 1_000;

/// Why an operation on a key is not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    /// No grant names the bucket.
    #[error("no grant names this bucket")]
    NoBucket,
    /// No grant covers the key, or it only reads.
    #[error("{0}")]
    Denied(&'static str),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The execution ends with it.
    #[error(transparent)]
    Stopped(#[from] Stop),
    /// The stage is full: the execution ends with it.
    #[error(transparent)]
    Full(#[from] StageError),
}

/// What a guest wants with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    Read,
    Write,
}

/// Names one key.
type Place = (BucketName, String);

/// What is staged for a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Change {
    #[default]
    None,
    Set(Bytes),
    Delete,
    Add(i64),
}

#[derive(Debug, Clone, Default)]
struct Entry {
    /// What was committed: the state that effects and the read set name.
    before: Option<Option<BodyState>>,
    /// Whether what the guest does may depend on it.
    read: bool,
    change: Change,
}

impl Entry {
    const fn is_changed(&self) -> bool {
        !matches!(self.change, Change::None | Change::Add(0))
    }

    const fn bytes(&self) -> u64 {
        if let Change::Set(value) = &self.change { value.len() as u64 } else { 0 }
    }
}

/// The keys that an execution looked at or changed.
#[derive(Debug, Default)]
pub(crate) struct StagedKeys {
    entries: BTreeMap<Place, Entry>,
    /// All committed names of buckets that were listed.
    listings: BTreeMap<BucketName, Vec<String>>,
    bytes: u64,
    changes: u64,
    counted: usize,
}

/// Whether a grant covers a key.
pub(crate) fn granted(grants: &[KeysGrant], bucket: &BucketName, key: &str, wanted: Wanted) -> Result<(), KeysError> {
    if let Some(problem) = key_problem(key) {
        return Err(KeysError::Invalid(problem.to_owned()));
    }
    let mut covering = grants.iter().filter(|grant| grant.bucket == *bucket && grant.allows(key)).peekable();
    if covering.peek().is_none() {
        return Err(KeysError::Denied("no grant covers this key"));
    }
    if wanted == Wanted::Write && !covering.any(|grant| grant.writes) {
        return Err(KeysError::Denied("the grant only reads; write `access = \"write\"`"));
    }
    Ok(())
}

/// A decimal number of 64 bits, as keys hold it.
fn number(value: &[u8]) -> Option<i64> {
    let text = std::str::from_utf8(value).ok()?;
    let number: i64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn not_a_number() -> KeysError {
    KeysError::Invalid("the value is not a decimal number of 64 bits".to_owned())
}

fn overflow() -> KeysError {
    KeysError::Invalid("the sum does not fit 64 bits".to_owned())
}

fn port(outward: &Outward) -> Result<&dyn Keys, KeysError> {
    outward.ports.keys.as_deref().ok_or_else(|| KeysError::Invalid("no keys can be read here".to_owned()))
}

/// Why a value is not had: for the guest to hear, or the end of a replay.
#[expect(clippy::needless_pass_by_value, reason = "it is what `map_err` hands over")]
fn unread(failure: KeysFailure) -> KeysError {
    match failure {
        KeysFailure::Unreadable(_) => KeysError::Invalid(failure.to_string()),
        KeysFailure::Unrecorded(_) => Stop(Fault::Diverged(failure.to_string())).into(),
    }
}

impl StagedKeys {
    /// Bytes of the values that are set.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Keys that are changed.
    pub(crate) const fn changes(&self) -> u64 {
        self.changes
    }

    /// Begin with what an earlier call of the transaction staged.
    pub(crate) fn lay(&mut self, effect: Effect, content: Option<&Content>) -> std::io::Result<()> {
        let (place, before, change) = match effect {
            Effect::KvSet { bucket, key, before, .. } => {
                let mut value = Vec::new();
                let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "a value of the layer is missing");
                let content = content.ok_or_else(missing)?;
                content.reader().take(VALUE_BYTES_MAX as u64).read_to_end(&mut value)?;
                ((bucket, key), Some(before), Change::Set(value.into()))
            }
            Effect::KvDelete { bucket, key, before } => ((bucket, key), Some(Some(before)), Change::Delete),
            Effect::KvAdd { bucket, key, delta } => ((bucket, key), None, Change::Add(delta)),
            _ => return Ok(()),
        };
        let entry = Entry { before, read: false, change };
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.changes = self.changes.saturating_add(u64::from(entry.is_changed()));
        self.entries.insert(place, entry);
        Ok(())
    }

    fn count(&mut self, more: usize) -> Result<(), KeysError> {
        self.counted = self.counted.saturating_add(more);
        if self.counted > KEYS_MAX {
            return Err(StageError::Full { what: "keys", limit: KEYS_MAX as u64 }.into());
        }
        Ok(())
    }

    fn entry(&mut self, place: &Place) -> Result<&mut Entry, KeysError> {
        if !self.entries.contains_key(place) {
            self.count(1)?;
        }
        Ok(self.entries.entry(place.clone()).or_default())
    }

    /// Ask for the committed value. It must be what it was, where that matters.
    async fn committed(&mut self, outward: &Outward, place: &Place, reads: bool) -> Result<Option<Bytes>, KeysError> {
        let (bucket, key) = place;
        let value = port(outward)?.get(bucket, key).await.map_err(unread)?;
        let state = value.as_deref().map(BodyState::of);
        let entry = self.entry(place)?;
        let matters = entry.read || matches!(entry.change, Change::Set(_) | Change::Delete);
        if matters && entry.before.is_some_and(|before| before != state) {
            let what = format!("key `{key}` of bucket `{bucket}` changed while the tool was using it; call again");
            return Err(Stop(Fault::Stale(what)).into());
        }
        entry.before = Some(state);
        entry.read |= reads;
        Ok(value)
    }

    /// Put a change in the place of the one before.
    fn change(&mut self, place: &Place, change: Change) -> Result<(), KeysError> {
        let entry = self.entry(place)?;
        let (bytes, changed) = (entry.bytes(), u64::from(entry.is_changed()));
        let same = match (&change, entry.before) {
            (Change::Set(value), Some(before)) => before == Some(BodyState::of(value)),
            (Change::Delete, Some(before)) => before.is_none(),
            _ => false,
        };
        entry.change = if same { Change::None } else { change };
        entry.read |= same;
        let (bytes_now, changed_now) = (entry.bytes(), u64::from(entry.is_changed()));
        self.bytes = self.bytes.saturating_sub(bytes).saturating_add(bytes_now);
        self.changes = self.changes.saturating_sub(changed).saturating_add(changed_now);
        Ok(())
    }

    /// The value as the guest sees it.
    pub(crate) async fn get(&mut self, outward: &Outward, place: &Place) -> Result<Option<Bytes>, KeysError> {
        match self.entry(place)?.change.clone() {
            Change::Set(value) => Ok(Some(value)),
            Change::Delete => Ok(None),
            Change::None => self.committed(outward, place, true).await,
            Change::Add(delta) => {
                let base = self.committed(outward, place, true).await?;
                let base = base.as_deref().map_or(Some(0), number).ok_or_else(not_a_number)?;
                let sum = base.checked_add(delta).ok_or_else(overflow)?;
                Ok(Some(sum.to_string().into()))
            }
        }
    }

    /// Whether the key has a value.
    pub(crate) async fn exists(&mut self, outward: &Outward, place: &Place) -> Result<bool, KeysError> {
        match self.entry(place)?.change {
            Change::Set(_) => Ok(true),
            Change::Add(delta) if delta != 0 => Ok(true),
            Change::Delete => Ok(false),
            Change::None | Change::Add(_) => Ok(self.committed(outward, place, true).await?.is_some()),
        }
    }

    /// Give the key a value.
    pub(crate) async fn set(&mut self, outward: &Outward, place: &Place, value: Bytes) -> Result<(), KeysError> {
        if value.len() > VALUE_BYTES_MAX {
            let size = value.len();
            return Err(KeysError::Invalid(format!("the value has {size} bytes; at most {VALUE_BYTES_MAX}")));
        }
        if self.entry(place)?.before.is_none() {
            self.committed(outward, place, false).await?;
        }
        self.change(place, Change::Set(value))
    }

    /// Take the key's value away.
    pub(crate) async fn delete(&mut self, outward: &Outward, place: &Place) -> Result<(), KeysError> {
        if self.entry(place)?.before.is_none() {
            self.committed(outward, place, false).await?;
        }
        self.change(place, Change::Delete)
    }

    /// Add to the key's number; the sum is what it is now, and may be another at commit.
    pub(crate) async fn add(&mut self, outward: &Outward, place: &Place, delta: i64) -> Result<i64, KeysError> {
        match self.entry(place)?.change.clone() {
            Change::Set(value) => {
                let sum = number(&value).ok_or_else(not_a_number)?.checked_add(delta).ok_or_else(overflow)?;
                self.change(place, Change::Set(sum.to_string().into()))?;
                Ok(sum)
            }
            Change::Delete => {
                self.change(place, Change::Set(delta.to_string().into()))?;
                Ok(delta)
            }
            change @ (Change::None | Change::Add(_)) => {
                let before = if let Change::Add(before) = change { before } else { 0 };
                let base = self.committed(outward, place, false).await?;
                let base = base.as_deref().map_or(Some(0), number).ok_or_else(not_a_number)?;
                let delta = before.checked_add(delta).ok_or_else(overflow)?;
                let sum = base.checked_add(delta).ok_or_else(overflow)?;
                self.change(place, Change::Add(delta))?;
                Ok(sum)
            }
        }
    }

    /// The names after `after`, at most a page, and whether there are more.
    pub(crate) async fn list(
        &mut self,
        outward: &Outward,
        bucket: &BucketName,
        after: Option<&str>,
    ) -> Result<(Vec<String>, bool), KeysError> {
        if !self.listings.contains_key(bucket) {
            let names = self.committed_names(outward, bucket).await?;
            self.listings.insert(bucket.clone(), names);
        }
        let mut names: BTreeMap<&str, bool> = BTreeMap::new();
        names.extend(self.listings.get(bucket).into_iter().flatten().map(|name| (name.as_str(), true)));
        for ((_, key), entry) in self.entries.iter().filter(|((home, _), _)| home == bucket) {
            match entry.change {
                Change::Set(_) => names.insert(key, true),
                Change::Add(delta) if delta != 0 => names.insert(key, true),
                Change::Delete => names.insert(key, false),
                Change::None | Change::Add(_) => None,
            };
        }
        let shown = |key: &&str| outward.keys.iter().any(|grant| grant.bucket == *bucket && grant.allows(key));
        let mut rest = names.into_iter().filter_map(|(key, exists)| exists.then_some(key));
        let mut page: Vec<String> = Vec::new();
        for key in rest.by_ref().filter(|key| after.is_none_or(|after| *key > after)).filter(shown) {
            if page.len() == LIST_PAGE {
                return Ok((page, true));
            }
            page.push(key.to_owned());
        }
        Ok((page, false))
    }

    async fn committed_names(&mut self, outward: &Outward, bucket: &BucketName) -> Result<Vec<String>, KeysError> {
        let mut names: Vec<String> = Vec::new();
        loop {
            let after = names.last().map(String::as_str);
            let page = port(outward)?.list(bucket, after, LIST_PAGE).await;
            let page = page.map_err(unread)?;
            let more = page.len() >= LIST_PAGE;
            self.count(page.len())?;
            names.extend(page);
            if !more {
                return Ok(names);
            }
        }
    }

    /// The effects by bucket and key, and what they rest on.
    pub(crate) fn seal(self) -> Sealed {
        let mut sealed = Sealed::default();
        for (bucket, names) in self.listings {
            let sha256 = key_listing_digest(names.iter().map(String::as_str));
            sealed.keys_read.push(KeyRead { bucket, key: "*".to_owned(), sha256 });
        }
        for ((bucket, key), entry) in self.entries {
            let before = entry.before.flatten();
            if entry.read {
                let sha256 = before.map(|state| state.sha256);
                sealed.keys_read.push(KeyRead { bucket: bucket.clone(), key: key.clone(), sha256 });
            }
            match entry.change {
                Change::None | Change::Add(0) => {}
                Change::Set(value) => {
                    let after = BodyState::of(&value);
                    sealed.contents.insert(after.sha256, Content::Memory(Vec::from(value).into()));
                    sealed.effects.push(Effect::KvSet { bucket, key, before, after });
                }
                Change::Delete => sealed.effects.extend(before.map(|before| Effect::KvDelete { bucket, key, before })),
                Change::Add(delta) => sealed.effects.push(Effect::KvAdd { bucket, key, delta }),
            }
        }
        sealed.keys_read.sort_unstable();
        sealed.keys_read.dedup();
        sealed
    }
}
