//! `make hard`: every proof of reliability in turn, each with its share of fifteen minutes, and one summary at the end.
//!
//! Proofs are tests, so this starts test programs: one process for each proof, told by its environment that it is a hard run
//! and how many seconds it has. A proof says what it has done in lines that begin with the number of its promise; one that
//! says nothing, fails, or does not end has not proved anything, and then this command fails. One that says that this machine
//! does not let it begin is named in the summary. Building is not part of the time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;

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

/// One proof: the test program, the start of its tests' names, and its share of the time against the others'. A share of zero
/// is for one that always does everything, in seconds.
type Proof = (&'static str, &'static str, u64);

/// Those that always do everything come first, so that the others share what these leave.
const PROOFS: &[Proof] = &[
    (RUNNER, "commit::power::r07_t_f11_every_state", 0),
    (RUNNER, "daemon::full::g4_", 0),
    (RUNNER, "sandbox::bombs::g9_", 0),
    (RUNNER, "sandbox::crafted::g8_", 0),
    (RUNNER, "egress::ssrf::r49_t_n2_g10_no_generated", 0),
    (HOST, "ledger::intact::tests::g11_", 0),
    (HOST, "ledger::verify::tests::g12_r40_every_deletion", 0),
    (HOST, "ledger::verify::tests::g12_r40_every_single", 0),
    (CORE, "display::tests::g14_t_p1_every_code_point", 0),
    (RUNNER, "daemon::outside::leaks::r48_t_s1_g15_", 0),
    (CORE, "json::tests::g16_every_broken", 0),
    (RUNNER, "doors::strict::g16_every_departure", 0),
    (RUNNER, "daemon::foreign::g17_r16_a_foreign_id_looks_missing_to_another_tenant", 0),
    (RUNNER, "daemon::stopping::g18_", 0),
    (RUNNER, "daemon::outside::replayed::r41_g13_", 0),
    (RUNNER, "hard::race::g5_", 4),
    (RUNNER, "hard::kill::g1_t_f11_t_f12_a_commit", 6),
    (RUNNER, "hard::kill::g1_a_recovery_killed", 4),
    (RUNNER, "hard::kill::g1_a_recovery_after", 3),
    (RUNNER, "daemon::outside::syscalls::g1_", 14),
    (RUNNER, "daemon::kill::g1_", 5),
    (RUNNER, "daemon::interrupted::r26_g1_", 4),
    (RUNNER, "hard::fault::g3_t_f11_any_failing", 6),
    (RUNNER, "hard::fault::g3_any_failing", 4),
    (RUNNER, "daemon::retries::g6_", 10),
    (RUNNER, "daemon::transactions::life::r08_g6_", 3),
    (RUNNER, "daemon::outside::faulted::g07_", 6),
    (RUNNER, "daemon::outside::killed::g1_g7_", 4),
    (RUNNER, "daemon::outside::killed::live::r07_g1_g7_", 4),
    (RUNNER, "hard::generated::g8_", 10),
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
    let programs = built()?;
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let proofs: Vec<&Proof> = PROOFS
        .iter()
        .filter(|(_, test, _)| wanted.is_empty() || wanted.iter().any(|part| test.contains(part)))
        .collect();
    let ends = Instant::now() + Duration::from_secs(TOTAL_S);
    let mut weights: u64 = proofs.iter().map(|(.., weight)| weight).sum();
    let mut verdicts = Vec::new();
    for (program, test, weight) in proofs {
        let left = ends.saturating_duration_since(Instant::now()).as_secs();
        let share = (*weight > 0).then(|| left.saturating_sub(SPARE_S) * weight / weights.max(1));
        weights -= weight;
        let place = programs.get(*program).ok_or_else(|| format!("there is no test program `{program}`"))?;
        println!("hard: {test}{}", share.map_or(String::new(), |share| format!(", {share} s")));
        verdicts.push(proved(place, test, share, ends)?);
    }
    Ok(summary(&verdicts))
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
    test: &'static str,
    share: Option<u64>,
    ends: Instant,
) -> Result<Verdict, Box<dyn std::error::Error>> {
    let log = std::env::temp_dir().join(format!("toolkeep-hard-{}.log", std::process::id()));
    let file = File::create(&log)?;
    let mut command = Command::new(program);
    command.args([test, "--nocapture", "--test-threads=1"]).env("TOOLKEEP_HARD", "1").process_group(0);
    command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
    if let Some(share) = share {
        command.env("TOOLKEEP_PROOF_S", share.to_string());
    }
    let began = Instant::now();
    let ended = within(command.spawn()?, ends)?;
    let text = String::from_utf8_lossy(&std::fs::read(&log)?).into_owned();
    std::fs::remove_file(&log)?;
    let said: Vec<String> = text.lines().filter_map(line_of).map(str::to_owned).collect();
    let skipped = text.lines().find(|line| line.starts_with("skipped:")).map(str::to_owned);
    let problem = match ended {
        None => Some("it did not end in time".to_owned()),
        Some(false) => Some("it FAILED".to_owned()),
        Some(true) if said.is_empty() && skipped.is_none() => Some("it said nothing".to_owned()),
        Some(true) => None,
    };
    said.iter().for_each(|line| println!("  {line}"));
    if let Some(problem) = &problem {
        println!("  {problem}");
        std::io::stderr().write_all(text.as_bytes())?;
    }
    Ok(Verdict { proof: test, took: began.elapsed(), said, problem, skipped })
}

/// What a proof says of itself: `G` and a number first. The test harness writes before it on the same line.
fn line_of(line: &str) -> Option<&str> {
    let line = line.split_once(" ... ").map_or(line, |(_, rest)| rest);
    let number = line.strip_prefix('G')?.split_once(' ')?.0;
    number.parse::<u8>().is_ok().then_some(line)
}

/// Wait for the end of a process, and say whether it ended well. One that takes too long is killed with all that it started.
fn within(mut child: Child, ends: Instant) -> std::io::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if Instant::now() >= ends {
            if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
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
