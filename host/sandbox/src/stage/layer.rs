//! Layers: the stage of a later call in a transaction begins with what the calls before it staged (D11).
//!
//! The effects are put into the tree as they stand, one after the other, without asking the grants of this call: another
//! call was allowed to make them. Nothing of it is an observation by this call, because the calls before observed it. What
//! an effect says was there must still be there; that the content is the same is checked at commit, as always, so it is
//! not read here. Effects in workspaces that this call does not mount are handed back untouched.

use std::collections::BTreeMap;
use std::io::Read;

use toolkeep_core::digest::Digest;
use toolkeep_core::effect::{Effect, FileState};
use toolkeep_core::path::WorkspacePath;

use super::StageError;
use super::content::{Buffer, CHUNK_BYTES, Content};
use super::tree::{Directory, FileContent, Kind, NewNode, NodeId, Tree};

/// Where an effect happens.
struct Spot {
    mount: usize,
    path: WorkspacePath,
    parent: NodeId,
    name: Box<str>,
    node: Option<NodeId>,
}

impl Tree {
    /// Put effects into the tree. What lies in other workspaces comes back.
    pub(super) fn lay(
        &mut self,
        effects: &[Effect],
        contents: &BTreeMap<Digest, Content>,
    ) -> Result<Vec<Effect>, StageError> {
        let mut carried = Vec::new();
        for effect in effects {
            let Some(workspace) = effect.workspace() else { continue };
            match self.mounts.iter().position(|mount| mount.root.name() == workspace) {
                None => carried.push(effect.clone()),
                Some(mount) => {
                    self.lay_one(mount, effect, contents)?;
                    self.laid.insert(effect.clone());
                }
            }
        }
        Ok(carried)
    }

    fn lay_one(
        &mut self,
        mount: usize,
        effect: &Effect,
        contents: &BTreeMap<Digest, Content>,
    ) -> Result<(), StageError> {
        match effect {
            Effect::FileWrite { path, before, after, .. } => {
                let content = contents.get(&after.sha256).ok_or(StageError::Io(rustix::io::Errno::NODATA))?;
                let spot = self.spot(mount, path)?;
                let id = match (spot.node, before) {
                    (Some(id), Some(before)) => self.was(&spot, id, before)?,
                    (None, None) => self.put(&spot, Kind::File(FileContent::Upper(Buffer::empty())))?,
                    _ => return Err(self.moved_on(&spot)),
                };
                self.fill(id, content)?;
                self.node_mut(id)?.mode = Some(after.mode);
                self.settle(id)
            }
            Effect::FileDelete { path, before, .. } => {
                let spot = self.spot(mount, path)?;
                let id = spot.node.ok_or_else(|| self.moved_on(&spot))?;
                self.was(&spot, id, before)?;
                self.detach(id)
            }
            Effect::FileRename { from, to, before, .. } => {
                let (source, target) = (self.spot(mount, from)?, self.spot(mount, to)?);
                let id = source.node.ok_or_else(|| self.moved_on(&source))?;
                self.was(&source, id, before)?;
                if target.node.is_some() {
                    return Err(self.moved_on(&target));
                }
                self.vacate(source.parent, &source.name)?;
                self.attach(target.parent, &target.name, id)?;
                self.node_mut(id)?.path = to.clone();
                self.settle(id)
            }
            Effect::FileMetadata { path, after, .. } => {
                let spot = self.spot(mount, path)?;
                let id = spot.node.ok_or_else(|| self.moved_on(&spot))?;
                self.node_mut(id)?.times = Some(after.modified_ns);
                self.settle(id)
            }
            Effect::DirCreate { path, .. } => {
                let spot = self.spot(mount, path)?;
                if spot.node.is_some() {
                    return Err(self.moved_on(&spot));
                }
                self.put(&spot, Kind::Directory(Directory::default())).map(|_| ())
            }
            Effect::DirDelete { path, .. } => {
                let spot = self.spot(mount, path)?;
                let id = spot.node.ok_or_else(|| self.moved_on(&spot))?;
                self.detach(id)
            }
            Effect::HttpRequest(_)
            | Effect::MessageSend(_)
            | Effect::KvSet { .. }
            | Effect::KvDelete { .. }
            | Effect::KvAdd { .. } => Ok(()),
        }
    }

    /// Walk to the place of an effect, through the merged tree as far as it is laid.
    fn spot(&mut self, mount: usize, path: &WorkspacePath) -> Result<Spot, StageError> {
        let stale = StageError::Stale { workspace: self.mount(mount)?.root.name().clone(), path: path.clone() };
        let mut parent = self.mount(mount)?.node;
        let mut names = path.as_str().split('/').peekable();
        while let Some(name) = names.next() {
            let node = self.lookup(parent, name)?;
            if names.peek().is_none() {
                return Ok(Spot { mount, path: path.clone(), parent, name: name.into(), node });
            }
            parent = match node {
                Some(id) if self.node(id)?.is_directory() => id,
                _ => return Err(stale),
            };
        }
        Err(stale)
    }

    /// The error for a world that is not what the effect was made for.
    fn moved_on(&self, spot: &Spot) -> StageError {
        match self.mount(spot.mount) {
            Ok(mount) => StageError::Stale { workspace: mount.root.name().clone(), path: spot.path.clone() },
            Err(error) => error,
        }
    }

    /// Whether a lower file still looks like what an effect says was there. Its digest is what the effect says.
    fn was(&mut self, spot: &Spot, id: NodeId, before: &FileState) -> Result<NodeId, StageError> {
        let same = match &mut self.node_mut(id)?.lower {
            Some(lower) => {
                let digest = *lower.digest.get_or_insert(before.sha256);
                lower.seen.size == before.size && lower.seen.mode == before.mode && digest == before.sha256
            }
            None => false,
        };
        if same { Ok(id) } else { Err(self.moved_on(spot)) }
    }

    fn put(&mut self, spot: &Spot, kind: Kind) -> Result<NodeId, StageError> {
        let (mount, path) = (spot.mount, spot.path.clone());
        let id = self.add(NewNode { mount, path, parent: Some(spot.parent), lower: None, kind })?;
        self.attach(spot.parent, &spot.name, id)?;
        Ok(id)
    }

    /// Give a file this content.
    fn fill(&mut self, id: NodeId, content: &Content) -> Result<(), StageError> {
        self.charge_bytes(self.staged_size(id)?, content.size())?;
        let mut buffer = Buffer::empty();
        let mut reader = content.reader();
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut at = 0;
        loop {
            let count = reader.read(&mut chunk)?;
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            buffer.write_at(&mut self.spool, at, bytes)?;
            at = at.saturating_add(count as u64);
        }
        self.node_mut(id)?.kind = Kind::File(FileContent::Upper(buffer));
        Ok(())
    }

    fn staged_size(&self, id: NodeId) -> Result<u64, StageError> {
        match &self.node(id)?.kind {
            Kind::File(FileContent::Upper(buffer)) => Ok(buffer.size()),
            _ => Ok(0),
        }
    }
}
