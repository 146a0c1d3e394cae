//! Loading: from a component file to compiled code in the sandbox, at most once per tenant.
//!
//! Compilation runs in a child process with limits; what it gives is kept under a MAC and never trusted without it. A
//! component that was refused is remembered, so that a second try costs nothing. Concurrent first calls of one component
//! load it once, and compile it once if they must.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use moka::sync::Cache;
use tokio::sync::OnceCell;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TenantName;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::compile::{self, CompileLimits, CompileRefused};
use toolkeep_sandbox::fault::HostFault;
use toolkeep_sandbox::pool::{Artifact, Loaded};
use toolkeep_sandbox::sandbox::Sandbox;

use crate::artifacts::Artifacts;
use crate::catalog::ComponentFile;

/// Loaded components kept per daemon: the least recently used are dropped beyond it.
const LOADED_MAX: u64 = 2_000;
/// When a caller may try again whose component was not compiled in time: the machine needs a moment.
const RETRY_AFTER_MS: u64 = 5_000;
/// Components compiled at one time: compiling takes a core each.
const COMPILING_MAX: usize = 2;

/// Compiles, caches and loads components.
#[derive(Debug)]
pub struct Loader {
    sandbox: Arc<Sandbox>,
    artifacts: Artifacts,
    worker: PathBuf,
    loaded: Cache<(TenantName, Digest), Arc<Loaded>>,
    loading: Flights<(TenantName, Digest), Arc<Loaded>>,
    compiling: Flights<Digest, Artifact>,
    slots: tokio::sync::Semaphore,
}

/// Work that is under way, by what it is about: whoever wants the same waits for it and gets the same answer.
#[derive(Debug)]
struct Flights<K, V>(Mutex<HashMap<K, Flight<V>>>);

/// One piece of work, and what came of it.
type Flight<V> = Arc<OnceCell<Result<V, Refusal>>>;

impl<K: Hash + Eq + Clone, V: Clone> Flights<K, V> {
    fn new() -> Self {
        Self(Mutex::default())
    }

    /// Do the work, or wait for whoever does it. If that one goes away, the next who waits begins anew.
    async fn join(&self, about: K, work: impl Future<Output = Result<V, Refusal>>) -> Result<V, Refusal> {
        let flight =
            Arc::clone(self.0.lock().unwrap_or_else(PoisonError::into_inner).entry(about.clone()).or_default());
        let answer = flight.get_or_init(|| work).await.clone();
        let mut under_way = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if under_way.get(&about).is_some_and(|other| Arc::ptr_eq(other, &flight)) {
            under_way.remove(&about);
        }
        answer
    }
}

impl Loader {
    /// `worker` is the program that is started with `compile-worker`: the daemon itself.
    #[must_use]
    pub fn new(sandbox: Arc<Sandbox>, artifacts: Artifacts, worker: PathBuf) -> Self {
        Self {
            sandbox,
            artifacts,
            worker,
            loaded: Cache::builder().max_capacity(LOADED_MAX).build(),
            loading: Flights::new(),
            compiling: Flights::new(),
            slots: tokio::sync::Semaphore::new(COMPILING_MAX),
        }
    }

    /// How many components are ready to run, each counted once for every tenant.
    #[must_use]
    pub fn ready(&self) -> u64 {
        self.loaded.run_pending_tasks();
        self.loaded.entry_count()
    }

    /// The component ready to run for this tenant. First calls of it at the same time load it once.
    ///
    /// # Errors
    /// `tool_trapped` where the component is refused by the compiler or its limits, `internal` where the host fails.
    pub async fn load(&self, tenant: &TenantName, component: &ComponentFile) -> Result<Arc<Loaded>, Refusal> {
        let key = (tenant.clone(), component.digest);
        if let Some(loaded) = self.loaded.get(&key).filter(|loaded| !loaded.is_retired()) {
            return Ok(loaded);
        }
        // Boxed: it happens once for a component, and would make every call's future 25 KB larger.
        Box::pin(self.loading.join(key.clone(), self.load_now(key, component))).await
    }

    async fn load_now(&self, key: (TenantName, Digest), component: &ComponentFile) -> Result<Arc<Loaded>, Refusal> {
        // Somebody may have finished between the look and the flight.
        if let Some(loaded) = self.loaded.get(&key).filter(|loaded| !loaded.is_retired()) {
            return Ok(loaded);
        }
        let (seeker, sandbox, tenant) = (self.seeker(component), Arc::clone(&self.sandbox), key.0.clone());
        // Finding and loading are one piece of work: another thread would have to be woken for the second.
        let found = blocking(move || {
            let found = seeker.seek()?;
            found.map(|artifact| loaded(&sandbox, &tenant, &artifact)).transpose()
        });
        let loaded = match found.await?? {
            Some(found) => found,
            None => {
                let artifact = self.artifact(component).await?;
                let (sandbox, tenant) = (Arc::clone(&self.sandbox), key.0.clone());
                blocking(move || loaded(&sandbox, &tenant, &artifact)).await??
            }
        };
        self.loaded.insert(key, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Compile the component if no artifact of it is cached. Whoever asks at the same time gets the same answer.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn artifact(&self, component: &ComponentFile) -> Result<Artifact, Refusal> {
        let seek_or_compile = async {
            let seeker = self.seeker(component);
            match blocking(move || seeker.seek()).await?? {
                Some(found) => Ok(found),
                None => self.compile(component).await,
            }
        };
        self.compiling.join(component.digest, seek_or_compile).await
    }

    fn seeker(&self, component: &ComponentFile) -> Seeker {
        Seeker {
            artifacts: self.artifacts.clone(),
            component: component.digest,
            limits: limits_key(limits_of(component)),
            fingerprint: self.sandbox.fingerprint().to_owned(),
        }
    }

    async fn compile(&self, component: &ComponentFile) -> Result<Artifact, Refusal> {
        let _slot = self.slots.acquire().await.map_err(|e| internal(&e))?;
        let path = component.path.clone();
        let wasm = blocking(move || std::fs::read(path))
            .await?
            .map_err(|_| Refusal::new(Code::Internal, "the component file cannot be read any more"))?;
        if Digest::of(&wasm) != component.digest {
            return Err(Refusal::new(Code::Internal, "the component file changed since the manifest was read")
                .hint("run `toolkeep tools install` again"));
        }
        let wasm =
            blocking(move || compile::prescreen(&wasm).map(|_| wasm)).await?.map_err(|e| refused(&e.to_string()))?;
        let limits = limits_of(component);
        let compiled = compile::in_child(&self.worker, &wasm, limits).await;
        let (artifacts, digest) = (self.artifacts.clone(), component.digest);
        let fingerprint = self.sandbox.fingerprint().to_owned();
        blocking(move || keep(&artifacts, digest, &fingerprint, limits, compiled)).await?
    }
}

/// Looks for what is known of a component.
struct Seeker {
    artifacts: Artifacts,
    component: Digest,
    limits: String,
    fingerprint: String,
}

impl Seeker {
    /// Its artifact, if there is one. Blocks.
    fn seek(&self) -> Result<Option<Artifact>, Refusal> {
        if let Some(native) = self.artifacts.get(&self.component, &self.fingerprint) {
            return Ok(Some(Artifact { component: self.component, native }));
        }
        match self.artifacts.refused(&self.component, &self.fingerprint, &self.limits) {
            Some(reason) => Err(refused(&reason)),
            None => Ok(None),
        }
    }
}

/// Make an artifact ready to run. Blocks.
fn loaded(sandbox: &Sandbox, tenant: &TenantName, artifact: &Artifact) -> Result<Arc<Loaded>, Refusal> {
    sandbox.load(tenant, artifact).map_err(|fault| match fault {
        HostFault::Overloaded => Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(1_000),
        HostFault::Unfit(reason) => refused(&reason),
        other => internal(&other),
    })
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Refusal> {
    tokio::task::spawn_blocking(work).await.map_err(|error| internal(&error))
}

/// Put what the compiler gave into the cache: the artifact, or the refusal.
fn keep(
    artifacts: &Artifacts,
    digest: Digest,
    fingerprint: &str,
    limits: CompileLimits,
    compiled: Result<Vec<u8>, CompileRefused>,
) -> Result<Artifact, Refusal> {
    match compiled {
        Ok(native) => {
            if let Err(error) = artifacts.put(&digest, fingerprint, &native) {
                tracing::warn!(%error, component = %digest, "the compiled component could not be cached");
            }
            Ok(Artifact { component: digest, native: native.into() })
        }
        Err(error) => {
            let reason = error.to_string();
            if error.is_final() {
                artifacts.refuse(&digest, fingerprint, &limits_key(limits), &reason);
            }
            match error {
                CompileRefused::TooSlow { .. } => Err(Refusal::new(Code::Overloaded, reason).after_ms(RETRY_AFTER_MS)),
                _ => Err(refused(&reason)),
            }
        }
    }
}

fn limits_of(component: &ComponentFile) -> CompileLimits {
    CompileLimits::for_size(component.size).overridden(component.compile.0, component.compile.1)
}

/// What a refusal is remembered under: another limit is another try.
fn limits_key(limits: CompileLimits) -> String {
    format!("{}s {}B {}s", limits.cpu_s, limits.memory_bytes, limits.wall_s)
}

fn refused(reason: &str) -> Refusal {
    Refusal::new(Code::ToolTrapped, reason).hint(
        "the operator may raise `limits.compile_cpu_s` or `limits.compile_memory_bytes`, or replace the component",
    )
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "loading a component failed");
    Refusal::new(Code::Internal, "the component could not be loaded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[tokio::test]
    async fn who_wants_the_same_waits_for_the_same_work_and_the_next_begins_anew() {
        let (flights, begun) = (Arc::new(Flights::<u8, u32>::new()), Arc::new(AtomicU32::new(0)));
        let ask = |answer: Result<u32, Refusal>| {
            let (flights, begun) = (Arc::clone(&flights), Arc::clone(&begun));
            async move {
                let work = async {
                    begun.fetch_add(1, Ordering::Relaxed);
                    tokio::task::yield_now().await;
                    answer
                };
                flights.join(7, work).await
            }
        };
        let (one, two) = tokio::join!(ask(Ok(1)), ask(Ok(2)));
        assert_eq!((one, two, begun.load(Ordering::Relaxed)), (Ok(1), Ok(1), 1));
        let refusal = Refusal::new(Code::Internal, "no");
        let (one, two) = tokio::join!(ask(Err(refusal.clone())), ask(Ok(2)));
        assert_eq!((one, two, begun.load(Ordering::Relaxed)), (Err(refusal.clone()), Err(refusal), 2));
        assert_eq!(ask(Ok(3)).await, Ok(3), "a refusal is not kept");
        let abandoned = ask(Ok(4));
        drop(tokio::time::timeout(std::time::Duration::ZERO, abandoned).await);
        assert_eq!(ask(Ok(5)).await, Ok(5), "who goes away leaves nothing behind");
    }
}
