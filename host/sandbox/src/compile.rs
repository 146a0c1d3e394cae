//! Compiling, in a process of its own: a hostile component may cost the child its CPU, its memory or its life, not ours.
//!
//! The child is the same program under a hidden subcommand. It closes every descriptor beyond its three standard ones and
//! limits itself before it reads a byte of the component, so that there is nothing in it to reach for. Component
//! in on standard input, one framed answer out on standard output. Limits scale with the size of the
//! component, because an interpreter honestly needs a hundred times the time of a small tool. It gains no privilege by whatever it might execute
//! (`no_new_privs`), has no environment, and dies with the daemon.
//!
//! Caching, also of refusals, is the caller's.

use std::io::{Read, Write};
use std::path::Path;
use std::process::{ExitCode, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::engine;
use crate::fault::HostFault;
use crate::prescreen::COMPONENT_MAX_BYTES;
pub use crate::prescreen::{ComponentFacts, Refused, prescreen};

/// The hidden subcommand of the child.
pub const SUBCOMMAND: &str = "compile-worker";
/// Descriptors that the child may have open: its three, and what the engine needs for a moment.
const DESCRIPTORS_MAX: u64 = 16;
/// Longest explanation that the child may give, in bytes.
const EXPLANATION_MAX_BYTES: usize = 4 * 1024;
/// CPU time for the smallest component, in seconds: 0.1 s suffice, a loaded machine is slow.
const CPU_BASE_S: u64 = 5;
/// CPU time for each MiB of a component, in seconds: an interpreter needs about one.
const CPU_PER_MIB_S: u64 = 6;
/// Address space for the smallest component: the program, its threads and their arenas.
const MEMORY_BASE_BYTES: u64 = 1024 * 1024 * 1024;
/// Address space for each byte of a component.
const MEMORY_PER_BYTE: u64 = 160;
/// Compiled bytes for each byte of a component, at most; measured: 2 to 5.
const NATIVE_PER_BYTE: u64 = 32;
/// Compiled bytes of the smallest component, at most.
const NATIVE_BASE_BYTES: u64 = 4 * 1024 * 1024;
/// What an allocation failure looks like on the child's standard error.
const OUT_OF_MEMORY_TEXTS: [&str; 3] = ["memory allocation of", "Cannot allocate memory", "os error 12"];

/// Every answer of the child starts with this.
const MAGIC: &[u8; 8] = b"tkcomp1\n";
const COMPILED: u8 = 0;
const REFUSED: u8 = 1;

/// What compiling one component may cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompileLimits {
    /// CPU time of all threads, in seconds.
    pub cpu_s: u64,
    /// Address space, in bytes.
    pub memory_bytes: u64,
    /// Time on the wall, in seconds.
    pub wall_s: u64,
}

impl CompileLimits {
    /// Limits for a component of `bytes`: 45 KB gives 5 s, 18 MB gives two minutes.
    #[must_use]
    pub const fn for_size(bytes: u64) -> Self {
        let cpu_s = CPU_BASE_S + bytes.saturating_mul(CPU_PER_MIB_S) / (1024 * 1024);
        let memory_bytes = MEMORY_BASE_BYTES + bytes.saturating_mul(MEMORY_PER_BYTE);
        Self { cpu_s, memory_bytes, wall_s: cpu_s * 2 }
    }

    /// These limits with what an operator set instead: CPU seconds, bytes of memory.
    #[must_use]
    pub fn overridden(self, cpu_s: Option<u64>, memory_bytes: Option<u64>) -> Self {
        let cpu_s = cpu_s.unwrap_or(self.cpu_s);
        Self { cpu_s, memory_bytes: memory_bytes.unwrap_or(self.memory_bytes), wall_s: cpu_s.saturating_mul(2) }
    }
}

/// Why there is no compiled component.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CompileRefused {
    /// It used its CPU time.
    #[error("compiling took more than {cpu_s} s of CPU; raise `limits.compile_cpu_s` if the component is trusted")]
    OutOfTime {
        /// CPU seconds that it had.
        cpu_s: u64,
    },
    /// It did not use its CPU time and is not done: the machine is busy, or the child waited for something.
    #[error("compiling was not done after {wall_s} s; call again when the machine is less busy")]
    TooSlow {
        /// Wall seconds that it had.
        wall_s: u64,
    },
    /// It used its memory.
    #[error(
        "compiling took more than {memory_bytes} bytes of memory; raise `limits.compile_memory_bytes` if the component is trusted"
    )]
    OutOfMemory {
        /// Bytes that it had.
        memory_bytes: u64,
    },
    /// The component is not valid, or uses something that is switched off.
    #[error("the component does not compile: {0}")]
    Invalid(String),
    /// The child died of something else, or gave no answer.
    #[error("the compiler broke down on this component: {0}")]
    Crashed(String),
    /// There is no child: a fault of the host.
    #[error("the compiler could not be started: {0}")]
    NotStarted(String),
}

impl CompileRefused {
    /// Whether the component is to blame, so that the refusal may be remembered: it would end the same way under the same
    /// limits. Time on the wall depends on what else the machine does, and a child that broke down may have been hit.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::OutOfTime { .. } | Self::OutOfMemory { .. } | Self::Invalid(_))
    }
}

/// Compile in this process. For the child, for authors' machines and for tests; the daemon uses [`in_child`].
///
/// # Errors
/// The component is not valid, or the engine cannot be made.
pub fn compile(wasm: &[u8]) -> Result<Vec<u8>, CompileRefused> {
    let engine = engine::plain().map_err(|fault: HostFault| CompileRefused::NotStarted(fault.to_string()))?;
    engine.precompile_component(wasm).map_err(|error| CompileRefused::Invalid(explained(&format!("{error:#}"))))
}

fn explained(text: &str) -> String {
    text.get(..text.floor_char_boundary(EXPLANATION_MAX_BYTES)).unwrap_or_default().to_owned()
}

/// The body of the child: `arguments` are what follows the subcommand. Reads standard input, writes standard output.
///
/// Call it first thing in `main`, before a runtime or a thread is started: it closes every descriptor that it did not get
/// as standard input, output or error.
pub fn child_main(arguments: impl Iterator<Item = String>) -> ExitCode {
    match child(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            let _unheard = writeln!(std::io::stderr(), "{problem}");
            ExitCode::FAILURE
        }
    }
}

fn child(mut arguments: impl Iterator<Item = String>) -> Result<(), String> {
    let mut number = |what: &str| {
        let text = arguments.next().ok_or_else(|| format!("the argument {what} is missing"))?;
        text.parse::<u64>().map_err(|_| format!("{what} is not a number"))
    };
    let (cpu_s, memory_bytes) = (number("CPU seconds")?, number("memory bytes")?);
    close_inherited_descriptors()?;
    confine(cpu_s, memory_bytes).map_err(|error| format!("limits could not be set: {error}"))?;
    confined()?;
    let mut wasm = Vec::new();
    let most = COMPONENT_MAX_BYTES as u64 + 1;
    std::io::stdin().lock().take(most).read_to_end(&mut wasm).map_err(|error| error.to_string())?;
    let (kind, answer) = match prescreen(&wasm).map_err(|refused| refused.to_string()) {
        Err(text) => (REFUSED, text.into_bytes()),
        Ok(_) => match compile(&wasm) {
            Ok(native) => (COMPILED, native),
            Err(CompileRefused::Invalid(text)) => (REFUSED, text.into_bytes()),
            Err(other) => return Err(other.to_string()),
        },
    };
    let mut out = std::io::stdout().lock();
    let written = out.write_all(MAGIC).and_then(|()| out.write_all(&[kind])).and_then(|()| out.write_all(&answer));
    written.and_then(|()| out.flush()).map_err(|error| error.to_string())
}

/// Whatever started the daemon may have left descriptors open in it, and they arrive here: close them all.
fn close_inherited_descriptors() -> Result<(), String> {
    for number in descriptors_beyond_standard()? {
        #[expect(unsafe_code, reason = "closes what nothing owns: no thread runs and nothing was opened yet")]
        // SAFETY: the child has just started, so that no value of this process owns a descriptor beyond the standard
        // ones; it is open, because it was still there after the listing had been closed.
        unsafe {
            rustix::io::close(number);
        }
    }
    match descriptors_beyond_standard()?.len() {
        0 => Ok(()),
        more => Err(format!("{more} inherited descriptors could not be closed")),
    }
}

fn descriptors_beyond_standard() -> Result<Vec<i32>, String> {
    let directory = Path::new("/proc/self/fd");
    let entries = std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let numbers = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let listed: Vec<i32> = numbers.filter(|number| *number > 2).collect();
    // The listing saw its own descriptor, which is closed by now.
    let still_open = |number: &i32| directory.join(number.to_string()).symlink_metadata().is_ok();
    Ok(listed.into_iter().filter(still_open).collect())
}

fn confine(cpu_s: u64, memory_bytes: u64) -> rustix::io::Result<()> {
    let soft_and_hard = |resource, soft: u64, hard: u64| {
        let ceiling = getrlimit(resource).maximum.unwrap_or(u64::MAX);
        setrlimit(resource, Rlimit { current: Some(ceiling.min(soft)), maximum: Some(ceiling.min(hard)) })
    };
    let limit = |resource, most| soft_and_hard(resource, most, most);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    no_new_privileges()?;
    limit(Resource::Core, 0)?;
    // SIGXCPU at the limit says what happened; a child that does not die of it is killed a second later.
    soft_and_hard(Resource::Cpu, cpu_s, cpu_s.saturating_add(1))?;
    limit(Resource::As, memory_bytes)?;
    limit(Resource::Fsize, 0)?;
    limit(Resource::Nofile, DESCRIPTORS_MAX)
}

/// Whatever this process and its threads may execute gets no privilege by it: no set-user-id bit, no file capability.
fn no_new_privileges() -> rustix::io::Result<()> {
    let (on, unused): (libc::c_ulong, libc::c_ulong) = (1, 0);
    #[expect(
        unsafe_code,
        reason = "one system call with numbers only; the safe wrapper is in a feature that is not built"
    )]
    // SAFETY: `PR_SET_NO_NEW_PRIVS` takes four numbers and touches no memory of this process.
    let answer = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, on, unused, unused, unused) };
    if answer == 0 {
        return Ok(());
    }
    Err(rustix::io::Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(rustix::io::Errno::PERM))
}

/// Whether the kernel says what [`confine`] believes: asked before a byte of the component is read.
fn confined() -> Result<(), String> {
    let status = std::fs::read_to_string("/proc/self/status").map_err(|error| error.to_string())?;
    let privileges = status.lines().find_map(|line| line.strip_prefix("NoNewPrivs:")).map(str::trim);
    if privileges != Some("1") {
        return Err("the child could still gain privileges".to_owned());
    }
    Ok(())
}

/// Compile in a child process: `program` is this program, which understands [`SUBCOMMAND`].
///
/// # Errors
/// Says whether time, memory, the component or the child was the reason.
pub async fn in_child(program: &Path, wasm: &[u8], limits: CompileLimits) -> Result<Vec<u8>, CompileRefused> {
    let not_started = |error: std::io::Error| CompileRefused::NotStarted(error.to_string());
    #[expect(clippy::disallowed_methods, reason = "the one child process of the daemon")]
    let mut child = tokio::process::Command::new(program)
        .arg(SUBCOMMAND)
        .arg(limits.cpu_s.to_string())
        .arg(limits.memory_bytes.to_string())
        .env_clear()
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(CompileRefused::NotStarted("it has no standard streams".to_owned()));
    };
    let native_max = NATIVE_BASE_BYTES + (wasm.len() as u64).saturating_mul(NATIVE_PER_BYTE);
    let (mut answer, mut complaint) = (Vec::new(), Vec::new());
    let talk = async {
        let feed = async {
            // A child that stops listening has its reason, which its exit tells.
            let _unheard = stdin.write_all(wasm).await;
            drop(stdin);
        };
        let mut stdout = stdout.take(native_max + MAGIC.len() as u64 + 1);
        let mut stderr = stderr.take(EXPLANATION_MAX_BYTES as u64);
        let (_, heard, complained) =
            tokio::join!(feed, stdout.read_to_end(&mut answer), stderr.read_to_end(&mut complaint));
        heard.and(complained)?;
        child.wait().await
    };
    let ended = tokio::time::timeout(Duration::from_secs(limits.wall_s), talk).await;
    match ended {
        Err(_) => {
            // Reaped here, so that the caller finds no process of a finished compilation.
            let _gone = child.kill().await;
            Err(CompileRefused::TooSlow { wall_s: limits.wall_s })
        }
        Ok(Err(error)) => Err(CompileRefused::Crashed(error.to_string())),
        Ok(Ok(status)) => verdict(status, answer, &String::from_utf8_lossy(&complaint), limits),
    }
}

fn verdict(
    status: ExitStatus,
    mut answer: Vec<u8>,
    complaint: &str,
    limits: CompileLimits,
) -> Result<Vec<u8>, CompileRefused> {
    use std::os::unix::process::ExitStatusExt;
    if status.signal() == Some(Signal::XCPU.as_raw()) {
        return Err(CompileRefused::OutOfTime { cpu_s: limits.cpu_s });
    }
    if OUT_OF_MEMORY_TEXTS.iter().any(|text| complaint.contains(text)) {
        return Err(CompileRefused::OutOfMemory { memory_bytes: limits.memory_bytes });
    }
    let head = MAGIC.len() + 1;
    if !status.success() || answer.len() < head || !answer.starts_with(MAGIC) {
        return Err(CompileRefused::Crashed(explained(&format!("{status}: {}", complaint.trim()))));
    }
    let body = answer.split_off(head);
    match answer.last() {
        Some(&COMPILED) => Ok(body),
        Some(&REFUSED) => {
            let text = explained(&String::from_utf8_lossy(&body));
            if OUT_OF_MEMORY_TEXTS.iter().any(|known| text.contains(known)) {
                return Err(CompileRefused::OutOfMemory { memory_bytes: limits.memory_bytes });
            }
            Err(CompileRefused::Invalid(text))
        }
        _ => Err(CompileRefused::Crashed("it gave an answer of an unknown kind".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    const LIMITS: CompileLimits = CompileLimits { cpu_s: 1, memory_bytes: 2, wall_s: 3 };

    #[test]
    fn limits_scale_with_size_and_an_operator_may_set_others() {
        let small = CompileLimits::for_size(45_000);
        let python = CompileLimits::for_size(18_300_000);
        assert_eq!(small.cpu_s, 5);
        assert!((90..=130).contains(&python.cpu_s) && python.memory_bytes < 4 << 30);
        let set = python.overridden(Some(7), None);
        assert_eq!((set.cpu_s, set.wall_s, set.memory_bytes), (7, 14, python.memory_bytes));
    }

    #[test]
    fn t_r9_only_what_would_happen_again_is_final() {
        let final_ones = [
            CompileRefused::OutOfTime { cpu_s: 1 },
            CompileRefused::OutOfMemory { memory_bytes: 1 },
            CompileRefused::Invalid(String::new()),
        ];
        assert!(final_ones.iter().all(CompileRefused::is_final));
        let passing = [
            CompileRefused::TooSlow { wall_s: 1 },
            CompileRefused::Crashed(String::new()),
            CompileRefused::NotStarted(String::new()),
        ];
        assert!(!passing.iter().any(CompileRefused::is_final));
    }

    #[test]
    fn t_r9_every_end_of_the_child_has_one_reason() {
        let end = |status: i32, answer: &[u8], complaint: &str| {
            verdict(ExitStatus::from_raw(status), answer.to_vec(), complaint, LIMITS)
        };
        assert_eq!(end(0, b"tkcomp1\n\0native", ""), Ok(b"native".to_vec()));
        assert_eq!(end(0, b"tkcomp1\n\x01bad", ""), Err(CompileRefused::Invalid("bad".to_owned())));
        assert!(matches!(end(0, b"tkcomp1\n\x02", ""), Err(CompileRefused::Crashed(_))));
        assert!(matches!(end(0, b"tkcomp1\n", ""), Err(CompileRefused::Crashed(_))));
        assert!(matches!(end(0, b"other...\0native", ""), Err(CompileRefused::Crashed(_))));
        assert!(matches!(end(256, b"tkcomp1\n\0native", ""), Err(CompileRefused::Crashed(_))));
        assert!(matches!(end(6, b"", "memory allocation of 5 bytes failed"), Err(CompileRefused::OutOfMemory { .. })));
        assert_eq!(end(24, b"", ""), Err(CompileRefused::OutOfTime { cpu_s: 1 }));
        assert!(matches!(end(9, b"", ""), Err(CompileRefused::Crashed(_))), "killed by somebody else");
        assert!(matches!(end(11, b"", ""), Err(CompileRefused::Crashed(_))));
    }
}
