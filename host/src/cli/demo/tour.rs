//! The steps of the tour.

mod audit;
mod budget;
mod replay;

use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use super::stop::Stop;
use super::tracker::Tracker;
use super::world::World;
use crate::cli::ui::Ui;

/// How long the daemon may take to become ready.
const READY_TRIES: u32 = 300;
/// Between two tries.
const READY_EVERY: Duration = Duration::from_millis(100);
/// Most lines of one command's output that are shown.
const LINES_SHOWN: usize = 32;

/// A running daemon and the commands that talk to it.
pub(super) struct Tour<'a> {
    world: &'a World,
    tracker: &'a Tracker,
    ui: &'a Ui,
    program: PathBuf,
    daemon: Daemon,
    step: u32,
}

/// Nothing once it was stopped.
struct Daemon(Option<Child>);

impl Daemon {
    /// Ask it to stop, and wait for its end.
    fn stop(&mut self) {
        let Some(mut child) = self.0.take() else { return };
        if let Some(pid) = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap_or(0)) {
            let _sent = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ended = child.wait();
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<'a> Tour<'a> {
    /// Start the daemon.
    #[expect(clippy::disallowed_methods, reason = "the tour types what a reader could: it starts the real program")]
    pub(super) fn new(world: &'a World, tracker: &'a Tracker, ui: &'a Ui) -> Result<Self, Stop> {
        let program = std::env::current_exe().map_err(Stop::file(&world.root))?;
        let log = File::create(&world.log).map_err(Stop::file(&world.log))?;
        let child = Command::new(&program)
            .arg("--config")
            .arg(&world.config)
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(Stop::file(&program))?;
        let mut tour = Self { world, tracker, ui, program, daemon: Daemon(Some(child)), step: 0 };
        tour.wait_until_ready()?;
        Ok(tour)
    }

    #[expect(clippy::disallowed_methods, reason = "the tour has nothing else to do than to wait for the daemon")]
    fn wait_until_ready(&mut self) -> Result<(), Stop> {
        for _ in 0..READY_TRIES {
            if matches!(self.daemon.0.as_mut().map(Child::try_wait), Some(Ok(Some(_)))) {
                break;
            }
            if self.output(&["tools", "list"]).is_ok_and(|output| output.status.success()) {
                return Ok(());
            }
            std::thread::sleep(READY_EVERY);
        }
        Err(Stop::NotReady(self.world.log.clone()))
    }

    /// All steps.
    pub(super) fn walk(&mut self) -> Result<(), Stop> {
        self.say("A daemon runs on a copy of a small accounting folder and a small source tree.");
        self.run(
            "These tools are installed. Each has a manifest that grants what it may see and change.",
            &["tools", "list"],
            0,
        )?;
        let report = self.report()?;
        self.rename()?;
        self.meanwhile()?;
        self.undo_report(&report)?;
        self.retry()?;
        self.ticket()?;
        self.order()?;
        self.runs()?;
        self.hostile()?;
        self.replay(&report)?;
        self.stop()?;
        self.audit()?;
        self.close();
        Ok(())
    }

    fn report(&mut self) -> Result<String, Stop> {
        let input = r#"{"input":"ledger","output":"reports/summary.md"}"#;
        let preview = ["preview", "csv-report", "--input", input];
        self.run(
            "Preview: the tool runs, reads the ledgers and stages a report. Nothing is written; this is its plan.",
            &preview,
            0,
        )?;
        let plan = self.field(&preview, "/plan/digest", 0)?;
        let commit = ["commit", &plan];
        let reply =
            self.answer("Commit exactly that plan, by its digest. The reply carries a signed receipt.", &commit, 0)?;
        let call = text_at(&reply, "/call_id");
        let receipt = self.world.root.join("receipt.json");
        let receipt_text = reply.pointer("/receipt").cloned().unwrap_or(Value::Null).to_string();
        std::fs::write(&receipt, receipt_text).map_err(Stop::file(&receipt))?;
        let path = receipt.display().to_string();
        self.run("A claim without a receipt is just a claim. This one verifies.", &["receipts", "verify", &path], 0)?;
        Ok(call)
    }

    fn rename(&mut self) -> Result<(), Stop> {
        let input = r#"{"from":"invoice_total","to":"order_total"}"#;
        let call = ["call", "rename-symbol", "--input", input];
        let reply = self.answer(
            "Rename a symbol across a source tree. The plan deletes files, and the manifest holds deletions: it waits for a human.",
            &call,
            4,
        )?;
        let approval = text_at(&reply, "/approval/id");
        self.run(
            "The operator sees the whole plan, on a socket that agents cannot administer through.",
            &["approvals", "show", &approval],
            0,
        )?;
        let approve = ["approvals", "approve", &approval, "--reason", "looks right"];
        self.run(
            "The operator agrees to exactly this plan. The host commits it; the tool does not run again.",
            &approve,
            0,
        )?;
        let call = text_at(&reply, "/call_id");
        self.run(
            "Second thoughts: undo checks that nobody changed the files since, and restores every one.",
            &["undo", &call],
            0,
        )
    }

    fn meanwhile(&mut self) -> Result<(), Stop> {
        let input = r#"{"from":"invoice_total","to":"order_total"}"#;
        let call = ["call", "rename-symbol", "--input", input];
        let reply = self.answer("The agent asks for the rename once more, and it is held once more.", &call, 4)?;
        let path = self.world.root.join("src/README.md");
        let edited = std::fs::read_to_string(&path).map_err(Stop::file(&path))? + "\nedited while somebody decided\n";
        std::fs::write(&path, edited).map_err(Stop::file(&path))?;
        let approve = ["approvals", "approve", &text_at(&reply, "/approval/id"), "--reason", "as before"];
        self.run(
            "Meanwhile somebody edits a file of the plan. The operator agrees to what was shown, so it is refused: nothing is changed.",
            &approve,
            6,
        )?;
        let incident = ["incident", &text_at(&reply, "/call_id")];
        self.run(
            "One command answers what an incident asks: context used, policy that allowed it, what was executed, what each check said.",
            &incident,
            0,
        )
    }

    fn undo_report(&mut self, call: &str) -> Result<(), Stop> {
        let path = self.world.root.join("books/reports/summary.md");
        let edited = std::fs::read_to_string(&path).map_err(Stop::file(&path))? + "\nedited by hand\n";
        std::fs::write(&path, edited).map_err(Stop::file(&path))?;
        self.run(
            "Somebody edited the committed report meanwhile, so undoing it is refused: nothing unknown is overwritten.",
            &["undo", call],
            6,
        )
    }

    fn retry(&mut self) -> Result<(), Stop> {
        let input = r#"{"title":"Quarter closed","body":"All ledgers are in."}"#;
        let call = ["call", "notes.add", "--input", input, "--key", "close-q2"];
        self.run("Call with an idempotency key.", &call, 0)?;
        self.run("The same call again, as after a lost connection: the stored reply, not a second note.", &call, 0)
    }

    fn ticket(&mut self) -> Result<(), Stop> {
        let input = format!(r#"{{"tracker":"{}","id":"7","text":"Found it: rounding."}}"#, self.tracker.origin());
        self.run(
            "Another system: a ticket tracker on loopback, part of this tour. The preview shows the exact request; nothing is sent.",
            &["preview", "ticket.comment", "--input", &input],
            0,
        )?;
        let call = ["call", "ticket.comment", "--input", &input];
        let reply = self.answer("Call it: a request that changes something there waits for a human.", &call, 4)?;
        let approval = text_at(&reply, "/approval/id");
        let approve = ["approvals", "approve", &approval, "--reason", "good answer"];
        self.run("The operator agrees, and the host sends exactly this request, once.", &approve, 0)?;
        self.log_of_tracker("The tracker's own log says so, with the idempotency key that the host added.", 1)
    }

    fn order(&mut self) -> Result<(), Stop> {
        let chairs = r#"{"name":"chairs","by":3}"#;
        self.run("Tools keep values in buckets, too: a counter.", &["call", "counter.add", "--input", chairs], 0)?;
        let begun = self.answer(
            "A transaction: several calls that are committed as one, or not at all.",
            &["transactions", "begin"],
            0,
        )?;
        let transaction = text_at(&begun, "/transaction");
        let order = r#"{"order":"o-1","article":"chair","count":2}"#;
        let ship = format!(r#"{{"order":"o-1","carrier":"{}"}}"#, self.tracker.origin());
        for (why, tool, input, wanted) in [
            ("First step: the order is written down.", "saga.confirm", order, 0),
            ("Second step: it sees the order and tells the carrier.", "saga.ship", ship.as_str(), 0),
            (
                "Third step: the stock has no such article. It fails.",
                "saga.reserve",
                r#"{"article":"chair","count":2}"#,
                1,
            ),
        ] {
            self.run(why, &["call", tool, "--input", input, "--transaction", &transaction], wanted)?;
        }
        self.run("So the whole order is rolled back.", &["transactions", "rollback", &transaction], 0)?;
        self.log_of_tracker("No order was written, and the carrier did not hear of it: the log has not grown.", 1)
    }

    /// Show what the tracker was asked, and check how often.
    fn log_of_tracker(&mut self, why: &str, wanted: usize) -> Result<(), Stop> {
        self.say(why);
        let asked = self.tracker.asked();
        self.ui.note(&asked.join("\n"));
        if asked.len() == wanted {
            return Ok(());
        }
        Err(Stop::Unexpected {
            command: "the tracker's log".to_owned(),
            found: i32::try_from(asked.len()).unwrap_or(i32::MAX),
            wanted: u8::try_from(wanted).unwrap_or(u8::MAX),
            output: asked.join("\n"),
        })
    }

    fn hostile(&mut self) -> Result<(), Stop> {
        self.run("A tool that never ends, stopped by its fuel.", &["call", "spin", "--input", "{}"], 7)?;
        self.run(
            "The same tool with nearly endless fuel, stopped by its deadline.",
            &["call", "spin-long", "--input", "{}"],
            7,
        )?;
        self.run(
            "A tool that tries to leave its workspace: every attempt is refused and on record.",
            &["call", "path-escape", "--input", "{}"],
            0,
        )
    }

    fn stop(&mut self) -> Result<(), Stop> {
        let target = ["--level", "tool", "--name", "csv-report", "--reason"];
        self.run(
            "Something is wrong with a tool. An operator stops it at once, whatever runs.",
            &[&["kill", "set"], &target[..], &["its totals look wrong"]].concat(),
            0,
        )?;
        let input = r#"{"input":"ledger","output":"reports/summary.md"}"#;
        self.run(
            "Whoever calls it is told why, and whom to ask. Other tools run on.",
            &["call", "csv-report", "--input", input],
            3,
        )?;
        self.run("What is stopped, by whom and why.", &["kill", "list"], 0)?;
        self.run(
            "The switch holds after a restart, too, until somebody clears it.",
            &[&["kill", "clear"], &target[..], &["looked at"]].concat(),
            0,
        )
    }

    fn close(&mut self) {
        let config = self.world.config.display();
        let program = self.program.display();
        self.say(&format!(
            "Done. The folder stays: {}\n\nGo on by yourself:\n  alias toolkeep='{program} --config {config}'\n  toolkeep serve &\n  toolkeep tools list\n  toolkeep preview csv-report --input '{{\"input\":\"ledger\",\"output\":\"reports/again.md\"}}'\n  toolkeep approvals list --all\n  toolkeep doctor",
            self.world.root.display()
        ));
    }

    fn say(&mut self, text: &str) {
        self.step += 1;
        self.ui.note(&format!("\n── {}. {text}", self.step));
    }

    /// Show a command and its output.
    fn run(&mut self, why: &str, arguments: &[&str], wanted: u8) -> Result<(), Stop> {
        self.say(why);
        self.ui.note(&format!("$ toolkeep {}", shell(arguments)));
        let output = self.checked(arguments, wanted)?;
        let mut lines = output.lines();
        let shown: Vec<&str> = lines.by_ref().take(LINES_SHOWN).collect();
        self.ui.note(&shown.join("\n"));
        let hidden = lines.count();
        if hidden > 0 {
            self.ui.note(&format!("… {hidden} more lines"));
        }
        Ok(())
    }

    /// Run a command once, show its output for people, and give its answer as JSON.
    fn answer(&mut self, why: &str, arguments: &[&str], wanted: u8) -> Result<Value, Stop> {
        self.say(why);
        self.ui.note(&format!("$ toolkeep {}", shell(arguments)));
        let reply = self.json(arguments, wanted)?;
        self.ui.note(&summary(&reply));
        Ok(reply)
    }

    fn json(&self, arguments: &[&str], wanted: u8) -> Result<Value, Stop> {
        let mut with_json = vec!["-o", "json"];
        with_json.extend(arguments);
        let text = self.checked(&with_json, wanted)?;
        let body = text.find('{').and_then(|at| text.get(at..)).unwrap_or_default();
        let parsed = serde_json::Deserializer::from_str(body).into_iter::<Value>().next();
        parsed.and_then(Result::ok).ok_or_else(|| Stop::Missing {
            command: shell(arguments),
            field: "/",
            output: text.clone(),
        })
    }

    fn field(&self, arguments: &[&str], field: &'static str, wanted: u8) -> Result<String, Stop> {
        let answer = self.json(arguments, wanted)?;
        answer.pointer(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(|| Stop::Missing {
            command: shell(arguments),
            field,
            output: answer.to_string(),
        })
    }

    fn checked(&self, arguments: &[&str], wanted: u8) -> Result<String, Stop> {
        let output = self.output(arguments)?;
        let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let found = output.status.code().unwrap_or(-1);
        if found == i32::from(wanted) {
            return Ok(text);
        }
        Err(Stop::Unexpected { command: shell(arguments), found, wanted, output: text })
    }

    #[expect(clippy::disallowed_methods, reason = "the tour types what a reader could: it starts the real program")]
    fn output(&self, arguments: &[&str]) -> Result<std::process::Output, Stop> {
        Command::new(&self.program)
            .arg("--config")
            .arg(&self.world.config)
            .args(arguments)
            .stdin(Stdio::null())
            .output()
            .map_err(Stop::file(&self.program))
    }
}

fn text_at(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

/// The reply in a few lines.
fn summary(reply: &Value) -> String {
    if reply.get("status").is_none() {
        return reply.to_string();
    }
    let mut lines = vec![format!(
        "{} / {}   {}",
        text_at(reply, "/status"),
        text_at(reply, "/outcome"),
        text_at(reply, "/call_id")
    )];
    if let Some(totals) = reply.pointer("/plan/totals") {
        lines.push(format!("plan {}  {totals}", text_at(reply, "/plan/digest")));
    }
    if let Some(approval) = reply.pointer("/approval/id").and_then(Value::as_str) {
        lines.push(format!("waits for approval {approval}: {}", text_at(reply, "/error/message")));
    }
    if let Some(receipt) = reply.pointer("/receipt/statement/receipt").and_then(Value::as_str) {
        lines.push(format!("receipt {receipt}, signed"));
    }
    lines.join("\n")
}

fn shell(arguments: &[&str]) -> String {
    let quote = |text: &&str| {
        let plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || "-_./:=@".contains(c));
        if plain { (*text).to_owned() } else { format!("'{text}'") }
    };
    arguments.iter().map(quote).collect::<Vec<_>>().join(" ")
}
