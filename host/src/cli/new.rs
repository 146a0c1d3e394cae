//! `toolkeep new`: a tool that builds at the first try, in Rust (with a test of its own), Python or JavaScript.
//!
//! What the other languages begin with are the sample tools themselves, so that what is tested there is what is written here.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use toolkeep_core::id::ToolName;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;

/// Files and their templates. `{{name}}`, `{{component}}` and `{{sdk}}` are filled in, in names too.
type Files = &'static [(&'static str, &'static str)];

/// What an operator grants.
const MANIFEST: &str = include_str!("../../../guest-sdk/template/manifest.toml.in");

/// A crate.
const RUST: Files = &[
    ("Cargo.toml", include_str!("../../../guest-sdk/template/Cargo.toml.in")),
    ("{{name}}.toml", MANIFEST),
    ("README.md", include_str!("../../../guest-sdk/template/README.md.in")),
    (".gitignore", include_str!("../../../guest-sdk/template/gitignore.in")),
    ("src/lib.rs", include_str!("../../../guest-sdk/template/src-lib.rs.in")),
];

/// A module for componentize-py.
const PYTHON: Files = &[
    ("{{name}}.toml", MANIFEST),
    ("README.md", include_str!("../../../guest-sdk/template/python/README.md.in")),
    (".gitignore", include_str!("../../../guest-sdk/template/python/gitignore.in")),
    ("requirements.txt", include_str!("../../../sample-tools/python/lines/requirements.txt")),
    ("tool.py", include_str!("../../../sample-tools/python/lines/tool.py")),
    ("tools.json", include_str!("../../../sample-tools/python/lines/tools.json")),
    ("wit/context.wit", include_str!("../../../wit/context.wit")),
    ("wit/log.wit", include_str!("../../../wit/log.wit")),
    ("wit/messages.wit", include_str!("../../../wit/messages.wit")),
    ("wit/progress.wit", include_str!("../../../wit/progress.wit")),
    ("wit/tool.wit", include_str!("../../../wit/tool.wit")),
];

/// A package for componentize-js. Its world is one of its own: JavaScript has no files by itself.
const JAVASCRIPT: Files = &[
    ("{{name}}.toml", MANIFEST),
    ("README.md", include_str!("../../../guest-sdk/template/js/README.md.in")),
    (".gitignore", include_str!("../../../guest-sdk/template/js/gitignore.in")),
    ("package.json", include_str!("../../../sample-tools/js/lines/package.json")),
    ("build.mjs", include_str!("../../../sample-tools/js/lines/build.mjs")),
    ("tool.js", include_str!("../../../sample-tools/js/lines/tool.js")),
    ("tools.json", include_str!("../../../sample-tools/js/lines/tools.json")),
    ("wit/world.wit", include_str!("../../../sample-tools/js/lines/wit/world.wit")),
    (
        "wit/deps/wasi-filesystem/filesystem.wit",
        include_str!("../../../sample-tools/js/lines/wit/deps/wasi-filesystem/filesystem.wit"),
    ),
    ("wit/deps/toolkeep-tool/context.wit", include_str!("../../../wit/context.wit")),
    ("wit/deps/toolkeep-tool/log.wit", include_str!("../../../wit/log.wit")),
    ("wit/deps/toolkeep-tool/messages.wit", include_str!("../../../wit/messages.wit")),
    ("wit/deps/toolkeep-tool/progress.wit", include_str!("../../../wit/progress.wit")),
    ("wit/deps/toolkeep-tool/tool.wit", include_str!("../../../wit/tool.wit")),
];

/// What a tool is written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Lang {
    /// A crate on the SDK
    Rust,
    /// A module for componentize-py
    Python,
    /// A package for componentize-js
    Js,
}

impl Lang {
    const fn files(self) -> Files {
        match self {
            Self::Rust => RUST,
            Self::Python => PYTHON,
            Self::Js => JAVASCRIPT,
        }
    }

    /// Where the build leaves the component.
    fn component(self, name: &str) -> String {
        match self {
            Self::Rust => format!("target/wasm32-wasip2/release/{}.wasm", name.replace('-', "_")),
            Self::Python | Self::Js => "tool.wasm".to_owned(),
        }
    }

    /// What to do next.
    const fn next(self) -> &'static str {
        match self {
            Self::Rust => {
                "next: `cargo test` in it, then `toolkeep tools build`, then `toolkeep tools install` with its manifest"
            }
            Self::Python => {
                "next, in it: `python3 -m venv .venv && .venv/bin/pip install -r requirements.txt`, \
                 `.venv/bin/componentize-py -d wit -w guest componentize tool -o tool.wasm`, \
                 `toolkeep tools pack tool.wasm --descriptors tools.json`, then `toolkeep tools install` with its manifest"
            }
            Self::Js => {
                "next, in it: `npm install`, `npm run build`, `toolkeep tools pack tool.wasm --descriptors tools.json`, \
                 then `toolkeep tools install` with its manifest"
            }
        }
    }
}

/// Where the SDK lies beside the sources that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");

/// Begin a tool
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Its name: a-z, 0-9, `-` and `_`
    name: String,
    /// What it is written in
    #[arg(long, value_enum, default_value = "rust")]
    lang: Lang,
    /// Where to make it; without it, a directory of that name
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Path of the guest SDK, for Rust; without it, the one beside the sources of this program
    #[arg(long, value_name = "DIR")]
    sdk: Option<PathBuf>,
}

impl NewArgs {
    /// Write it.
    ///
    /// # Errors
    /// The name is no crate name, the directory exists, or the SDK is not found.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let name = check_name(&self.name)?;
        let sdk = match self.lang {
            Lang::Rust => find_sdk(self.sdk.as_deref())?,
            Lang::Python | Lang::Js => String::new(),
        };
        let directory = absolute(self.path.as_deref().unwrap_or_else(|| Path::new(&self.name)))?;
        std::fs::create_dir(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::usage(format!("`{}` exists already", directory.display()), "choose another with `--path`")
            }
            _ => Failure::file("create", &directory)(error),
        })?;
        let fill = |template: &str| fill(template, self.lang, name, &sdk);
        for (file, template) in self.lang.files() {
            write(&directory.join(fill(file)), &fill(template))?;
        }
        context.ui.value(&json!({"directory": directory}), || directory.display().to_string())?;
        context.ui.note(self.lang.next());
        Ok(Exit::Ok)
    }
}

/// Names of crates are names of tools with fewer characters.
fn check_name(name: &str) -> Result<&str, Failure> {
    let crate_like = name.starts_with(|c: char| c.is_ascii_lowercase()) && !name.contains('.');
    if name.parse::<ToolName>().is_ok() && crate_like {
        return Ok(name);
    }
    Err(Failure::usage(
        format!("`{}` is not a name for a tool crate", name.escape_default()),
        "use 1 to 64 characters of a-z, 0-9, `-` and `_`, starting with a letter",
    ))
}

fn find_sdk(given: Option<&Path>) -> Result<String, Failure> {
    let path = given.unwrap_or_else(|| Path::new(SDK));
    let found = path.canonicalize().ok().filter(|path| path.join("Cargo.toml").is_file());
    let text = found.as_deref().and_then(Path::to_str).map(str::to_owned);
    text.filter(|text| !text.contains(['"', '\\', '\n'])).ok_or_else(|| {
        Failure::usage("the guest SDK is not found", "name its directory with `--sdk`: `guest-sdk` of the sources")
    })
}

fn fill(template: &str, lang: Lang, name: &str, sdk: &str) -> String {
    let component = lang.component(name);
    template.replace("{{name}}", name).replace("{{component}}", &component).replace("{{sdk}}", sdk)
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(Failure::file("create", parent))?;
    }
    std::fs::File::create_new(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(Failure::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_of_the_templates_is_filled() {
        for lang in [Lang::Rust, Lang::Python, Lang::Js] {
            for (file, template) in lang.files() {
                let filled = fill(template, lang, "my-tool", "/sdk");
                assert!(!filled.contains("{{"), "{file}: {filled}");
            }
        }
        let cargo = fill(RUST[0].1, Lang::Rust, "my-tool", "/sdk");
        assert!(cargo.contains("name = \"my-tool\"") && cargo.contains("path = \"/sdk\""));
        assert!(fill(MANIFEST, Lang::Rust, "my-tool", "").contains("release/my_tool.wasm\""));
        assert!(fill(MANIFEST, Lang::Js, "my-tool", "").contains("component = \"tool.wasm\""));
    }

    #[test]
    fn names_that_cargo_would_refuse_are_refused_here() {
        assert!(check_name("csv-report").is_ok());
        for wrong in ["", "1st", "a.b", "A", "../x", "-a"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
