//! Pools: one engine with its slots for each tenant, so that memory of one tenant is never reused for another (D14).
//!
//! Pools are made when a tenant first needs one and released when others need room and it is idle. What was loaded into a
//! released pool is retired: a [`Loaded`] keeps neither the engine nor the memory alive, so a cache of them
//! may be as large as it likes. A full pool makes callers wait a bounded time in a bounded queue.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use rustix::fs::SealFlags;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TenantName;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use crate::engine::{self, POOL_SLOTS, Ticker, Ticking};
use crate::fault::HostFault;
use crate::lane::Load;
use crate::state::{self, State};
use crate::typed::Door;

/// Pools that live at one time: each reserves address space for its slots.
pub const POOLS_MAX: usize = 16;
/// Executions of one tenant that may wait for a slot.
pub const WAITING_MAX: u32 = 256;
/// How long one of them waits before it is told to come later.
pub const WAIT_MAX: Duration = Duration::from_secs(2);

/// Milliseconds after which a tenant counts as alone again, when no other one did anything.
const MIXED_MS: u64 = 1_000;

/// What the engine says of a component that wants more than a slot of a pool has; the look before compiling knows most
/// of it, but not how large an instance becomes.
const TOO_LARGE_TEXTS: [&str; 2] = ["pooling allocator", "exceeds the configured maximum"];

/// A compiled component, as `host` hands it over.
///
/// # Safety of what it holds
/// `native` is machine code that will be run. Only the artifact store makes one, after it has checked the MAC over exactly
/// these bytes, the engine's fingerprint and the component's digest.
#[derive(Debug, Clone)]
pub struct Artifact {
    /// SHA-256 of the component that it was compiled from.
    pub component: Digest,
    /// What [`crate::compile`] made of it.
    pub native: Native,
}

/// Machine code that nobody can change any more. Cheap to clone.
#[derive(Debug, Clone)]
pub enum Native {
    /// In memory.
    Bytes(Arc<[u8]>),
    /// In an anonymous file (`memfd_create`) that is sealed against every change; its pages are run where they are.
    Sealed(Arc<File>),
}

impl From<Vec<u8>> for Native {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl Native {
    /// The bytes, copied out of a file if they lie in one.
    ///
    /// # Errors
    /// The file cannot be read, or is not sealed.
    pub fn bytes(&self) -> io::Result<Arc<[u8]>> {
        match self {
            Self::Bytes(bytes) => Ok(Arc::clone(bytes)),
            Self::Sealed(file) => {
                check_seals(file)?;
                let mut bytes = vec![0; usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?];
                file.read_exact_at(&mut bytes, 0)?;
                Ok(bytes.into())
            }
        }
    }
}

fn check_seals(file: &File) -> io::Result<()> {
    let (needed, has) = (SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK, rustix::fs::fcntl_get_seals(file)?);
    if has.contains(needed) { Ok(()) } else { Err(io::Error::other("BUG: a file of native code is not sealed")) }
}

/// A component that is ready to run for one tenant.
pub struct Loaded {
    component: Digest,
    uses_files: bool,
    pool: Weak<Pool>,
    ready: RwLock<Option<Arc<Door>>>,
}

impl std::fmt::Debug for Loaded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loaded").field("component", &self.component).finish_non_exhaustive()
    }
}

impl Loaded {
    /// The component.
    #[must_use]
    pub const fn component(&self) -> Digest {
        self.component
    }

    /// Whether it imports `wasi:filesystem`; otherwise an execution needs no stage.
    #[must_use]
    pub const fn uses_files(&self) -> bool {
        self.uses_files
    }

    /// Whether its pool was released: load the component again.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.pool.strong_count() == 0 || self.ready().is_none()
    }

    pub(crate) fn pool(&self) -> Result<Arc<Pool>, HostFault> {
        self.pool.upgrade().ok_or(HostFault::Retired)
    }

    pub(crate) fn ready(&self) -> Option<Arc<Door>> {
        self.ready.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn retire(&self) {
        *self.ready.write().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// One tenant's engine.
pub(crate) struct Pool {
    pub(crate) engine: Engine,
    linker: Linker<State>,
    slots: Arc<Semaphore>,
    waiting: AtomicU32,
    used: AtomicU64,
    number: u64,
    /// What its tenant takes of the processor.
    pub(crate) load: Arc<Load>,
    loaded: Mutex<Vec<Weak<Loaded>>>,
}

impl Pool {
    fn new(number: u64, ticker: &Ticker) -> Result<Self, HostFault> {
        let engine = engine::pooled()?;
        ticker.add(&engine);
        let linker = state::linker(&engine)?;
        let slots = Arc::new(Semaphore::new(POOL_SLOTS as usize));
        let (waiting, used) = (AtomicU32::new(0), AtomicU64::new(0));
        let load = Arc::new(Load::new());
        Ok(Self { engine, linker, slots, waiting, used, number, load, loaded: Mutex::new(Vec::new()) })
    }

    /// A slot, at once or after a bounded wait.
    pub(crate) async fn slot(&self) -> Result<OwnedSemaphorePermit, HostFault> {
        if let Ok(slot) = Arc::clone(&self.slots).try_acquire_owned() {
            return Ok(slot);
        }
        let _place = Place::take(&self.waiting).ok_or(HostFault::Overloaded)?;
        let slot = tokio::time::timeout(WAIT_MAX, Arc::clone(&self.slots).acquire_owned()).await;
        slot.map_err(|_| HostFault::Overloaded)?.map_err(|_| HostFault::Retired)
    }

    fn is_idle(&self) -> bool {
        self.slots.available_permits() == POOL_SLOTS as usize && self.waiting.load(Ordering::Acquire) == 0
    }

    fn load(self: &Arc<Self>, artifact: &Artifact) -> Result<Arc<Loaded>, HostFault> {
        let component = deserialize(&self.engine, &artifact.native)?;
        let uses_files =
            component.component_type().imports(&self.engine).any(|(name, _)| name.starts_with("wasi:filesystem/"));
        let unfit = |error: wasmtime::Error| HostFault::Unfit(format!("{error:#}"));
        let ready = self.linker.instantiate_pre(&component).map_err(unfit).and_then(Door::of)?;
        let loaded = Arc::new(Loaded {
            component: artifact.component,
            uses_files,
            pool: Arc::downgrade(self),
            ready: RwLock::new(Some(Arc::new(ready))),
        });
        let mut all = locked(&self.loaded);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(&loaded));
        Ok(loaded)
    }

    fn retire(&self) {
        self.slots.close();
        for loaded in locked(&self.loaded).drain(..) {
            if let Some(loaded) = loaded.upgrade() {
                loaded.retire();
            }
        }
    }
}

#[expect(unsafe_code, reason = "the one place where native code enters; see the contract of `Artifact`")]
fn deserialize(engine: &Engine, native: &Native) -> Result<Component, HostFault> {
    let unread = |error: io::Error| HostFault::Engine(error.to_string());
    if let Native::Sealed(file) = native {
        check_seals(file).map_err(unread)?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        // SAFETY: an `Artifact` holds exactly what this version's compiler made, because its MAC was checked by the only
        // place that constructs one; the engine refuses bytes of another version or configuration by itself. The file
        // is sealed, so that what is mapped stays what was checked, and it is open, so that the path means it.
        if let Ok(component) = unsafe { Component::deserialize_file(engine, path) } {
            return Ok(component);
        }
        // Where such files may not be mapped as code, or nobody shows descriptors as paths, their bytes are copied.
    }
    let bytes = native.bytes().map_err(unread)?;
    // SAFETY: as above; these bytes are ours alone.
    unsafe { Component::deserialize(engine, &bytes) }.map_err(|error| {
        let text = format!("{error:#}");
        let too_large = TOO_LARGE_TEXTS.iter().any(|known| text.contains(known));
        if too_large { HostFault::Unfit(text) } else { HostFault::engine(error) }
    })
}

/// A place in the queue, given back when dropped.
struct Place<'a>(&'a AtomicU32);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicU32) -> Option<Self> {
        let taken = waiting.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| (n < WAITING_MAX).then_some(n + 1));
        taken.ok().map(|_| Self(waiting))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The pools of all tenants.
pub(crate) struct Pools {
    ticker: Ticker,
    live: Mutex<HashMap<TenantName, Arc<Pool>>>,
    /// Counts loads, to know which pool was used least recently.
    turn: AtomicU64,
    most: usize,
    made: AtomicU64,
    since: Instant,
    /// The pool that was used last, and when, in milliseconds of this daemon's life, it last was another one than before.
    last: AtomicU64,
    mixed_ms: AtomicU64,
}

impl Pools {
    pub(crate) fn new(most: usize) -> Result<Self, HostFault> {
        let most = most.clamp(1, POOLS_MAX);
        Ok(Self {
            ticker: Ticker::start()?,
            live: Mutex::default(),
            turn: AtomicU64::new(0),
            most,
            made: AtomicU64::new(0),
            since: Instant::now(),
            last: AtomicU64::new(0),
            mixed_ms: AtomicU64::new(0),
        })
    }

    /// Epochs advance until the result is dropped.
    pub(crate) fn tick(&self) -> Ticking {
        self.ticker.tick()
    }

    pub(crate) fn load(&self, tenant: &TenantName, artifact: &Artifact) -> Result<Arc<Loaded>, HostFault> {
        let pool = self.pool_of(tenant)?;
        pool.load(artifact)
    }

    /// Remember that a pool was used. Returns whether several were lately.
    pub(crate) fn touch(&self, pool: &Pool) -> bool {
        pool.used.store(self.turn.fetch_add(1, Ordering::Relaxed), Ordering::Relaxed);
        let now_ms = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        if self.last.swap(pool.number, Ordering::Relaxed) != pool.number {
            self.mixed_ms.store(now_ms, Ordering::Relaxed);
        }
        let alone_ms = now_ms.saturating_sub(self.mixed_ms.load(Ordering::Relaxed));
        self.made.load(Ordering::Relaxed) > 1 && alone_ms < MIXED_MS
    }

    fn pool_of(&self, tenant: &TenantName) -> Result<Arc<Pool>, HostFault> {
        let mut live = locked(&self.live);
        if let Some(pool) = live.get(tenant) {
            self.touch(pool);
            return Ok(Arc::clone(pool));
        }
        if live.len() >= self.most {
            let idle = live.iter().filter(|(_, pool)| pool.is_idle());
            let oldest = idle.min_by_key(|(_, pool)| pool.used.load(Ordering::Relaxed)).map(|(name, _)| name.clone());
            let released = oldest.and_then(|name| live.remove(&name)).ok_or(HostFault::Overloaded)?;
            released.retire();
        }
        let number = self.made.fetch_add(1, Ordering::Relaxed) + 1;
        let pool = Arc::new(Pool::new(number, &self.ticker)?);
        self.touch(&pool);
        live.insert(tenant.clone(), Arc::clone(&pool));
        Ok(pool)
    }
}
