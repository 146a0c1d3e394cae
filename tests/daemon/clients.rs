//! Our own clients of the agent socket: their test suites against a daemon, and their types.
//!
//! What they promise is tested in their own languages, beside them; here a daemon is made for each, with a tool that never ends.

use std::path::PathBuf;
use std::process::Command;

use toolkeep_tests::support::components::repository;

use super::installed::{installed, succeeds};
use super::scenery;
use super::world::{Plot, World};

/// A tool that runs until it is cancelled.
const ENDLESS: scenery::Grant =
    ("endless", "spin", "tier = 0\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 600_000\n");

fn world() -> World {
    let mut world = World::asleep(Plot::default());
    scenery::manifest(&world, ENDLESS);
    world.start();
    world
}

/// A command in the directory of the Python client that leaves nothing behind in it.
fn python(program: PathBuf) -> Command {
    let mut command = Command::new(program);
    command.current_dir(repository().join("clients/python"));
    command.envs([("PYTHONPATH", "src"), ("PYTHONDONTWRITEBYTECODE", "1")]);
    command
}

#[test]
fn r50_the_python_client_keeps_its_promises() {
    let world = world();
    let mut tests = python(PathBuf::from("python3"));
    tests.args(["-W", "error::ResourceWarning", "-m", "unittest", "discover", "-t", ".", "-s", "tests"]);
    let told = succeeds(tests.env("TOOLKEEP_TEST_HOME", world.home.path()));
    // It ends well without any, too.
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    let ran = told.lines().find_map(|line| line.strip_prefix("Ran ")?.split(' ').next()?.parse::<u32>().ok());
    assert!(ran.is_some_and(|ran| ran > 0), "{told}");
    world.verified();
}

/// What an example printed.
fn printed(command: &mut Command) -> String {
    String::from_utf8(succeeds(command).stdout).expect("text")
}

#[test]
fn r50_the_examples_of_both_clients_do_what_they_say() {
    let world = world();
    let socket = world.path("run/agent/agent.sock");
    let many = |prefix: &str| {
        let mut example = python(PathBuf::from("python3"));
        printed(example.arg("examples/many_calls.py").arg(&socket).arg(prefix))
    };
    assert_eq!(many("bulk").matches("committed").count(), 10);
    assert_eq!(many("bulk").matches("(done before)").count(), 10, "started again, nothing is done twice");
    let Some(built) = installed("clients/typescript/dist/examples/preview-and-commit.js", "make clients") else {
        return;
    };
    let mut example = Command::new("node");
    example.arg(built).arg(&socket).args(["notes.add", r#"{"title": "An example", "body": "b"}"#]);
    let told = printed(&mut example);
    assert_eq!(told, "file.write notes an-example.md\ncommitted {\"file\":\"an-example.md\"}\n");
    world.verified();
}

#[test]
fn r50_the_python_client_is_typed_throughout() {
    let Some(checkers) = installed("clients/python/version", "make clients") else { return };
    let directory = checkers.parent().expect("a directory");
    let cache = directory.join("mypy-cache");
    succeeds(python(directory.join("bin/mypy")).arg("--cache-dir").arg(cache));
    succeeds(&mut python(directory.join("bin/pyright")));
}

#[test]
fn r50_the_typescript_client_keeps_its_promises() {
    let Some(built) = installed("clients/typescript/dist/test/daemon.test.js", "make clients") else { return };
    let world = world();
    let mut tests = Command::new("node");
    tests.args(["--test", "--test-reporter=spec"]).arg(&built).arg(built.with_file_name("wire.test.js"));
    tests.env("TOOLKEEP_TEST_HOME", world.home.path()).env("TOOLKEEP_TEST_DOCS", repository().join("docs"));
    succeeds(&mut tests);
    world.verified();
}
