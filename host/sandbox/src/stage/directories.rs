//! Directories of the merged tree: list, make, remove, and unlinking of files.
//!
//! A listing is read from the lower layer once, as a whole, because its digest is an observation; the guest then walks it
//! by name, so that any number of open listings costs nothing and entries that change meanwhile are seen as
//! they are. The order is that of the bytes of the names, on every machine.

use std::ops::Bound;

use toolkeep_core::plan::EntryKind;

use super::resolve::Place;
use super::tree::{Directory, Kind, NodeId, Tree};
use super::{Handle, RefusedKind, StageError};

impl Tree {
    pub(super) fn list(&mut self, id: NodeId) -> Result<(), StageError> {
        self.node(id)?.directory()?;
        self.may_enter("list", id)?;
        self.load_listing(id)
    }

    pub(super) fn entry_after(
        &self,
        id: NodeId,
        after: Option<&str>,
    ) -> Result<Option<(String, EntryKind, Option<RefusedKind>)>, StageError> {
        let held = self.node(id)?.directory()?;
        let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
        loop {
            let range = (from, Bound::Unbounded);
            let slot = held.slots.range::<str, _>(range).next();
            let listed = held.listing.as_ref().and_then(|listing| listing.names.range::<str, _>(range).next());
            match (slot, listed) {
                (None, None) => return Ok(None),
                (Some((name, slot)), listed) if listed.is_none_or(|(other, _)| name <= other) => {
                    if let Some(now) = slot.now {
                        return self.entry(name, now).map(Some);
                    }
                    from = Bound::Excluded(name);
                }
                (_, Some((name, kind))) => {
                    let refused = (*kind == EntryKind::Refused).then_some(RefusedKind::Unknown);
                    return Ok(Some((name.to_string(), *kind, refused)));
                }
                (Some(_), None) => return Ok(None),
            }
        }
    }

    fn entry(&self, name: &str, id: NodeId) -> Result<(String, EntryKind, Option<RefusedKind>), StageError> {
        let (kind, refused) = match &self.node(id)?.kind {
            Kind::File(_) => (EntryKind::File, None),
            Kind::Directory(_) => (EntryKind::Directory, None),
            Kind::Symlink => (EntryKind::Symlink, None),
            Kind::Refused(kind) => (EntryKind::Refused, Some(*kind)),
        };
        Ok((name.to_owned(), kind, refused))
    }

    /// Whether the merged directory has no entries; its lower entries become part of the read set.
    pub(super) fn is_empty(&mut self, id: NodeId) -> Result<bool, StageError> {
        self.load_listing(id)?;
        Ok(self.entry_after(id, None)?.is_none())
    }

    pub(super) fn create_directory(&mut self, base: &Handle, text: &str) -> Result<(), StageError> {
        let place = self.resolve("create-directory", base.node, text, false)?;
        if let Some(id) = place.node {
            self.observe(id)?;
            return Err(StageError::Exists);
        }
        self.add_at("create-directory", &place, Kind::Directory(Directory::default())).map(|_| ())
    }

    pub(super) fn remove_directory(&mut self, base: &Handle, text: &str) -> Result<(), StageError> {
        let (id, place) = self.removable("remove-directory", base, text)?;
        if !self.node(id)?.is_directory() {
            return Err(StageError::NotDirectory);
        }
        if place.name.is_none() || self.node(id)?.parent.is_none() {
            return Err(StageError::Invalid);
        }
        self.not_through_a_link("remove-directory", &place, text)?;
        self.may_write("remove-directory", id)?;
        if !self.is_empty(id)? {
            return Err(StageError::NotEmpty);
        }
        self.detach(id)
    }

    pub(super) fn unlink(&mut self, base: &Handle, text: &str) -> Result<(), StageError> {
        let (id, place) = self.removable("unlink", base, text)?;
        if self.node(id)?.is_directory() {
            return Err(StageError::IsDirectory);
        }
        self.not_through_a_link("unlink", &place, text)?;
        self.may_write("unlink", id)?;
        self.detach(id)
    }

    fn removable(&mut self, operation: &'static str, base: &Handle, text: &str) -> Result<(NodeId, Place), StageError> {
        let place = self.resolve(operation, base.node, text, false)?;
        let id = place.node.ok_or(StageError::NoEntry)?;
        self.observe(id)?;
        Ok((id, place))
    }
}
