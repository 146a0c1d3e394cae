//! T-R9: compiling happens in a child, and a component that means to be expensive costs no more than its limits.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use toolkeep_sandbox::compile::{CompileLimits, CompileRefused, in_child};
use toolkeep_tests::support::components::{compiled, sandbox, wasm};

/// The daemon's program, which the build leaves beside the test's own directory.
pub(super) fn program() -> PathBuf {
    let here = std::env::current_exe().expect("test program");
    let built = here.ancestors().nth(2).expect("build directory").join("toolkeep");
    assert!(built.exists(), "{}: run `cargo build` first", built.display());
    built
}

#[tokio::test]
async fn a_component_compiles_in_the_child_to_what_it_compiles_to_here() {
    let wasm = wasm("bad-output");
    let native = in_child(&program(), &wasm, CompileLimits::for_size(wasm.len() as u64)).await.expect("compiled");
    let mut artifact = compiled(&wasm);
    artifact.native = native.into();
    assert!(sandbox().load(&"tests".parse().expect("tenant"), &artifact).is_ok());
}

#[tokio::test]
async fn t_r9_what_is_no_component_or_imports_the_unknown_is_refused_with_a_reason() {
    let limits = CompileLimits::for_size(1_000);
    let mut bent = wasm("bad-output");
    let middle = bent.len() / 2;
    bent[middle..middle + 64].fill(0xff);
    for (bytes, says) in
        [(b"junk".to_vec(), "component"), (wasm("undeclared-import"), "attacker:exfiltrate"), (bent, "")]
    {
        match in_child(&program(), &bytes, limits).await {
            Err(CompileRefused::Invalid(text)) => assert!(text.contains(says), "{text}"),
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn t_r9_time_and_memory_of_the_child_are_bounded() {
    let wasm = wasm("csv-report");
    let tight = CompileLimits { cpu_s: 60, memory_bytes: 64 << 20, wall_s: 60 };
    assert!(matches!(
        in_child(&program(), &wasm, tight).await,
        Err(CompileRefused::OutOfMemory { .. } | CompileRefused::Crashed(_))
    ),);
    let hurried = CompileLimits { wall_s: 0, ..CompileLimits::for_size(wasm.len() as u64) };
    assert!(matches!(in_child(&program(), &wasm, hurried).await, Err(CompileRefused::TooSlow { wall_s: 0 })));
}

#[test]
fn the_child_closes_descriptors_that_it_was_not_meant_to_have() {
    // The pipe stays open as long as anybody holds its other end: reading it to the end shows that the child does not.
    let script = r#"exec 7>&1 1>/dev/null 8</dev/null 9</dev/null; exec "$0" compile-worker 5 1073741824"#;
    let mut child = Command::new("/bin/sh")
        .args(["-c", script])
        .arg(program())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("shell");
    let (listening, mut held) = (child.stdin.take().expect("in"), child.stdout.take().expect("out"));
    let mut nothing = Vec::new();
    held.read_to_end(&mut nothing).expect("the other end is closed");
    assert!(nothing.is_empty());
    assert!(child.try_wait().expect("asked").is_none(), "and it is still there, waiting for a component");
    drop(listening);
    assert!(child.wait().expect("ended").success(), "an empty component is refused in words");
}

/// A compile child that waits for its component, until the listener is dropped.
fn waiting() -> std::process::Child {
    let mut command = Command::new(program());
    command.args(["compile-worker", "7", "1073741824"]).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("started")
}

#[test]
fn t_r9_the_child_gains_no_privilege_and_has_no_more_than_its_limits() {
    let mut child = waiting();
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", child.id())).expect("a file of the child");
    let is = |text: &str, name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    // The last of its limits is the number of descriptors: with that, all of it is done.
    crate::doors::running::until("it has limited itself", || {
        is(&read("limits"), "Max open files").first().is_some_and(|n| n == "16")
    });
    assert_eq!(is(&read("status"), "NoNewPrivs:"), ["1"]);
    let limits = read("limits");
    for (name, soft, hard) in [
        ("Max core file size", "0", "0"),
        ("Max file size", "0", "0"),
        ("Max cpu time", "7", "8"),
        ("Max address space", "1073741824", "1073741824"),
        ("Max open files", "16", "16"),
    ] {
        assert_eq!(is(&limits, name)[..2], [soft, hard], "{name}");
    }
    drop(child.stdin.take());
    assert!(child.wait().expect("ended").success(), "an empty component is refused in words");
}

#[tokio::test]
async fn t_r9_the_child_is_started_without_an_environment_and_beside_no_workspace() {
    let scratch = toolkeep_tests::support::scratch::Scratch::new();
    let (script, told) = (scratch.path().join("worker"), scratch.path().join("told"));
    // A shell adds variables of its own; what it was given is what it hands on without them.
    let text = format!("#!/bin/sh\nunset PWD OLDPWD SHLVL _\nenv > {0}\npwd >> {0}\n", told.display());
    std::fs::write(&script, text).expect("script");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o700)).expect("mode");
    let answer = in_child(&script, b"anything", CompileLimits::for_size(8)).await;
    assert!(matches!(answer, Err(CompileRefused::Crashed(_))), "{answer:?}");
    let told = std::fs::read_to_string(told).expect("it ran");
    assert_eq!(told.lines().filter(|line| !line.starts_with("_=")).collect::<Vec<_>>(), ["/"]);
}
