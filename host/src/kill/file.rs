//! The file whose presence stops everything: for whoever has a shell and nothing else.
//!
//! It is looked for at the start and whenever something changes in its folder, and at least once a second, so that a
//! system that cannot watch is late and never deaf. What cannot be looked at counts as there. The file is the switch:
//! removing it is the only way to clear it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode, Watcher as _};
use toolkeep_core::kill::KILL_REASON_MAX_BYTES;

/// How long a change may go unnoticed where the folder cannot be watched.
const LOOK_AT_LEAST: Duration = Duration::from_secs(1);
/// What everybody is told where the file says nothing.
const NO_REASON: &str = "the kill file is there";

/// What the file says: the beginning of its first line, or that it says nothing. Nothing if there is no file.
#[must_use]
pub fn look(path: &Path) -> Option<String> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
        Err(error) => return Some(format!("the kill file cannot be looked at: {error}")),
        Ok(found) if !found.is_file() => return Some(NO_REASON.to_owned()),
        Ok(_) => {}
    }
    let said = std::fs::File::open(path).and_then(|file| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut std::io::Read::take(file, KILL_REASON_MAX_BYTES as u64), &mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).lines().next().unwrap_or_default().trim().to_owned())
    });
    match said {
        Ok(said) if !said.is_empty() => Some(said),
        // It went between the two looks.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Ok(_) | Err(_) => Some(NO_REASON.to_owned()),
    }
}

/// Watches for the file, on a thread of its own; ends when this is dropped.
#[derive(Debug)]
pub struct FileWatch {
    ended: Arc<AtomicBool>,
    alarm: Sender<()>,
}

impl FileWatch {
    /// Tell `changed` whenever the file appears, goes, or says something else than `known`.
    ///
    /// # Errors
    /// There cannot be another thread.
    pub fn start(
        path: PathBuf,
        mut known: Option<String>,
        changed: impl Fn(Option<String>) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (alarm, alarms) = channel();
        let ended = Arc::new(AtomicBool::new(false));
        let (over, watcher) = (Arc::clone(&ended), watched(&path, alarm.clone()));
        let look_on = move || {
            // Its end is the end of the watching.
            let _watcher = watcher;
            while !over.load(Ordering::Acquire) {
                let now = look(&path);
                if now != known {
                    changed(now.clone());
                    known = now;
                }
                let _alarm_or_time = alarms.recv_timeout(LOOK_AT_LEAST);
            }
        };
        std::thread::Builder::new().name("toolkeep-kill".to_owned()).spawn(look_on)?;
        Ok(Self { ended, alarm })
    }
}

impl Drop for FileWatch {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Release);
        let _gone_already = self.alarm.send(());
    }
}

/// Rings whenever something happens in the folder of the file.
fn watched(path: &Path, alarm: Sender<()>) -> Option<RecommendedWatcher> {
    let folder = path.parent()?;
    let ring = move |_: notify::Result<notify::Event>| {
        let _nobody_listens = alarm.send(());
    };
    let mut watcher = notify::recommended_watcher(ring).ok()?;
    match watcher.watch(folder, RecursiveMode::NonRecursive) {
        Ok(()) => Some(watcher),
        Err(error) => {
            tracing::warn!(%error, folder = %folder.display(), "the folder of the kill file is not watched; it is looked at every second");
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r25_the_file_is_noticed_whatever_it_is_and_when_it_goes() {
        let folder = std::env::temp_dir().join(format!("tk-kill-{}", std::process::id()));
        // A run that failed may have left one of the same number.
        let _nothing_left = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let path = folder.join("kill");
        assert_eq!(look(&path), None);
        let (tell, told) = channel();
        let watch = FileWatch::start(path.clone(), None, move |said| drop(tell.send(said))).expect("a thread");
        std::fs::write(&path, "").expect("file");
        assert_eq!(told.recv().expect("noticed").as_deref(), Some(NO_REASON));
        std::fs::write(folder.join("next"), "payments run wild\nand more").expect("file");
        std::fs::rename(folder.join("next"), &path).expect("file");
        assert_eq!(told.recv().expect("noticed").as_deref(), Some("payments run wild"));
        std::fs::remove_file(&path).expect("gone");
        assert_eq!(told.recv().expect("noticed"), None);
        std::fs::create_dir(&path).expect("folder");
        assert_eq!(told.recv().expect("noticed").as_deref(), Some(NO_REASON), "anything of that name counts");
        drop(watch);
        std::fs::remove_dir_all(&folder).expect("gone");
    }
}
