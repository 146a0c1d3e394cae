//! Files of the merged tree: open, read, write, cut, times.
//!
//! A lower file is copied up as a whole when its first byte changes, unless it is cut to nothing anyway. The copy is
//! counted against the quota of staged bytes before a byte is moved. Numbers that a guest chooses are checked before
//! anything is added or allocated.

use std::sync::Arc;

use toolkeep_core::digest::Hasher;

use super::content::{Buffer, CHUNK_BYTES};
use super::lower::LowerFile;
use super::resolve::Place;
use super::tree::{FileContent, Kind, NewNode, NodeId, Tree};
use super::{Handle, OPEN_FILES_MAX, OpenFile, OpenHow, StageError};
use crate::beneath::Seen;

/// A lower file to read from.
enum Source<'a> {
    Kept(&'a LowerFile),
    Transient(LowerFile),
}

impl Tree {
    pub(super) fn open(&mut self, base: &Handle, text: &str, how: OpenHow) -> Result<Handle, StageError> {
        if how.directory && (how.create || how.exclusive || how.truncate) {
            return Err(StageError::Invalid);
        }
        let place = self.resolve("open", base.node, text, how.follow && !(how.create && how.exclusive))?;
        let Some(id) = place.node else {
            return if how.create { self.create(&place, how) } else { Err(StageError::NoEntry) };
        };
        self.observe(id)?;
        if how.create && how.exclusive {
            return Err(StageError::Exists);
        }
        let reads = how.read || !how.write;
        match &self.node(id)?.kind {
            Kind::Directory(_) if how.write || how.truncate || how.create => Err(StageError::IsDirectory),
            Kind::Directory(_) => {
                self.may_enter("open", id)?;
                self.handle(id, reads, false)
            }
            Kind::Symlink => Err(StageError::Loop),
            Kind::Refused(_) => {
                let path = self.node(id)?.path.clone();
                Err(self.refuse("open", path.as_str(), StageError::LinkOrSpecial))
            }
            Kind::File(_) if how.directory => Err(StageError::NotDirectory),
            Kind::File(_) => {
                if how.write || how.truncate {
                    self.not_through_a_link("write", &place, text)?;
                    self.may_write("write", id)?;
                }
                if reads {
                    self.may_read("open", id)?;
                }
                if how.truncate {
                    self.cut(id)?;
                }
                self.handle(id, reads, how.write)
            }
        }
    }

    fn create(&mut self, place: &Place, how: OpenHow) -> Result<Handle, StageError> {
        let id = self.add_at("create", place, Kind::File(FileContent::Upper(Buffer::empty())))?;
        self.handle(id, how.read || !how.write, how.write)
    }

    /// Create an entry at a place that holds none.
    pub(super) fn add_at(&mut self, operation: &'static str, place: &Place, kind: Kind) -> Result<NodeId, StageError> {
        let Some(name) = &place.name else { return Err(StageError::Invalid) };
        self.not_through_a_link(operation, place, name)?;
        let parent = self.node(place.parent)?;
        let (mount, alive) = (parent.mount, parent.linked);
        if !alive {
            return Err(StageError::NoEntry);
        }
        let path = place.path(self)?;
        self.may_create(operation, mount, &path)?;
        let id = self.add(NewNode { mount, path, parent: Some(place.parent), lower: None, kind })?;
        self.attach(place.parent, name, id)?;
        Ok(id)
    }

    /// Nothing is changed through a symbolic link.
    pub(super) fn not_through_a_link(
        &mut self,
        operation: &'static str,
        place: &Place,
        text: &str,
    ) -> Result<(), StageError> {
        if place.linked { Err(self.refuse(operation, text, StageError::LinkOrSpecial)) } else { Ok(()) }
    }

    pub(super) fn read_at(&mut self, file: &Handle, offset: u64, length: u64) -> Result<Vec<u8>, StageError> {
        let length = usize::try_from(length).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let node = self.node(file.node)?;
        let Kind::File(content) = &node.kind else { return Err(StageError::IsDirectory) };
        if !file.read {
            return Err(StageError::NotOpenedFor);
        }
        match (content, &node.lower) {
            (FileContent::Upper(buffer), _) => Ok(buffer.read_at(offset, length)?),
            (FileContent::Lower, None) => Ok(Vec::new()),
            (FileContent::Lower, Some(lower)) => {
                let left = usize::try_from(lower.seen.size.saturating_sub(offset)).unwrap_or(length);
                let transient;
                let source = match self.lower_file(file)? {
                    Source::Kept(file) => file,
                    Source::Transient(file) => {
                        transient = file;
                        &transient
                    }
                };
                let bytes =
                    if left == 0 || length == 0 { Vec::new() } else { source.read(offset, left.min(length))? };
                self.same_state(file.node, &source.seen()?)?;
                if bytes.is_empty() && left > 0 && length > 0 {
                    return Err(self.stale(file.node));
                }
                // Nothing served at the end says no more than the size, which was observed when the file was opened.
                if !bytes.is_empty() {
                    self.observe_bytes(file.node, offset, &bytes)?;
                }
                Ok(bytes)
            }
        }
    }

    /// The lower file of a handle: opened once for all handles of its node, or for this one read if many are open.
    fn lower_file<'a>(&self, file: &'a Handle) -> Result<Source<'a>, StageError> {
        if let Some(open) = file.open.lower.get() {
            return Ok(Source::Kept(&open.file));
        }
        let (opened, _) = self.open_lower(file.node)?;
        if Arc::strong_count(&self.open_files) > OPEN_FILES_MAX {
            return Ok(Source::Transient(opened));
        }
        let open = || OpenFile { file: opened, _counted: Arc::clone(&self.open_files) };
        Ok(Source::Kept(&file.open.lower.get_or_init(open).file))
    }

    /// Open the lower file of a node, if it is still what was seen.
    pub(super) fn open_lower(&self, id: NodeId) -> Result<(LowerFile, Seen), StageError> {
        let node = self.node(id)?;
        let Some(lower) = &node.lower else { return Err(StageError::NoEntry) };
        let root = &self.mount(node.mount)?.root;
        let (file, seen) =
            root.open_file(&lower.path, self.notes.as_ref()).map_err(|error| self.reopened(id, error))?;
        self.same_state(id, &seen)?;
        Ok((file, seen))
    }

    pub(super) fn write_at(&mut self, file: &Handle, offset: u64, bytes: &[u8]) -> Result<(), StageError> {
        self.check_writes(file)?;
        if bytes.is_empty() {
            return Ok(());
        }
        let full = StageError::Full { what: "bytes", limit: self.limits.bytes };
        let end = offset.checked_add(bytes.len() as u64).ok_or_else(|| full.clone())?;
        if end > self.limits.bytes {
            return Err(full);
        }
        self.copy_up(file.node)?;
        let before = self.size(file.node)?;
        self.charge_bytes(before, before.max(end))?;
        self.change(file.node, |buffer, spool| buffer.write_at(spool, offset, bytes))
    }

    pub(super) fn append(&mut self, file: &Handle, bytes: &[u8]) -> Result<(), StageError> {
        self.check_writes(file)?;
        let end = self.size(file.node)?;
        self.write_at(file, end, bytes)
    }

    pub(super) fn set_size(&mut self, file: &Handle, size: u64) -> Result<(), StageError> {
        self.check_writes(file)?;
        let before = self.size(file.node)?;
        if size == before {
            return Ok(());
        }
        if size > self.limits.bytes {
            return Err(StageError::Full { what: "bytes", limit: self.limits.bytes });
        }
        if size == 0 {
            return self.cut(file.node);
        }
        self.copy_up(file.node)?;
        self.charge_bytes(before, size)?;
        self.change(file.node, |buffer, spool| buffer.set_size(spool, size))
    }

    fn check_writes(&self, file: &Handle) -> Result<(), StageError> {
        match self.node(file.node)?.kind {
            Kind::File(_) if file.write => Ok(()),
            Kind::File(_) => Err(StageError::NotOpenedFor),
            Kind::Directory(_) | Kind::Symlink | Kind::Refused(_) => Err(StageError::IsDirectory),
        }
    }

    /// Bytes of a file as the guest sees it.
    pub(super) fn size(&self, id: NodeId) -> Result<u64, StageError> {
        let node = self.node(id)?;
        Ok(match &node.kind {
            Kind::File(FileContent::Upper(buffer)) => buffer.size(),
            _ => node.lower.as_ref().map_or(0, |lower| lower.seen.size),
        })
    }

    /// Cut a file to nothing.
    fn cut(&mut self, id: NodeId) -> Result<(), StageError> {
        if let Kind::File(FileContent::Upper(buffer)) = &self.node(id)?.kind {
            let before = buffer.size();
            self.charge_bytes(before, 0)?;
            return self.change(id, |buffer, spool| {
                buffer.release(spool);
                Ok(())
            });
        }
        self.raise(id, Buffer::empty())?;
        self.change(id, |_, _| Ok(()))
    }

    /// Take the lower content up, so that it can be changed.
    pub(super) fn copy_up(&mut self, id: NodeId) -> Result<(), StageError> {
        if self.node(id)?.is_dirty() {
            return Ok(());
        }
        let (source, seen) = self.open_lower(id)?;
        self.charge_bytes(0, seen.size)?;
        let mut buffer = Buffer::empty();
        let mut hasher = Hasher::new();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        while at < seen.size {
            let count = source.fill(&mut chunk, at)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Err(self.stale(id));
            };
            hasher.update(bytes);
            self.served(id, at, bytes)?;
            buffer.write_at(&mut self.spool, at, bytes)?;
            at = at.saturating_add(count as u64);
        }
        self.same_state(id, &source.seen()?)?;
        if let Some(lower) = &mut self.node_mut(id)?.lower {
            lower.digest = Some(hasher.finish());
        }
        self.raise(id, buffer)
    }

    /// Give a node staged content.
    fn raise(&mut self, id: NodeId, buffer: Buffer) -> Result<(), StageError> {
        self.node_mut(id)?.kind = Kind::File(FileContent::Upper(buffer));
        self.settle(id)
    }

    fn change(
        &mut self,
        id: NodeId,
        change: impl FnOnce(&mut Buffer, &mut super::Spool) -> std::io::Result<()>,
    ) -> Result<(), StageError> {
        let now_ns = self.now_ns;
        let Self { nodes, spool, .. } = self;
        let node = id.of(nodes).ok_or(StageError::Sealed)?;
        if let Kind::File(FileContent::Upper(buffer)) = &mut node.kind {
            change(buffer, spool)?;
            node.modified_ns = now_ns;
            node.times = None;
        }
        self.settle(id)
    }

    pub(super) fn set_times(&mut self, id: NodeId, modified_ns: Option<i64>) -> Result<(), StageError> {
        let node = self.node(id)?;
        if node.is_directory() {
            return Err(StageError::Unsupported);
        }
        let linked = node.linked;
        if linked {
            self.may_write("set-times", id)?;
        }
        let Some(modified_ns) = modified_ns else { return Ok(()) };
        self.node_mut(id)?.times = Some(modified_ns);
        self.settle(id)
    }

    pub(super) fn set_times_at(
        &mut self,
        base: &Handle,
        text: &str,
        follow: bool,
        modified_ns: Option<i64>,
    ) -> Result<(), StageError> {
        let place = self.resolve("set-times", base.node, text, follow)?;
        let id = place.node.ok_or(StageError::NoEntry)?;
        self.observe(id)?;
        self.not_through_a_link("set-times", &place, text)?;
        self.set_times(id, modified_ns)
    }
}
