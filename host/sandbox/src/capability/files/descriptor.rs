//! The methods of descriptors and listings.
//!
//! Paths are handed to the stage as the guest wrote them; everything about grammar, links and grants is decided there.

use toolkeep_core::event::Answer;
use wasmtime::component::{Resource, ResourceTableError};
use wasmtime_wasi::p2::bindings::filesystem::types::{
    Advice, Descriptor, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry, DirectoryEntryStream,
    Filesize, HostDescriptor, HostDirectoryEntryStream, MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{FsError, FsResult};
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream};

use super::answer::{shown, stat_of, time_from, type_of};
use super::stream::{Reader, Target, Writer};
use super::{Entries, FilesView, Open};
use crate::stage::{CHUNK_BYTES, OpenHow, StageError};

/// Keeps the hashes of nodes away from 0, which some guests take for "none".
const HASH_BASE: u64 = 1;

fn nothing<T>(_: &T) -> Option<String> {
    None
}

fn about(open: &Open, rest: &str) -> String {
    format!("#{} {rest}", open.handle.number())
}

fn follows(flags: PathFlags) -> bool {
    flags.contains(PathFlags::SYMLINK_FOLLOW)
}

impl HostDescriptor for FilesView<'_> {
    async fn advise(&mut self, fd: Resource<Descriptor>, _: Filesize, _: Filesize, _: Advice) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = if open.handle.is_directory() { Err(StageError::IsDirectory) } else { Ok(()) };
        self.answer("wasi:filesystem/types#descriptor.advise", about(open, ""), result, nothing)
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.open(&fd)?;
        Ok(())
    }

    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.open(&fd)?;
        Ok(())
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        let handle = &self.open(&fd)?.handle;
        let mut flags = DescriptorFlags::empty();
        if handle.reads() {
            flags |= DescriptorFlags::READ;
        }
        if handle.writes() {
            flags |= if handle.is_directory() { DescriptorFlags::MUTATE_DIRECTORY } else { DescriptorFlags::WRITE };
        }
        Ok(flags)
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        let directory = self.open(&fd)?.handle.is_directory();
        Ok(if directory { DescriptorType::Directory } else { DescriptorType::RegularFile })
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = open.stage.set_size(&open.handle, size);
        self.answer("wasi:filesystem/types#descriptor.set-size", about(open, &size.to_string()), result, nothing)
    }

    async fn set_times(
        &mut self,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = time_from(&open.stage, accessed)
            .and_then(|_| time_from(&open.stage, modified))
            .and_then(|modified| open.stage.set_times(&open.handle, modified));
        self.answer("wasi:filesystem/types#descriptor.set-times", about(open, ""), result, nothing)
    }

    async fn read(
        &mut self,
        fd: Resource<Descriptor>,
        length: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        let import = "wasi:filesystem/types#descriptor.read";
        let open = self.open(&fd)?;
        match open.stage.read_at(&open.handle, offset, length) {
            Ok(bytes) => {
                self.recorder.bytes(import, about(open, &offset.to_string()), &bytes);
                let end = bytes.is_empty() && length > 0;
                Ok((bytes, end))
            }
            Err(error) => self.answer(import, about(open, &offset.to_string()), Err(error), nothing),
        }
    }

    async fn write(&mut self, fd: Resource<Descriptor>, bytes: Vec<u8>, offset: Filesize) -> FsResult<Filesize> {
        let open = self.open(&fd)?;
        let part = bytes.get(..CHUNK_BYTES).unwrap_or(&bytes);
        let result = open.stage.write_at(&open.handle, offset, part).map(|()| part.len() as u64);
        let about = about(open, &offset.to_string());
        self.answer("wasi:filesystem/types#descriptor.write", about, result, |count| Some(count.to_string()))
    }

    async fn read_directory(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DirectoryEntryStream>> {
        let open = self.open(&fd)?;
        let result = open.stage.list(&open.handle);
        let entries = Entries { directory: open.handle.clone(), stage: open.stage.clone(), after: None };
        self.answer("wasi:filesystem/types#descriptor.read-directory", about(open, ""), result, nothing)?;
        Ok(Resource::new_own(self.table.push(entries)?.rep()))
    }

    async fn create_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = open.stage.create_directory(&open.handle, &path);
        self.answer("wasi:filesystem/types#descriptor.create-directory-at", about(open, &path), result, nothing)
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        let open = self.open(&fd)?;
        let result = open.stage.stat(&open.handle);
        let import = "wasi:filesystem/types#descriptor.stat";
        self.answer(import, about(open, ""), result, |stat| Some(shown(stat))).map(|stat| stat_of(&stat))
    }

    async fn stat_at(&mut self, fd: Resource<Descriptor>, flags: PathFlags, path: String) -> FsResult<DescriptorStat> {
        let open = self.open(&fd)?;
        let result = open.stage.stat_at(&open.handle, &path, follows(flags)).map(|(stat, _)| stat);
        let import = "wasi:filesystem/types#descriptor.stat-at";
        self.answer(import, about(open, &path), result, |stat| Some(shown(stat))).map(|stat| stat_of(&stat))
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = time_from(&open.stage, accessed)
            .and_then(|_| time_from(&open.stage, modified))
            .and_then(|modified| open.stage.set_times_at(&open.handle, &path, follows(flags), modified));
        self.answer("wasi:filesystem/types#descriptor.set-times-at", about(open, &path), result, nothing)
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        _: PathFlags,
        _: String,
        to: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        self.open(&fd)?;
        let open = self.open(&to)?;
        let result = open.stage.refuse_link("link", &path);
        self.answer("wasi:filesystem/types#descriptor.link-at", about(open, &path), result, nothing)
    }

    async fn symlink_at(&mut self, fd: Resource<Descriptor>, _: String, path: String) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = open.stage.refuse_link("symlink", &path);
        self.answer("wasi:filesystem/types#descriptor.symlink-at", about(open, &path), result, nothing)
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        open_flags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let open = self.open(&fd)?;
        let synced = DescriptorFlags::FILE_INTEGRITY_SYNC
            | DescriptorFlags::DATA_INTEGRITY_SYNC
            | DescriptorFlags::REQUESTED_WRITE_SYNC;
        let how = OpenHow {
            follow: follows(path_flags),
            create: open_flags.contains(OpenFlags::CREATE),
            exclusive: open_flags.contains(OpenFlags::EXCLUSIVE),
            truncate: open_flags.contains(OpenFlags::TRUNCATE),
            directory: open_flags.contains(OpenFlags::DIRECTORY),
            read: flags.contains(DescriptorFlags::READ),
            write: flags.contains(DescriptorFlags::WRITE),
        };
        let result = if flags.intersects(synced) {
            Err(StageError::Unsupported)
        } else {
            open.stage.open(&open.handle, &path, how)
        };
        let stage = open.stage.clone();
        let import = "wasi:filesystem/types#descriptor.open-at";
        let handle = self.answer(import, about(open, &path), result, |handle| Some(format!("#{}", handle.number())))?;
        Ok(self.push(Open { handle, stage })?)
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Open>::new_own(fd.rep()))?;
        Ok(())
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        let open = self.open(&fd)?;
        let result = open.stage.read_link(&open.handle, &path);
        let import = "wasi:filesystem/types#descriptor.readlink-at";
        self.answer(import, about(open, &path), result, |target| Some(target.clone()))
    }

    async fn remove_directory_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = open.stage.remove_directory(&open.handle, &path);
        self.answer("wasi:filesystem/types#descriptor.remove-directory-at", about(open, &path), result, nothing)
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        old: String,
        to: Resource<Descriptor>,
        new: String,
    ) -> FsResult<()> {
        let (from, to) = (self.open(&fd)?, self.open(&to)?);
        let result = from.stage.rename(&from.handle, &old, &to.handle, &new);
        let about = format!("{} {}", about(from, &old), about(to, &new));
        self.answer("wasi:filesystem/types#descriptor.rename-at", about, result, nothing)
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        let open = self.open(&fd)?;
        let result = open.stage.unlink(&open.handle, &path);
        self.answer("wasi:filesystem/types#descriptor.unlink-file-at", about(open, &path), result, nothing)
    }

    fn read_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynInputStream>> {
        let open = self.open(&fd)?;
        let result = ready(open, open.handle.reads());
        let reader = Reader { stage: open.stage.clone(), file: open.handle.clone(), position: offset, closed: false };
        let about = about(open, &offset.to_string());
        self.answer("wasi:filesystem/types#descriptor.read-via-stream", about, result, nothing)?;
        Ok(self.table.push(Box::new(reader) as DynInputStream)?)
    }

    fn write_via_stream(&mut self, fd: Resource<Descriptor>, offset: Filesize) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, "wasi:filesystem/types#descriptor.write-via-stream", Target::Position(offset))
    }

    fn append_via_stream(&mut self, fd: Resource<Descriptor>) -> FsResult<Resource<DynOutputStream>> {
        self.writer(&fd, "wasi:filesystem/types#descriptor.append-via-stream", Target::End)
    }

    async fn is_same_object(&mut self, a: Resource<Descriptor>, b: Resource<Descriptor>) -> wasmtime::Result<bool> {
        Ok(self.open(&a)?.handle.number() == self.open(&b)?.handle.number())
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        Ok(hash_of(self.open(&fd)?.handle.number()))
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        let open = self.open(&fd)?;
        let result = open.stage.stat_at(&open.handle, &path, follows(flags)).map(|(_, number)| number);
        let import = "wasi:filesystem/types#descriptor.metadata-hash-at";
        self.answer(import, about(open, &path), result, |number| Some(number.to_string())).map(hash_of)
    }
}

/// A node's number identifies it through copy-up and rename, and is the same whenever the same calls are made.
const fn hash_of(number: u64) -> MetadataHashValue {
    MetadataHashValue { lower: number.saturating_add(HASH_BASE), upper: 0 }
}

/// Whether a stream over the descriptor makes sense.
const fn ready(open: &Open, allowed: bool) -> Result<(), StageError> {
    if open.handle.is_directory() {
        Err(StageError::IsDirectory)
    } else if allowed {
        Ok(())
    } else {
        Err(StageError::NotOpenedFor)
    }
}

impl FilesView<'_> {
    fn writer(
        &mut self,
        fd: &Resource<Descriptor>,
        import: &'static str,
        target: Target,
    ) -> FsResult<Resource<DynOutputStream>> {
        let open = self.open(fd)?;
        let result = ready(open, open.handle.writes());
        let writer = Writer { stage: open.stage.clone(), file: open.handle.clone(), target, permit: 0, closed: false };
        self.answer(import, about(open, ""), result, nothing)?;
        Ok(self.table.push(Box::new(writer) as DynOutputStream)?)
    }

    fn entries(&mut self, stream: &Resource<DirectoryEntryStream>) -> Result<&mut Entries, ResourceTableError> {
        self.table.get_mut(&Resource::<Entries>::new_borrow(stream.rep()))
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        let import = "wasi:filesystem/types#directory-entry-stream.read-directory-entry";
        let entries = self.entries(&stream)?;
        let number = entries.directory.number();
        let result = entries.stage.entry_after(&entries.directory, entries.after.as_deref());
        if let Ok(Some((name, ..))) = &result {
            entries.after = Some(name.clone());
        }
        match result {
            Ok(Some((name, entry, refused))) => {
                self.recorder.event(import, format!("#{number}"), Answer::Value(name.clone()));
                Ok(Some(DirectoryEntry { type_: type_of(entry, refused), name }))
            }
            Ok(None) => {
                self.recorder.done(import, format!("#{number}"));
                Ok(None)
            }
            Err(error) => {
                let failed: Result<(), FsError> = self.answer(import, format!("#{number}"), Err(error), nothing);
                failed.map(|()| None)
            }
        }
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        self.table.delete(Resource::<Entries>::new_own(stream.rep()))?;
        Ok(())
    }
}
