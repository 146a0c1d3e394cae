//! One offence or more for every rule: a rule that cannot fail is a defect.

use super::repository::Repository;

/// A repository with one file that breaks a rule.
pub(super) struct Offence {
    /// Which rule.
    pub(super) rule: &'static str,
    /// The file.
    pub(super) path: &'static str,
    /// What it holds.
    pub(super) text: &'static str,
    /// What the rule must say, in part.
    pub(super) says: &'static str,
}

impl Offence {
    /// The repository that commits it.
    pub(super) fn repository(&self) -> Repository {
        // Long files are written as `line*count`.
        let text = match self.text.split_once('*').map(|(line, count)| (line, count.parse::<usize>())) {
            Some((line, Ok(count))) => format!("{line}\n").repeat(count),
            _ => self.text.to_owned(),
        };
        Repository::of([(self.path, text.as_str())])
    }
}

const fn offence(rule: &'static str, path: &'static str, text: &'static str, says: &'static str) -> Offence {
    Offence { rule, path, text, says }
}

/// What every rule must find.
pub(super) const OFFENCES: &[Offence] = &[
    offence("top level", "scripts/x.sh", "", "scripts: not a name"),
    offence("top level", "demo/x.csv", "", "demo: not a name"),
    offence("names", "host/src/daemon/mod.rs", "//! x", "instead of `foo/mod.rs`"),
    offence("names", "host/src/path_util.rs", "//! x", "`path_util` says nothing"),
    offence("names", "tests/common/x.rs", "//! x", "`common` says nothing"),
    offence("no forgotten file", "host/src/lost.rs", "//! x", "mod lost;"),
    offence("no forgotten file", "tests/lost.rs", "//! x", "never compiled"),
    offence("crate dependencies", "host/core/Cargo.toml", "[dependencies]\ntokio = \"1\"\n", "out of the pure core"),
    offence("crate dependencies", "host/core/Cargo.toml", "[dev-dependencies]\ntoolkeep = \"1\"\n", "must not depend"),
    offence("crate dependencies", "host/Cargo.toml", "[dependencies]\nwasmtime = \"48\"\n", "`wasmtime` belongs"),
    offence("crate dependencies", "host/sandbox/Cargo.toml", "[dependencies]\nanyhow = \"1\"\n", "`anyhow` belongs"),
    offence(
        "crate dependencies",
        "guest-sdk/Cargo.toml",
        "[target.'cfg(unix)'.dependencies]\ntoolkeep-core.workspace = true\n",
        "`toolkeep-core`",
    ),
    offence("who names which crate", "host/src/load.rs", "use wasmtime::Engine;\n", "names `wasmtime`"),
    offence("who names which crate", "host/src/call.rs", "fn f() { rusqlite::params![]; }\n", "names `rusqlite`"),
    offence("who names which crate", "host/src/cli.rs", "fn f() -> anyhow::Result<()> {}\n", "names `anyhow`"),
    offence("ambient authority", "host/src/call.rs", "let now = SystemTime::now();\n", "names `SystemTime::now`"),
    offence("ambient authority", "host/src/call.rs", "let now = Instant::now();\n", "names `Instant::now`"),
    offence("ambient authority", "host/src/call.rs", "let home = env::var(X);\n", "names `env::var`"),
    offence("ambient authority", "host/src/seal.rs", "let place = std::env::temp_dir();\n", "names `std::env`"),
    offence("ambient authority", "host/src/decide.rs", "use std::fs;\n", "names `std::fs`"),
    offence("ambient authority", "host/core/src/plan.rs", "use std::fs::File;\n", "the core is pure"),
    offence("stages", "host/src/admit.rs", "use crate::commit::Committed;\n", "comes later"),
    offence("stages", "host/src/seal.rs", "use crate::execute::{Executed, execute};\n", "runs the stage"),
    offence("stages", "host/src/seal.rs", "use crate::{execute, screen};\n", "hides what a stage imports"),
    offence("stages", "host/src/approve/x.rs", "use crate::decide;\n", "runs the stage"),
    offence("stages", "host/src/commit/files.rs", "fn f() { crate::decide::decide(x) }\n", "runs the stage"),
    offence("wire formats and terminals", "host/src/call.rs", "let x = \"jsonrpc\";\n", "knows `jsonrpc`"),
    offence("wire formats and terminals", "host/src/ledger.rs", "use std::process::ExitCode;\n", "knows `ExitCode`"),
    offence("sizes", "host/src/x.rs", "// x*601", "601 lines; at most 600"),
    offence(
        "sizes",
        "host/src/x.rs",
        concat!(
            "fn long() {\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n",
            "\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n\n}\n"
        ),
        "`long` has 82 lines",
    ),
    offence("module documentation", "tests/x.rs", "use std::fmt;\n", "begin with `//!`"),
    offence("module documentation", "host/src/x.rs", "//! x*26", "26 lines of module documentation"),
    offence("module documentation", "host/src/x.rs", "//! placeholder\n", "say why"),
    offence("hygiene", "host/src/x.rs", "// TODO: later\n", "puts something off"),
    offence("hygiene", "benches/x.rs", "fn f() {} // FIXME\n", "puts something off"),
    offence("hygiene", "host/src/x.rs", "#[allow(dead_code)]\n", "is not `#[expect"),
    offence("hygiene", "host/src/x.rs", "#[expect(\n    dead_code\n)]\nfn reason() {}\n", "without a reason"),
    offence("disallowed methods", "host/.clippy.toml", "disallowed-methods = []\n", "`std::env::var` is not"),
    offence("disallowed methods", "host/.clippy.toml", "allow-unwrap-in-tests = true\n", "differ"),
    offence("requirements have tests", "tests/x.rs", "fn r02_x() {}\n", "R01 ("),
    offence("requirements have tests", "tests/x.rs", "fn r99_x() {}\n", "no such requirement"),
    offence("requirements page is current", "docs/requirements.md", "# Requirements\n", "not current"),
    offence("hostile tools have tests", "sample-tools/hostile/spin/src/lib.rs", "//! x\n", "names \"spin\""),
    offence(
        "error codes are documented",
        "docs/errors.md",
        "## `invalid_input`\n## `invalid_input`\n",
        "`invalid_input`",
    ),
    offence("error codes are documented", "docs/errors.md", "## `out_of_luck`\n", "no code `out_of_luck`"),
    offence(
        "error codes are documented",
        "docs/errors.md",
        "| [`denied`](#denied) | yes | 1002 | 3 |\n",
        "| no | 1002 |",
    ),
    offence("the map lists every file once", "host/src/x.rs", "//! x\n", "missing"),
    offence(
        "the map lists every file once",
        "host/ARCHITECTURE.md",
        "- `src/gone.rs`: gone\n",
        "no file `src/gone.rs`",
    ),
];
