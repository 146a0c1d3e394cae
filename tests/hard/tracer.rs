//! A process under trace, with all of its threads: its system calls that change something are counted, and it is killed
//! before the one that is wanted.
//!
//! `strace` counts the calls of each thread apart and of each kind apart; here there is one count for the whole process, so
//! that "every call of a daemon" is one row of numbers. The thread that starts the process is the one that traces it (the
//! kernel knows no other), and waits for nobody else's children. Programs that the process starts are not followed.

use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use libc::{c_int, c_long, pid_t};

/// System calls that change something, or that tell somebody: between two of them the world stands still.
const CHANGING: [c_long; 25] = [
    libc::SYS_write,
    libc::SYS_pwrite64,
    libc::SYS_writev,
    libc::SYS_pwritev,
    libc::SYS_sendto,
    libc::SYS_sendmsg,
    libc::SYS_openat,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_rename,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdir,
    libc::SYS_mkdirat,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_unlinkat,
    libc::SYS_linkat,
    libc::SYS_fchmod,
    libc::SYS_fchown,
    libc::SYS_utimensat,
    libc::SYS_fallocate,
    libc::SYS_fsetxattr,
    libc::SYS_fremovexattr,
    libc::SYS_ftruncate,
];

/// An argument that a request does not take.
const NONE: c_long = 0;
/// Says that a stop is one at a system call (`PTRACE_O_TRACESYSGOOD`).
const SYSCALL_STOP: c_int = libc::SIGTRAP | 0x80;

/// What is told to the tracing thread, and what it tells.
#[derive(Debug, Default)]
struct Shared {
    /// Calls that were counted since it was armed.
    seen: AtomicUsize,
    /// Before which of them the process is killed; zero while nothing is counted.
    at: AtomicUsize,
    is_over: AtomicBool,
}

/// A traced process; killed when dropped.
#[derive(Debug)]
pub struct Traced {
    shared: Arc<Shared>,
    pid: pid_t,
    tracer: Option<JoinHandle<()>>,
}

impl Traced {
    /// Start a program. With a number it is killed before its call of that number, counted from its first.
    ///
    /// # Panics
    /// It cannot be started or traced.
    pub fn start(command: Command, at: Option<usize>) -> Self {
        let shared = Arc::new(Shared { at: AtomicUsize::new(at.unwrap_or(0)), ..Shared::default() });
        let (tell, told) = std::sync::mpsc::channel();
        let theirs = Arc::clone(&shared);
        let tracer = std::thread::spawn(move || {
            let pid = spawned(command);
            tell.send(pid).expect("the starter waits");
            follow(pid, &theirs);
            theirs.is_over.store(true, Ordering::Release);
        });
        let pid = told.recv().expect("the program starts");
        Self { shared, pid, tracer: Some(tracer) }
    }

    /// Count from now on, and kill it before the call of this number.
    pub fn arm(&self, at: usize) {
        self.shared.seen.store(0, Ordering::SeqCst);
        self.shared.at.store(at, Ordering::SeqCst);
    }

    /// Stop counting. Returns how many calls there were.
    pub fn disarm(&self) -> usize {
        self.shared.at.store(0, Ordering::SeqCst);
        self.seen()
    }

    /// How many calls were counted since it was armed last.
    pub fn seen(&self) -> usize {
        self.shared.seen.load(Ordering::SeqCst)
    }

    /// Whether it has ended.
    pub fn is_over(&self) -> bool {
        self.shared.is_over.load(Ordering::Acquire)
    }

    /// Kill it where it stands, and wait for its end.
    pub fn kill(&mut self) {
        if let Some(tracer) = self.tracer.take() {
            if !self.is_over() {
                // SAFETY: two numbers; the process is not waited for yet, so that nobody else has its number.
                unsafe { libc::kill(self.pid, libc::SIGKILL) };
            }
            tracer.join().expect("the tracer");
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Start it, and wait until it has become the program and stands still.
fn spawned(mut command: Command) -> pid_t {
    let traced = || {
        // SAFETY: makes this process one that its parent traces; touches no memory.
        if unsafe { libc::ptrace(libc::PTRACE_TRACEME, 0, NONE, NONE) } == 0 {
            Ok(())
        } else {
            Err(std::io::Error::last_os_error())
        }
    };
    // SAFETY: between fork and exec there is one system call and nothing that takes a lock.
    unsafe { command.pre_exec(traced) };
    #[expect(clippy::zombie_processes, reason = "`follow` waits for it, as for every thread of it")]
    let child = command.spawn().expect("the program starts");
    let pid = pid_t::try_from(child.id()).expect("a process number");
    assert_eq!(wait(pid).map(|(pid, status)| (pid, libc::WIFSTOPPED(status))), Some((pid, true)), "it stands still");
    let options = libc::PTRACE_O_TRACESYSGOOD | libc::PTRACE_O_TRACECLONE | libc::PTRACE_O_EXITKILL;
    ask(libc::PTRACE_SETOPTIONS, pid, options.into());
    pid
}

/// The next change of one of our own: `__WNOTHREAD` leaves the children of other threads to those.
fn wait(which: pid_t) -> Option<(pid_t, c_int)> {
    let mut status = 0;
    loop {
        // SAFETY: the status is ours and outlives the call.
        let found = unsafe { libc::waitpid(which, &raw mut status, libc::__WALL | libc::__WNOTHREAD) };
        if found > 0 {
            return Some((found, status));
        }
        if std::io::Error::last_os_error().raw_os_error() != Some(libc::EINTR) {
            return None;
        }
    }
}

/// A request without memory. One that comes too late, because the thread was killed, has no effect.
fn ask(request: libc::c_uint, thread: pid_t, data: c_long) {
    // SAFETY: `data` is a number for every request that is made here.
    unsafe { libc::ptrace(request, thread, NONE, data) };
}

/// The call that a thread is about to make; nothing where it comes out of one.
fn entered(thread: pid_t) -> Option<c_long> {
    // SAFETY: a structure of numbers, for which zeros are values.
    let mut info: libc::ptrace_syscall_info = unsafe { std::mem::zeroed() };
    let size = size_of::<libc::ptrace_syscall_info>();
    // SAFETY: the kernel writes no more than `size` bytes into the structure, which outlives the call.
    let written = unsafe { libc::ptrace(libc::PTRACE_GET_SYSCALL_INFO, thread, size, &raw mut info) };
    if written <= 0 || info.op != libc::PTRACE_SYSCALL_INFO_ENTRY {
        return None;
    }
    // SAFETY: at an entry this is the member that was written.
    c_long::try_from(unsafe { info.u.entry.nr }).ok()
}

/// Let it run from one system call to the next, until it has ended.
fn follow(pid: pid_t, shared: &Shared) {
    ask(libc::PTRACE_SYSCALL, pid, 0);
    while let Some((thread, status)) = wait(-1) {
        if !libc::WIFSTOPPED(status) {
            continue;
        }
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        let mut pass_on = 0;
        if signal == SYSCALL_STOP {
            let at = shared.at.load(Ordering::SeqCst);
            if at > 0 && entered(thread).is_some_and(|call| CHANGING.contains(&call)) {
                let number = shared.seen.fetch_add(1, Ordering::SeqCst) + 1;
                // Whoever disarms it meanwhile sees the count, or is seen here.
                if number == at && shared.at.load(Ordering::SeqCst) == at {
                    // SAFETY: two numbers; the process is traced by us and not waited for yet.
                    unsafe { libc::kill(pid, libc::SIGKILL) };
                    continue;
                }
            }
        } else if event == 0 && signal != libc::SIGSTOP && signal != libc::SIGTRAP {
            // A new thread begins with a stop; everything else is a signal for the program itself.
            pass_on = c_long::from(signal);
        }
        ask(libc::PTRACE_SYSCALL, thread, pass_on);
    }
}
