//! `make hard`: every proof of reliability in turn, each with its share of fifteen minutes, and one summary at the end.
//!
//! Proofs are tests, so this starts test programs: one process for each proof, told by its environment that it is a hard run
//! and how many seconds it has. A proof says what it has done in lines that begin with the number of its promise; one that
//! says nothing, has no cases, has fewer than are promised, fails, or does not end has not proved anything, and then this command
//! fails. One that says that this machine does not let it begin is named in the summary. Building is not part of the time.
//!
//! A proof has a folder of its own for temporary files, and whatever ends this command ends the proof with all that it started.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::hash::{BuildHasher as _, RandomState};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group, set_parent_process_death_signal};
use serde_json::Value;
use tokio::signal::unix::{SignalKind, signal};
use toolkeep_tests::support::verdict::{chosen, lack, line_of, skipped};

/// All of it, in seconds.
const TOTAL_S: u64 = 15 * 60;
/// What is left for starting, for cases that are underway when their time is up, and for the last words, in seconds.
const SPARE_S: u64 = 90;
/// How often a running proof is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The test programs, by the name of their target.
const RUNNER: &str = "runner";
const HOST: &str = "toolkeep";
const CORE: &str = "toolkeep_core";

/// How long a proof that is ended has to end by itself.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Somebody has asked this command to end.
static ENDED: AtomicBool = AtomicBool::new(false);

/// One proof: the test program, the start of its tests' names, its share of the time against the others', and how many cases it
/// has at least. A share of zero is for one that always does everything, in seconds. Where a number is promised, that is the
/// floor; where all cases of a table are, somewhat less than there are; where a run takes as many as it has time for, those of
/// an ordinary run.
type Proof = (&'static str, &'static str, u64, usize);

/// Those that always do everything come first, so that the others share what these leave.
const PROOFS: &[Proof] = &[
    (RUNNER, "commit::power::r07_t_f11_every_state", 0, 2_000),
    (RUNNER, "daemon::full::g4_", 0, 3),
    (RUNNER, "sandbox::bombs::g9_", 0, 7),
    (RUNNER, "sandbox::crafted::g8_", 0, 40),
    (RUNNER, "egress::ssrf::r49_t_n2_g10_no_generated", 0, 1_500),
    (HOST, "ledger::intact::tests::g11_", 0, 1_000),
    (HOST, "ledger::verify::tests::g12_r40_every_deletion", 0, 1_000),
    (HOST, "ledger::verify::tests::g12_r40_every_single", 0, 100_000),
    (CORE, "display::tests::g14_t_p1_every_code_point", 0, 1_000_000),
    (RUNNER, "daemon::outside::leaks::r48_t_s1_g15_", 0, 400),
    (CORE, "json::tests::g16_every_broken", 0, 100),
    (RUNNER, "doors::strict::g16_every_departure", 0, 40),
    (RUNNER, "daemon::foreign::g17_r16_a_foreign_id_looks_missing_to_another_tenant", 0, 90),
    (RUNNER, "daemon::stopping::g18_", 0, 1_000),
    (RUNNER, "daemon::outside::replayed::r41_g13_", 0, 1_000),
    (RUNNER, "hard::race::g5_", 4, 100_000),
    (RUNNER, "hard::kill::g1_t_f11_t_f12_a_commit", 6, 220),
    (RUNNER, "hard::kill::g1_a_recovery_killed", 4, 40),
    (RUNNER, "hard::kill::g1_a_recovery_after", 3, 80),
    (RUNNER, "daemon::outside::syscalls::g1_", 14, 50),
    (RUNNER, "daemon::kill::g1_", 5, 64),
    (RUNNER, "daemon::interrupted::r26_g1_", 4, 100),
    (RUNNER, "hard::fault::g3_t_f11_any_failing", 6, 1_000),
    (RUNNER, "hard::fault::g3_any_failing", 4, 1_000),
    (RUNNER, "daemon::retries::g6_", 10, 500),
    (RUNNER, "daemon::transactions::life::r08_g6_", 3, 16),
    (RUNNER, "daemon::outside::faulted::g07_", 6, 2_000),
    (RUNNER, "daemon::outside::killed::g1_g7_", 4, 33),
    (RUNNER, "daemon::outside::killed::live::r07_g1_g7_", 4, 16),
    (RUNNER, "hard::generated::g8_", 10, 10_000),
];

/// What became of a proof.
struct Verdict {
    proof: &'static str,
    took: Duration,
    said: Vec<String>,
    /// Why it has proved nothing.
    problem: Option<String>,
    /// Why it could not begin on this machine, in part or at all.
    skipped: Option<String>,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            eprintln!("hard: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Box<dyn std::error::Error>> {
    let names: Vec<&str> = PROOFS.iter().map(|(_, test, ..)| *test).collect();
    let wanted = chosen(&names, &std::env::args().skip(1).collect::<Vec<_>>())?;
    let programs = built()?;
    listen()?;
    let proofs: Vec<&Proof> = PROOFS.iter().filter(|(_, test, ..)| wanted.contains(test)).collect();
    let ends = Instant::now() + Duration::from_secs(TOTAL_S);
    let mut weights: u64 = proofs.iter().map(|(_, _, weight, _)| weight).sum();
    let mut verdicts = Vec::new();
    for proof in proofs {
        let (program, test, weight, _) = proof;
        let left = ends.saturating_duration_since(Instant::now()).as_secs();
        let share = (*weight > 0).then(|| left.saturating_sub(SPARE_S) * weight / weights.max(1));
        weights -= weight;
        let place = programs.get(*program).ok_or_else(|| format!("there is no test program `{program}`"))?;
        println!("hard: {test}{}", share.map_or(String::new(), |share| format!(", {share} s")));
        verdicts.push(proved(place, proof, share, ends)?);
        if ENDED.load(Ordering::Relaxed) {
            return Err("it was asked to end".into());
        }
    }
    Ok(summary(&verdicts))
}

/// Note that somebody asks this command to end: the proof is ended first.
fn listen() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let entered = runtime.enter();
    let mut asked = [signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?];
    drop(entered);
    std::thread::spawn(move || {
        let [interrupt, terminate, hangup] = &mut asked;
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        ENDED.store(true, Ordering::Relaxed);
    });
    Ok(())
}

/// A folder of one proof, gone at the end with all that it has left there.
struct Folder(PathBuf);

impl Folder {
    /// A new one, of which nobody else can know the name beforehand. It is short: paths of sockets are.
    fn new() -> std::io::Result<Self> {
        let name = format!("tk-{:08x}", RandomState::new().hash_one(std::process::id()) & 0xffff_ffff);
        let place = std::env::temp_dir().join(name);
        DirBuilder::new().mode(0o700).create(&place)?;
        Ok(Self(place))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // One that was killed leaves what it has mounted.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        for place in
            mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|at| Path::new(at).starts_with(&self.0))
        {
            let unmounted = Command::new("umount").arg("-l").arg(place).status();
            if !unmounted.is_ok_and(|status| status.success()) {
                eprintln!("hard: {place} stays mounted");
                return;
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("hard: {} stays: {error}", self.0.display());
        }
    }
}

/// Build the test programs and ask cargo where they are.
fn built() -> Result<BTreeMap<String, PathBuf>, Box<dyn std::error::Error>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["test", "--locked", "--workspace", "--no-run", "--message-format=json-render-diagnostics"])
        .stderr(Stdio::inherit())
        .output()?;
    if !output.status.success() {
        return Err("the tests do not build".into());
    }
    let artifacts = String::from_utf8_lossy(&output.stdout).into_owned();
    let program = |line: &str| {
        let artifact: Value = serde_json::from_str(line).ok()?;
        let tests = artifact.pointer("/profile/test")?.as_bool()?;
        let (name, place) = (artifact.pointer("/target/name")?.as_str()?, artifact.get("executable")?.as_str()?);
        // The program `toolkeep` has no tests of its own; its library has.
        let of_library = artifact.pointer("/target/kind/0").is_some_and(|kind| kind != "bin");
        (tests && of_library).then(|| (name.to_owned(), PathBuf::from(place)))
    };
    Ok(artifacts.lines().filter_map(program).collect())
}

/// Run one proof to its end, or to the end of all time.
fn proved(
    program: &Path,
    (_, test, _, floor): &Proof,
    share: Option<u64>,
    ends: Instant,
) -> Result<Verdict, Box<dyn std::error::Error>> {
    let folder = Folder::new()?;
    let log = folder.0.join("log");
    let file = File::create_new(&log)?;
    let mut command = Command::new(program);
    command.args([test, "--nocapture", "--test-threads=1"]).env("TOOLKEEP_HARD", "1").process_group(0);
    command.env("TMPDIR", &folder.0).stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if let Some(share) = share {
        command.env("TOOLKEEP_PROOF_S", share.to_string());
    }
    // SAFETY: between fork and exec there is one system call and nothing that takes a lock.
    unsafe { command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?)) };
    let began = Instant::now();
    let ended = within(command.spawn()?, ends)?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    let said: Vec<String> = text.lines().filter_map(line_of).map(str::to_owned).collect();
    let skipped = text.lines().find_map(skipped).map(str::to_owned);
    let problem = match ended {
        None => Some("it did not end in time".to_owned()),
        Some(false) => Some("it FAILED".to_owned()),
        Some(true) if skipped.is_some() && said.is_empty() => None,
        Some(true) => lack(test, &said, if skipped.is_some() { 0 } else { *floor }),
    };
    said.iter().for_each(|line| println!("  {line}"));
    if let Some(problem) = &problem {
        println!("  {problem}");
        std::io::stderr().write_all(text.as_bytes())?;
    }
    Ok(Verdict { proof: test, took: began.elapsed(), said, problem, skipped })
}

/// Wait for the end of a process, and say whether it ended well. One that takes too long is killed with all that it started.
fn within(mut child: Child, ends: Instant) -> std::io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= ends || ENDED.load(Ordering::Relaxed) {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                kill_process_group(group, Signal::TERM)?;
                std::thread::sleep(LAST_WORDS);
                // Not waited for yet, so that nobody else has its number.
                kill_process_group(group, Signal::KILL)?;
            }
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn summary(verdicts: &[Verdict]) -> bool {
    let all: Duration = verdicts.iter().map(|verdict| verdict.took).sum();
    println!("\nhard: what was done in {} s, by number of promise", all.as_secs());
    let mut lines: Vec<&String> = verdicts.iter().flat_map(|verdict| &verdict.said).collect();
    lines.sort_by_key(|line| line.split_once(' ').and_then(|(number, _)| number.get(1..)?.parse::<u8>().ok()));
    lines.iter().for_each(|line| println!("  {line}"));
    let unproved: Vec<_> = verdicts.iter().filter(|verdict| verdict.problem.is_some()).collect();
    for verdict in &unproved {
        println!("  NOT PROVED: {}: {}", verdict.proof, verdict.problem.as_deref().unwrap_or_default());
    }
    for (verdict, why) in verdicts.iter().filter_map(|verdict| Some((verdict, verdict.skipped.as_ref()?))) {
        println!("  NOT ON THIS MACHINE: {}: {why}", verdict.proof);
    }
    println!("hard: {} of {} proofs have no finding", verdicts.len() - unproved.len(), verdicts.len());
    unproved.is_empty()
}
