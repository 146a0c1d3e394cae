//! What an execution stages beside files: changes of keys, messages, requests; and what it heard from other systems.
//!
//! Nothing here leaves the process. A change is checked against the grants of the manifest, counted against the limits of
//! the stage and kept until the execution is sealed, in the order in which it will be applied: files, keys, messages,
//! requests. What earlier calls of a transaction staged lies beneath from the start and is sealed again with the rest.
//! One of these exists only for executions that reach beyond files.

pub mod exchange;
pub mod keys;
pub mod request;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, HttpEffect, MessageEffect};
use toolkeep_core::id::{ChannelName, GrantName};
use toolkeep_core::plan::KeyRead;

use crate::capability::http::{Draft, Room};
use crate::execution::{Layer, Outward};
use crate::port::{Exchange, HttpCall};
use crate::stage::{BREACHES_MAX, Content, StageError, StageLimits, Staged};
use exchange::{Asked, Exchanges};
use keys::StagedKeys;

/// Longest text of one breach, in bytes: what was wanted and a reason.
const BREACH_MAX_BYTES: usize = 400;

/// What one execution stages beside files.
#[derive(Debug)]
pub(crate) struct Outbound {
    /// What it may reach.
    pub(crate) outward: Outward,
    /// Changes of keys.
    pub(crate) keys: StagedKeys,
    /// What it heard.
    pub(crate) exchanges: Exchanges,
    /// What the guest waits for, by the number of the pollable.
    pub(crate) awaited: BTreeMap<u32, Arc<Asked>>,
    /// The request that ended the execution because only its answer can go on.
    pub(crate) live: Option<Box<HttpCall>>,
    /// Requests so far, by grant.
    asked: BTreeMap<GrantName, u64>,
    /// Messages so far, by channel.
    sent: BTreeMap<ChannelName, u64>,
    /// Bytes that the guest wrote into bodies of requests, whatever became of them.
    drafted: Arc<AtomicU64>,
    /// Bodies that are being written, by the number of their request.
    pub(crate) drafts: BTreeMap<u32, Draft>,
    messages: Vec<MessageEffect>,
    requests: Vec<HttpEffect>,
    contents: BTreeMap<Digest, Content>,
    /// Bytes of bodies of messages and requests.
    bytes: u64,
    limits: StageLimits,
    breaches: Vec<String>,
}

/// What was staged, sealed.
#[derive(Debug, Default)]
pub(crate) struct Sealed {
    pub(crate) effects: Vec<Effect>,
    pub(crate) keys_read: Vec<KeyRead>,
    pub(crate) contents: BTreeMap<Digest, Content>,
}

impl Outbound {
    /// Nothing but what earlier calls of the transaction staged.
    ///
    /// # Errors
    /// A value of the layer cannot be read: a fault of the host.
    pub(crate) fn new(mut outward: Outward, limits: StageLimits) -> std::io::Result<Self> {
        let exchanges = Exchanges::new(std::mem::take(&mut outward.exchanges), outward.offline);
        let mut outbound = Self {
            keys: StagedKeys::default(),
            exchanges,
            awaited: BTreeMap::new(),
            live: None,
            asked: BTreeMap::new(),
            sent: BTreeMap::new(),
            drafted: Arc::default(),
            drafts: BTreeMap::new(),
            messages: Vec::new(),
            requests: Vec::new(),
            contents: BTreeMap::new(),
            bytes: 0,
            limits,
            breaches: Vec::new(),
            outward,
        };
        if let Some(layer) = outbound.outward.layer.take() {
            outbound.lay(layer)?;
        }
        Ok(outbound)
    }

    /// Begin with the effects of a layer that change no files.
    fn lay(&mut self, layer: Layer) -> std::io::Result<()> {
        let Layer { effects, contents } = layer;
        for effect in effects {
            let (_, after) = effect.contents();
            let content = after.and_then(|after| contents.get(&after.sha256));
            match effect {
                Effect::HttpRequest(request) => {
                    self.bytes = self.bytes.saturating_add(request.body.map_or(0, |body| body.size));
                    self.keep(content);
                    self.requests.push(request);
                }
                Effect::MessageSend(message) => {
                    self.bytes = self.bytes.saturating_add(message.body.size);
                    self.keep(content);
                    self.messages.push(message);
                }
                Effect::KvSet { .. } | Effect::KvDelete { .. } | Effect::KvAdd { .. } => {
                    self.keys.lay(effect, content)?;
                }
                Effect::FileWrite { .. }
                | Effect::FileDelete { .. }
                | Effect::FileRename { .. }
                | Effect::FileMetadata { .. }
                | Effect::DirCreate { .. }
                | Effect::DirDelete { .. } => {}
            }
        }
        Ok(())
    }

    fn keep(&mut self, content: Option<&Content>) {
        if let Some(Content::Memory(bytes)) = content {
            self.contents.insert(Digest::of(bytes), Content::Memory(Arc::clone(bytes)));
        }
    }

    /// Keep a refused attempt for the audit.
    pub(crate) fn breach(&mut self, operation: &str, what: &str, why: &str) {
        if self.breaches.len() < BREACHES_MAX {
            let shown: String = what.chars().flat_map(char::escape_default).collect();
            let mut text = format!("{operation} `{shown}`: {why}");
            text.truncate(text.floor_char_boundary(BREACH_MAX_BYTES));
            self.breaches.push(text);
        }
    }

    /// Refused attempts so far.
    pub(crate) fn breaches(&self) -> &[String] {
        &self.breaches
    }

    /// Count one more request under a grant. False if it is one too many.
    pub(crate) fn count_request(&mut self, grant: &GrantName, most: u64) -> bool {
        count(&mut self.asked, grant, most)
    }

    /// Count one more message of a channel. False if it is one too many.
    pub(crate) fn count_message(&mut self, channel: &ChannelName, most: u64) -> bool {
        count(&mut self.sent, channel, most)
    }

    /// Stage a message.
    ///
    /// # Errors
    /// The stage is full.
    pub(crate) fn stage_message(&mut self, message: MessageEffect, body: Bytes) -> Result<(), StageError> {
        self.messages.push(message);
        self.add_content(body)?;
        self.check()
    }

    /// Stage a request.
    ///
    /// # Errors
    /// The stage is full.
    pub(crate) fn stage_request(&mut self, request: HttpEffect, body: Bytes) -> Result<(), StageError> {
        self.requests.push(request);
        if !body.is_empty() {
            self.add_content(body)?;
        }
        self.check()
    }

    fn add_content(&mut self, body: Bytes) -> Result<(), StageError> {
        self.bytes = self.bytes.saturating_add(body.len() as u64);
        self.fits(self.bytes)?;
        let content: Arc<[u8]> = Vec::from(body).into();
        self.contents.entry(Digest::of(&content)).or_insert(Content::Memory(content));
        Ok(())
    }

    fn fits(&self, bytes: u64) -> Result<(), StageError> {
        let limit = self.limits.bytes;
        if bytes > limit { Err(StageError::Full { what: "bytes", limit }) } else { Ok(()) }
    }

    /// Whether everything that is staged fits the limits.
    ///
    /// # Errors
    /// It does not.
    pub(crate) fn check(&self) -> Result<(), StageError> {
        self.fits(self.bytes.saturating_add(self.keys.bytes()))?;
        let effects = (self.messages.len() + self.requests.len()) as u64 + self.keys.changes();
        let limit = self.limits.effects;
        if effects > limit { Err(StageError::Full { what: "effects", limit }) } else { Ok(()) }
    }

    /// What bodies of requests may have.
    pub(crate) fn room(&self) -> Room {
        let body_max = self.outward.http.iter().map(|grant| grant.request_bytes).max().unwrap_or(0);
        Room { body_max, total_max: self.limits.bytes, total: Arc::clone(&self.drafted) }
    }

    /// The effects in the order of their application, and the exchanges.
    pub(crate) fn finish(self) -> (Sealed, Vec<Exchange>) {
        let mut sealed = self.keys.seal();
        sealed.effects.extend(self.messages.into_iter().map(Effect::MessageSend));
        sealed.effects.extend(self.requests.into_iter().map(Effect::HttpRequest));
        sealed.contents.extend(self.contents);
        (sealed, self.exchanges.finish())
    }
}

impl Sealed {
    /// Put what was staged beside files behind the files.
    ///
    /// # Errors
    /// Together they exceed the limits.
    pub(crate) fn join(self, mut staged: Staged, limits: StageLimits) -> Result<Staged, StageError> {
        staged.effects.extend(self.effects);
        staged.keys_read = self.keys_read;
        staged.contents.extend(self.contents);
        let bytes: u64 = staged.contents.values().map(Content::size).fold(0, u64::saturating_add);
        if bytes > limits.bytes {
            return Err(StageError::Full { what: "bytes", limit: limits.bytes });
        }
        if staged.effects.len() as u64 > limits.effects {
            return Err(StageError::Full { what: "effects", limit: limits.effects });
        }
        Ok(staged)
    }
}

fn count<Name: Ord + Clone>(counts: &mut BTreeMap<Name, u64>, name: &Name, most: u64) -> bool {
    let count = counts.entry(name.clone()).or_default();
    *count = count.saturating_add(1);
    *count <= most
}
