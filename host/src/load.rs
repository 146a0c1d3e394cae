//! Loading: from a component file to compiled code in the sandbox, at most once per tenant.
//!
//! Compilation runs in a child process with limits; what it gives is kept under a MAC and never trusted without it. A
//! component that was refused is remembered, so that a second try costs nothing. Concurrent first calls of one component
//! compile it once.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use moka::sync::Cache;
use tokio::sync::Mutex;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::TenantName;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::compile::{self, CompileLimits};
use toolkeep_sandbox::{Artifact, Loaded, Sandbox};

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
        if let Some(loaded) = self.loaded.get(&key) {
            return Ok(loaded);
        }
        let artifact = self.artifact(component).await?;
        let sandbox = Arc::clone(&self.sandbox);
        let tenant = tenant.clone();
        let loaded = tokio::task::spawn_blocking(move || sandbox.load(&tenant, &artifact))
            .await
            .map_err(|e| internal(&e))?
            .map_err(|e| internal(&e))?;
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
        let limits = limits_of(component);
        let fingerprint = self.sandbox.fingerprint();
        tokio::task::spawn_blocking(move || {
            if let Some(reason) = artifacts.refused(&digest, &fingerprint, &limits.key()) {
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
        let limits = limits_of(component);
        let fingerprint = self.sandbox.fingerprint();
        let (artifacts, digest) = (self.artifacts.clone(), component.digest);
        match compile::in_child(&self.worker, &wasm, &limits).await {
            Ok(native) => tokio::task::spawn_blocking(move || {
                if let Err(error) = artifacts.put(&digest, &fingerprint, &native) {
                    tracing::warn!(%error, component = %digest, "the compiled component could not be cached");
                }
                Artifact { component: digest, native }
            })
            .await
            .map_err(|e| internal(&e)),
            Err(error) => {
                let reason = error.to_string();
                let key = limits.key();
                let text = reason.clone();
                tokio::task::spawn_blocking(move || artifacts.refuse(&digest, &fingerprint, &key, &text))
                    .await
                    .map_err(|e| internal(&e))?;
                Err(refused(&reason))
            }
        }
    }
}

fn limits_of(component: &ComponentFile) -> CompileLimits {
    let mut limits = CompileLimits::for_size(component.size);
    if let Some(cpu_s) = component.compile.0 {
        limits.cpu_s = cpu_s;
        limits.wall_s = limits.wall_s.max(cpu_s.saturating_mul(2));
    }
    if let Some(bytes) = component.compile.1 {
        limits.memory_bytes = bytes;
    }
    limits
}

fn refused(reason: &str) -> Refusal {
    Refusal::new(Code::ToolTrapped, format!("the component does not compile: {reason}"))
        .hint("the operator may raise `limits.compile_cpu_s` or `limits.compile_memory_bytes`, or replace the component")
}

fn internal(error: &dyn std::fmt::Display) -> Refusal {
    tracing::error!(%error, "loading a component failed");
    Refusal::new(Code::Internal, "the component could not be loaded")
}

/// How long the pre-compilation of a whole catalog may take before a start reports ready without it.
pub const WARM_UP: Duration = Duration::from_millis(50);
