//! The steps about recordings: a call replayed, a manifest and the next version of a tool tried on what was called so far,
//! and that version installed past the golden cases that guard it.

use super::{Tour, text_at};
use crate::cli::demo::stop::Stop;
use crate::cli::demo::world::NEXT;

/// What every version of the tool for texts has to answer alike.
const PLAIN: &str = r#"{"text":"nothing special"}"#;
/// What the manifest of the reports lets be written, and what a stricter one would.
const WRITES: (&str, &str) = ("[\"reports\", \"reports/**\"]", "[\"approved/**\"]");

impl Tour<'_> {
    pub(super) fn replay(&mut self, call: &str) -> Result<(), Stop> {
        self.run(
            "The report was edited by hand since. Its recording is enough to run the call again, offline, and to get the same.",
            &["replay", call],
            0,
        )?;
        let tools = self.world.root.join("tools");
        let (now, stricter) = (tools.join("csv-report.toml"), tools.join("csv-report.stricter"));
        let text = std::fs::read_to_string(&now).map_err(Stop::file(&now))?.replace(WRITES.0, WRITES.1);
        std::fs::write(&stricter, text).map_err(Stop::file(&stricter))?;
        self.run(
            "What would a stricter manifest have done to the calls of this tour? Nothing runs but recordings.",
            &["replay", "--manifest", &stricter.display().to_string(), "--last", "100"],
            9,
        )?;
        self.next_version()
    }

    /// The next release of a tool, which counts some words otherwise.
    fn next_version(&mut self) -> Result<(), Stop> {
        let (tool, component, _) = NEXT;
        let input = r#"{"text":"a follow-up on the to-do list"}"#;
        for (name, why, input) in [
            ("plain", "A call whose answer is to stay as it is, whoever changes the tool.", PLAIN),
            ("hyphens", "And another one, of a text with hyphens.", input),
        ] {
            let reply = self.answer(why, &["call", tool, "--input", input], 0)?;
            let call = text_at(&reply, "/call_id");
            let add = ["eval", "add", &call, "--suite", "texts", "--name", name];
            self.run("From now on it is a golden case: its input, its world and what came of it.", &add, 0)?;
        }
        let folder = self.world.root.join("next");
        let wasm = folder.join(format!("{component}.wasm")).display().to_string();
        self.run(
            "The next version of the tool lies beside the folder. Which of the calls so far would it have answered otherwise, and how?",
            &["replay", "--with", &wasm, "--tool", tool, "--last", "100"],
            9,
        )?;
        let manifest = folder.join(format!("{tool}.toml")).display().to_string();
        let install = ["tools", "install", manifest.as_str()];
        self.run("Its manifest names the golden cases, and one of them fails: it is not installed.", &install, 1)?;
        self.run(
            "That words may have hyphens is what the release is for. The case that says otherwise goes, on record.",
            &["eval", "remove", "texts", "hyphens"],
            0,
        )?;
        self.run("Now it passes and is in force.", &install, 0)?;
        self.run("Six words where there were eight.", &["call", tool, "--input", input], 0)
    }
}
