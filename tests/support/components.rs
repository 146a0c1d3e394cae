//! The sample tools as the build leaves them, compiled for the sandbox once and kept beside them.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use toolkeep_core::digest::Digest;
use toolkeep_sandbox::compile;
use toolkeep_sandbox::pool::Artifact;
use toolkeep_sandbox::sandbox::{Sandbox, SandboxConfig};

const BUILD: &str =
    "cargo build --release --target wasm32-wasip2 --manifest-path sample-tools/Cargo.toml --target-dir target/guest";

/// The top of the repository.
#[must_use]
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the repository")
}

/// Where the build puts what it makes of the sample tools: `guest` in the target directory that this program is in.
#[must_use]
pub fn guests() -> PathBuf {
    let here = std::env::current_exe().unwrap_or_default();
    let beside = here.ancestors().map(|directory| directory.join("guest"));
    let built = beside.into_iter().find(|guest| guest.join("wasm32-wasip2").is_dir());
    built.unwrap_or_else(|| repository().join("target/guest"))
}

/// The file of a sample tool, for example `csv-report`.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    guests().join(format!("wasm32-wasip2/release/{}.wasm", name.replace('-', "_")))
}

/// The bytes of a sample tool.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn wasm(name: &str) -> Vec<u8> {
    std::fs::read(path(name)).unwrap_or_else(|error| panic!("`{name}`: {error}; run `{BUILD}` first"))
}

/// The one sandbox of the test process.
///
/// # Panics
/// It cannot be made.
pub fn sandbox() -> &'static Sandbox {
    static SANDBOX: OnceLock<Sandbox> = OnceLock::new();
    SANDBOX.get_or_init(|| Sandbox::new(SandboxConfig::default()).expect("sandbox"))
}

/// A component in compiled form; compiling happens once for each version of it and of the engine.
///
/// # Panics
/// It does not compile.
#[must_use]
pub fn compiled(wasm: &[u8]) -> Artifact {
    static COMPILING: Mutex<()> = Mutex::new(());
    let component = Digest::of(wasm);
    let directory = guests().join("native");
    std::fs::create_dir_all(&directory).expect("directory of compiled guests");
    let kept = directory.join(format!("{}-{component}", sandbox().fingerprint()));
    // One at a time: tests that run together want the same components.
    let _turn = COMPILING.lock().unwrap_or_else(PoisonError::into_inner);
    let native = std::fs::read(&kept).unwrap_or_else(|_| {
        let native = compile::compile(wasm).expect("compiles");
        let part = directory.join(format!("{component}.{}.part", std::process::id()));
        std::fs::write(&part, &native).expect("written");
        std::fs::rename(&part, &kept).expect("renamed");
        native
    });
    Artifact { component, native: native.into() }
}
