//! `toolkeep new`: a tool crate that builds and passes its own test at the first try.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use toolkeep_core::id::ToolName;

use super::context::{Context, absolute};
use super::exit::Exit;
use super::failure::Failure;

/// The files of a new crate with their templates. `{{name}}`, `{{file}}` and `{{sdk}}` are filled in, in names too.
const FILES: [(&str, &str); 5] = [
    ("Cargo.toml", include_str!("../../../guest-sdk/template/Cargo.toml.in")),
    ("{{name}}.toml", include_str!("../../../guest-sdk/template/manifest.toml.in")),
    ("README.md", include_str!("../../../guest-sdk/template/README.md.in")),
    (".gitignore", include_str!("../../../guest-sdk/template/gitignore.in")),
    ("src/lib.rs", include_str!("../../../guest-sdk/template/src-lib.rs.in")),
];

/// Where the SDK lies beside the sources that this program was built from.
const SDK: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-sdk");

/// Begin a tool crate
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// Its name: a-z, 0-9, `-` and `_`
    name: String,
    /// Where to make it; without it, a directory of that name
    #[arg(long, value_name = "DIR")]
    path: Option<PathBuf>,
    /// Path of the guest SDK; without it, the one beside the sources of this program
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
        let sdk = find_sdk(self.sdk.as_deref())?;
        let directory = absolute(self.path.as_deref().unwrap_or_else(|| Path::new(&self.name)))?;
        std::fs::create_dir(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                Failure::usage(format!("`{}` exists already", directory.display()), "choose another with `--path`")
            }
            _ => Failure::file("create", &directory)(error),
        })?;
        for (file, template) in FILES {
            write(&directory.join(fill(file, name, &sdk)), &fill(template, name, &sdk))?;
        }
        context.ui.value(&json!({"directory": directory}), || directory.display().to_string())?;
        context.ui.note(
            "next: `cargo test` in it, then `toolkeep tools build`, then `toolkeep tools install` with its manifest",
        );
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

fn fill(template: &str, name: &str, sdk: &str) -> String {
    template.replace("{{name}}", name).replace("{{file}}", &name.replace('-', "_")).replace("{{sdk}}", sdk)
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
        for (file, template) in FILES {
            let filled = fill(template, "my-tool", "/sdk");
            assert!(!filled.contains("{{"), "{file}: {filled}");
        }
        assert!(fill(FILES[0].1, "my-tool", "/sdk").contains("name = \"my-tool\""));
        assert!(fill(FILES[0].1, "my-tool", "/sdk").contains("path = \"/sdk\""));
    }

    #[test]
    fn names_that_cargo_would_refuse_are_refused_here() {
        assert!(check_name("csv-report").is_ok());
        for wrong in ["", "1st", "a.b", "A", "../x", "-a"] {
            assert!(check_name(wrong).is_err(), "{wrong}");
        }
    }
}
