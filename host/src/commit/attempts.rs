//! Notes of attempts: which directories hold temporaries of a commit whose intent is not durable yet.
//!
//! Without them a crash between preparing and the intent would leave files that nobody knows of. A note is written before
//! the first temporary is made and wiped when the intent is durable or the temporaries are gone. Notes lie in slots of one
//! file that is reused, so that a commit neither makes nor removes a file for its own; a note that does not fit a slot
//! gets a file. Notes are not flushed, so only a power loss in that very moment can lose one. The next start removes what
//! the notes name.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::files::{Nest, Roots, TransactionId, sweep_orphans};

/// The file of slots.
const SLOTS: &str = "slots";
/// Bytes of a slot: one page, which the kernel writes as one.
const SLOT_BYTES: usize = 4096;
/// Most notes that a start looks at; one is left per commit that was under way.
const NOTES_MAX: usize = 10_000;
/// What an empty slot begins with; a note is JSON and ends with it.
const END: u8 = b'\n';

/// The folder of notes.
#[derive(Debug)]
pub(super) struct Attempts {
    folder: PathBuf,
    slots: File,
    free: Mutex<Free>,
}

/// Slots that nobody uses.
#[derive(Debug, Default)]
struct Free {
    wiped: Vec<u64>,
    next: u64,
}

/// A note that is to be removed when its commit is past the point where it could be forgotten.
#[derive(Debug)]
#[must_use = "remove the note when the temporaries are known otherwise, or gone"]
pub(super) struct Note(Place);

#[derive(Debug)]
enum Place {
    Slot(u64),
    File(PathBuf),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    transaction: TransactionId,
    nests: Vec<Nest>,
}

impl Attempts {
    /// Open or make the folder.
    ///
    /// # Errors
    /// It cannot be made.
    pub(super) fn open(folder: &Path) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let mut options = fs::OpenOptions::new();
        let slots = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(folder.join(SLOTS))?;
        // What the last life left stays until it is swept: new notes go behind it.
        let next = slots.metadata()?.len().div_ceil(SLOT_BYTES as u64);
        Ok(Self { folder: folder.to_path_buf(), slots, free: Mutex::new(Free { wiped: Vec::new(), next }) })
    }

    fn free(&self) -> MutexGuard<'_, Free> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Note where an attempt is about to make temporaries.
    ///
    /// # Errors
    /// The note cannot be written: nothing must be prepared.
    pub(super) fn note(&self, transaction: &TransactionId, nests: Vec<Nest>) -> io::Result<Note> {
        let mut text = serde_json::to_vec(&Written { transaction: transaction.clone(), nests })?;
        text.push(END);
        if text.len() > SLOT_BYTES {
            let path = self.folder.join(transaction.as_str());
            fs::write(&path, text)?;
            return Ok(Note(Place::File(path)));
        }
        let slot = {
            let mut free = self.free();
            free.wiped.pop().unwrap_or_else(|| {
                free.next += 1;
                free.next - 1
            })
        };
        match self.slots.write_all_at(&text, slot * SLOT_BYTES as u64) {
            Ok(()) => Ok(Note(Place::Slot(slot))),
            Err(error) => {
                self.free().wiped.push(slot);
                Err(error)
            }
        }
    }

    /// Remove a note: the temporaries are in a durable intent, or gone.
    pub(super) fn remove(&self, note: &Note) {
        let removed = match &note.0 {
            Place::File(path) => fs::remove_file(path),
            Place::Slot(slot) => {
                let wiped = self.slots.write_all_at(&[END], slot * SLOT_BYTES as u64);
                if wiped.is_ok() {
                    self.free().wiped.push(*slot);
                }
                wiped
            }
        };
        if let Err(error) = removed {
            tracing::warn!(%error, "the note of an attempt could not be removed; the next start removes it");
        }
    }

    /// Remove the note that the last life left of an attempt whose intent is durable.
    ///
    /// # Errors
    /// The note exists and cannot be removed.
    pub(super) fn forget(&self, transaction: &TransactionId) -> io::Result<()> {
        for (slot, note) in self.left()? {
            if note.transaction == *transaction {
                self.slots.write_all_at(&[END], slot * SLOT_BYTES as u64)?;
            }
        }
        match fs::remove_file(self.folder.join(transaction.as_str())) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The notes in slots, with their slots.
    fn left(&self) -> io::Result<Vec<(u64, Written)>> {
        let (mut found, mut slot) = (Vec::new(), vec![0; SLOT_BYTES]);
        for index in 0..self.free().next.min(NOTES_MAX as u64) {
            let length = self.slots.read_at(&mut slot, index * SLOT_BYTES as u64)?;
            found.extend(slot.get(..length).and_then(note_in).map(|note| (index, note)));
        }
        Ok(found)
    }

    /// Remove the temporaries of attempts that never came to an intent, and all notes. Says how many there were. Call it
    /// before the first attempt of this life.
    ///
    /// # Errors
    /// The folder or a workspace cannot be read; what is left is tried again at the next start.
    pub(super) fn sweep(&self, roots: &Roots) -> io::Result<usize> {
        let sweep = |note: &Written| sweep_orphans(&note.nests, &note.transaction, roots).map_err(io::Error::other);
        let mut removed = 0;
        for (_, note) in self.left()? {
            removed += sweep(&note)?;
        }
        self.slots.set_len(0)?;
        *self.free() = Free::default();
        for entry in fs::read_dir(&self.folder)?.take(NOTES_MAX) {
            let path = entry?.path();
            let id = path.file_name().and_then(|name| name.to_str()).map(str::to_owned).unwrap_or_default();
            if TransactionId::try_from(id).is_ok() {
                if let Some(note) = note_in(&fs::read(&path)?) {
                    removed += sweep(&note)?;
                }
                fs::remove_file(&path)?;
            }
        }
        Ok(removed)
    }
}

/// The note at the start of a text. One that was cut short was written before any temporary was made.
fn note_in(text: &[u8]) -> Option<Written> {
    let end = text.iter().position(|byte| *byte == END)?;
    serde_json::from_slice(text.get(..end)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::path::WorkspacePath;

    fn folder(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("toolkeep-attempts-{}-{name}", std::process::id()));
        fs::remove_dir_all(&folder).ok();
        folder
    }

    fn nests(many: usize) -> Vec<Nest> {
        let nest = |number| Nest {
            workspace: "w".parse().expect("name"),
            directory: WorkspacePath::try_from(format!("directory-{number}")).expect("path"),
        };
        (0..many).map(nest).collect()
    }

    fn id(number: u8) -> TransactionId {
        TransactionId::new([number; 16])
    }

    /// As the next life finds them.
    fn left(folder: &Path) -> Vec<(TransactionId, Vec<Nest>)> {
        let next = Attempts::open(folder).expect("open");
        next.left().expect("read").into_iter().map(|(_, note)| (note.transaction, note.nests)).collect()
    }

    #[test]
    fn t_f12_a_note_is_found_by_the_next_life_until_it_is_removed_and_its_slot_is_used_again() {
        let folder = folder("slots");
        let attempts = Attempts::open(&folder).expect("open");
        let one = attempts.note(&id(1), nests(2)).expect("noted");
        let two = attempts.note(&id(2), nests(3)).expect("noted");
        assert_eq!(left(&folder), [(id(1), nests(2)), (id(2), nests(3))]);
        attempts.remove(&one);
        assert_eq!(left(&folder), [(id(2), nests(3))]);
        let three = attempts.note(&id(3), nests(1)).expect("noted");
        assert_eq!(left(&folder), [(id(3), nests(1)), (id(2), nests(3))], "in the slot of the first");
        attempts.remove(&two);
        attempts.remove(&three);
        assert_eq!(left(&folder), []);
        assert!(fs::metadata(folder.join(SLOTS)).expect("slots").len() <= 2 * 4096, "three notes, two slots");
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_new_life_writes_behind_what_the_last_left_and_forgets_single_notes() {
        let folder = folder("lives");
        let _killed = Attempts::open(&folder).expect("open").note(&id(1), nests(1)).expect("noted");
        let attempts = Attempts::open(&folder).expect("open");
        let _killed = attempts.note(&id(2), nests(1)).expect("noted");
        assert_eq!(left(&folder).len(), 2, "the old note is not overwritten");
        attempts.forget(&id(1)).expect("forgotten");
        attempts.forget(&id(9)).expect("what is not there is forgotten already");
        assert_eq!(left(&folder), [(id(2), nests(1))]);
        assert_eq!(attempts.sweep(&Roots::new()).expect("swept"), 0);
        assert_eq!(left(&folder), []);
        fs::remove_dir_all(folder).expect("removed");
    }

    #[test]
    fn a_note_that_does_not_fit_a_slot_is_a_file_and_one_that_was_cut_short_is_none() {
        let folder = folder("large");
        let attempts = Attempts::open(&folder).expect("open");
        let text =
            |many| serde_json::to_vec(&Written { transaction: id(1), nests: nests(many) }).expect("json").len() + 1;
        let fits = (0..).take_while(|many| text(*many) <= SLOT_BYTES).count() - 1;
        let small = attempts.note(&id(1), nests(fits)).expect("noted");
        assert!(matches!(small, Note(Place::Slot(_))));
        let large = attempts.note(&id(2), nests(fits + 1)).expect("noted");
        assert!(matches!(&large, Note(Place::File(path)) if path.exists()));
        attempts.remove(&large);
        assert!(!folder.join(id(2).as_str()).exists());
        assert!(note_in(b"{\"transaction\":\"00").is_none() && note_in(b"\n").is_none() && note_in(b"").is_none());
        fs::remove_dir_all(folder).expect("removed");
    }
}
