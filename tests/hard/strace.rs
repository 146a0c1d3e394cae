//! Running the child under `strace` with an injected signal or error, and choosing which cases to run.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use toolkeep_tests::support::proof::{is_hard, is_over, shuffled};

use crate::commit::shapes::Shape;
use crate::commit::world::World;

const STRACE: &str = "strace";
/// System calls that change something: between two of them the world stands still.
pub const MUTATING: &str = "openat,write,fsync,renameat2,rename,mkdirat,unlinkat,fchmod,fchown,utimensat,fallocate,\
                            fsetxattr,fremovexattr,ftruncate";
/// System calls that a commit makes and that can fail.
pub const FALLIBLE: &str = "openat,openat2,read,write,fsync,renameat2,mkdirat,unlinkat,fchmod,fchown,utimensat,\
                            fallocate,fsetxattr,fremovexattr,newfstatat,fstat,getdents64,flistxattr,fcntl";
/// Children at one time.
const WORKERS: usize = 2;

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did all it had to.
    Done,
    /// The injected signal reached it.
    Killed,
    /// It gave up.
    Failed,
}

/// Run the child plainly.
pub fn child(world: &World, arguments: &[&str]) -> End {
    end(Command::new(env!("CARGO_BIN_EXE_crash_child")), world, arguments)
}

/// A system call of the child: which, and the how-manieth of its kind.
pub type Call = (String, usize);

/// Run the child under `strace`, whose log is `log`, with `what` (`signal=KILL` or `error=EIO`) at one call.
fn injecting(world: &World, arguments: &[&str], what: &str, (name, at): &Call, log: &Path) -> End {
    let mut command = Command::new(STRACE);
    command.args(["-qq", "-f", "-o"]).arg(log).arg("-e").arg(format!("trace={name}"));
    command.arg("-e").arg(format!("inject={name}:{what}:when={at}")).arg(env!("CARGO_BIN_EXE_crash_child"));
    end(command, world, arguments)
}

/// Run the child and kill it at one call.
pub fn killed(world: &World, arguments: &[&str], call: &Call) -> End {
    injecting(world, arguments, "signal=KILL", call, Path::new("/dev/null"))
}

/// Run the child and let one call of it fail with `error` (`EIO`). Returns whether the call was made and failed, as `strace` saw it.
pub fn faulted(world: &World, arguments: &[&str], error: &str, call: &Call) -> bool {
    let log = world.at("strace");
    injecting(world, arguments, &format!("error={error}"), call, &log);
    let text = std::fs::read_to_string(&log).expect("strace's log");
    std::fs::remove_file(log).expect("log");
    text.contains("(INJECTED)")
}

/// The calls of `set` that the child makes, in their order.
pub fn calls(world: &World, arguments: &[&str], set: &str) -> Vec<Call> {
    let found = Command::new(STRACE).arg("-V").output();
    assert!(
        found.is_ok_and(|output| output.status.success()),
        "{STRACE} is missing: crashes cannot be tested. Install strace (the set-up of this project does), then run again"
    );
    let log = world.at("strace");
    let mut command = Command::new(STRACE);
    command.args(["-qq", "-f", "-e"]).arg(format!("trace={set}")).arg("-o").arg(&log);
    command.arg(env!("CARGO_BIN_EXE_crash_child"));
    assert_eq!(end(command, world, arguments), End::Done, "{arguments:?} fails without any injection");
    let text = std::fs::read_to_string(&log).expect("strace's log");
    std::fs::remove_file(log).expect("log");
    let mut counts = BTreeMap::<&str, usize>::new();
    let names = text.lines().filter_map(|line| line.split_once(' ')?.1.trim_start().split_once('('));
    names
        .map(|(name, _)| {
            let count = counts.entry(name).or_default();
            *count += 1;
            (name.to_owned(), *count)
        })
        .collect()
}

fn end(mut command: Command, world: &World, arguments: &[&str]) -> End {
    use std::os::unix::process::ExitStatusExt;
    // A search path for libraries would only add calls of the loader to the cases.
    let status = command
        .env_remove("LD_LIBRARY_PATH")
        .arg(&world.base)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("the child starts");
    match (status.success(), status.signal()) {
        (true, _) => End::Done,
        (false, Some(9)) => End::Killed,
        (false, _) => End::Failed,
    }
}

/// A world of this shape, ready to be committed into.
pub fn built(shape: &Shape) -> World {
    let world = World::new();
    (shape.build)(&world);
    world
}

/// What the child says became of the commit, if it came to that.
pub fn outcome(world: &World) -> Option<String> {
    std::fs::read_to_string(world.at("state/done")).ok()
}

/// The cases of this run: all of this shard in an order that the seed makes, or an even sample of `sample`.
pub fn choose<T>(cases: Vec<T>, sample: usize) -> Vec<T> {
    let shard = std::env::var("TOOLKEEP_SHARD").ok().and_then(|text| {
        let (part, parts) = text.split_once('/')?;
        Some((part.parse::<usize>().ok()?.checked_sub(1)?, parts.parse::<usize>().ok()?.max(1)))
    });
    let total = cases.len();
    let numbered = cases.into_iter().enumerate();
    if is_hard() {
        let (part, parts) = shard.unwrap_or((0, 1));
        return shuffled(numbered.filter(|(at, _)| at % parts == part).map(|(_, case)| case).collect());
    }
    // Steps of an irrational share of the whole hit every shape and every part of a commit.
    let wanted = |at: usize| (at * sample / total.max(1)) != ((at + 1) * sample / total.max(1));
    numbered.filter(|(at, _)| wanted(*at)).map(|(_, case)| case).collect()
}

/// Run cases on a few threads until there are none left, or no time; the first failure is told with its case. Returns how
/// many were run.
pub fn each<T: Send + Sync + std::fmt::Debug>(cases: Vec<T>, run: impl Fn(&T) + Sync) -> usize {
    let (left, done) = (Mutex::new(cases), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                while !is_over() {
                    let Some(case) = left.lock().expect("cases").pop() else { return };
                    let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run(&case)));
                    assert!(caught.is_ok(), "case {case:?}");
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
    });
    done.into_inner()
}
