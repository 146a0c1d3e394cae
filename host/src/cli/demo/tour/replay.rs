//! The steps about recordings: a call replayed, and a manifest tried on what was called so far.

use super::Tour;
use crate::cli::demo::stop::Stop;

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
        )
    }
}
