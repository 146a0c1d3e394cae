//! Loading: from a component file to compiled code in the sandbox, at most once per tenant.
//!
//! Compilation runs in a child process with limits; what it gives is kept under a MAC and never trusted without it. A
//! component that was refused is remembered, so that a second try costs nothing. Concurrent first calls of one component
//! compile it once.

use std::path::PathBuf;
use std::sync::Arc;

use moka::sync::Cache;
use tokio::sync::Mutex;
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
/// Components compiled at one time: compiling takes a core each.
const COMPILING_MAX: usize = 2;

/// Compiles, caches and loads components.
#[derive(Debug)]
pub struct Loader {
    sandbox: Arc<Sandbox>,
    artifacts: Artifacts,
    worker: PathBuf,
    loaded: Cache<(TenantName, Digest), Arc<Loaded>>,
    compiling: Mutex<std::collections::HashMap<Digest, Arc<Mutex<()>>>>,
    slots: tokio::sync::Semaphore,
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
            compiling: Mutex::default(),
            slots: tokio::sync::Semaphore::new(COMPILING_MAX),
        }
    }

    /// The component ready to run for this tenant.
    ///
    /// # Errors
    /// `tool_trapped` where the component is refused by the compiler or its limits, `internal` where the host fails.
    pub async fn load(&self, tenant: &TenantName, component: &ComponentFile) -> Result<Arc<Loaded>, Refusal> {
        let key = (tenant.clone(), component.digest);
        if let Some(loaded) = self.loaded.get(&key).filter(|loaded| !loaded.is_retired()) {
            return Ok(loaded);
        }
        let artifact = self.artifact(component).await?;
        let sandbox = Arc::clone(&self.sandbox);
        let tenant = tenant.clone();
        let loaded = tokio::task::spawn_blocking(move || sandbox.load(&tenant, &artifact))
            .await
            .map_err(|e| internal(&e))?
            .map_err(|fault| match fault {
                HostFault::Overloaded => {
                    Refusal::new(Code::Overloaded, "no sandbox became free in time").after_ms(1_000)
                }
                other => internal(&other),
            })?;
        self.loaded.insert(key, Arc::clone(&loaded));
        Ok(loaded)
    }

    /// Compile the component if no artifact of it is cached.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub async fn artifact(&self, component: &ComponentFile) -> Result<Artifact, Refusal> {
        if let Some(found) = self.cached(component).await? {
            return Ok(found);
        }
        let turn = Arc::clone(self.compiling.lock().await.entry(component.digest).or_default());
        let _turn = turn.lock().await;
        if let Some(found) = self.cached(component).await? {
            return Ok(found);
        }
        let compiled = self.compile(component).await;
        self.compiling.lock().await.remove(&component.digest);
        compiled
    }

    async fn cached(&self, component: &ComponentFile) -> Result<Option<Artifact>, Refusal> {
        let (artifacts, digest) = (self.artifacts.clone(), component.digest);
        let limits = limits_key(limits_of(component));
        let fingerprint = self.sandbox.fingerprint().to_owned();
        tokio::task::spawn_blocking(move || {
            if let Some(reason) = artifacts.refused(&digest, &fingerprint, &limits) {
                return Err(refused(&reason));
            }
            Ok(artifacts.get(&digest, &fingerprint).map(|native| Artifact { component: digest, native }))
        })
        .await
        .map_err(|e| internal(&e))?
    }

    async fn compile(&self, component: &ComponentFile) -> Result<Artifact, Refusal> {
        let _slot = self.slots.acquire().await.map_err(|e| internal(&e))?;
        let path = component.path.clone();
        let wasm = tokio::task::spawn_blocking(move || std::fs::read(path))
            .await
            .map_err(|e| internal(&e))?
            .map_err(|_| Refusal::new(Code::Internal, "the component file cannot be read any more"))?;
        if Digest::of(&wasm) != component.digest {
            return Err(Refusal::new(Code::Internal, "the component file changed since the manifest was read")
                .hint("run `toolkeep tools install` again"));
        }
        let wasm = tokio::task::spawn_blocking(move || compile::prescreen(&wasm).map(|_| wasm))
            .await
            .map_err(|e| internal(&e))?
            .map_err(|e| refused(&e.to_string()))?;
        let limits = limits_of(component);
        let compiled = compile::in_child(&self.worker, &wasm, limits).await;
        let (artifacts, digest) = (self.artifacts.clone(), component.digest);
        let fingerprint = self.sandbox.fingerprint().to_owned();
        tokio::task::spawn_blocking(move || keep(&artifacts, digest, &fingerprint, limits, compiled))
            .await
            .map_err(|e| internal(&e))?
    }
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
            Ok(Artifact { component: digest, native })
        }
        Err(error) => {
            let reason = error.to_string();
            if error.is_final() {
                artifacts.refuse(&digest, fingerprint, &limits_key(limits), &reason);
            }
            Err(refused(&reason))
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
