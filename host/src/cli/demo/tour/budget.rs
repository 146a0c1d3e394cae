//! The steps about runs: one that is stopped by its budget, one that turns in circles.

use super::super::stop::Stop;
use super::{Tour, text_at};

impl Tour<'_> {
    /// A run with a budget of two calls, and one that may make the same call twice.
    pub(super) fn runs(&mut self) -> Result<(), Stop> {
        let open = ["runs", "open", "--label", "count words", "--budget", "calls=2"];
        let opened = self.answer(
            "A run is one task of an agent. This one has a budget that nothing in it can raise.",
            &open,
            0,
        )?;
        let run = text_at(&opened, "/run");
        for (why, text, wanted) in [
            ("Its first call.", "one", 0),
            ("Its second call: nothing is left.", "two", 0),
            ("Its third call is refused before anything runs.", "three", 7),
        ] {
            let input = format!(r#"{{"text":"{text}"}}"#);
            self.run(why, &["call", "text-stats", "--input", &input, "--run", &run], wanted)?;
        }
        self.run("The operator sees what the run has used, and what is left.", &["runs", "show", &run], 0)?;
        let open = ["runs", "open", "--label", "try again", "--same-call", "2"];
        let opened = self.answer("Another run: the same call with the same input, at most twice.", &open, 0)?;
        let run = text_at(&opened, "/run");
        let call = ["call", "text-stats", "--input", r#"{"text":"again"}"#, "--run", &run];
        self.run("Once.", &call, 0)?;
        self.run("Twice.", &call, 0)?;
        self.run("The third time it turns in circles: refused, and on record as an escalation.", &call, 7)?;
        self.run("What was spent, by run.", &["budgets", "spend", "--by", "run"], 0)
    }
}
