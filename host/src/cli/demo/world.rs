//! The folder that the tour plays in: a copy of the data, a configuration, one manifest per tool.

use std::fs;
use std::path::{Path, PathBuf};

use super::stop::Stop;

/// Everything that the tour needs on the disk.
#[derive(Debug)]
pub(super) struct World {
    pub(super) root: PathBuf,
    pub(super) config: PathBuf,
    pub(super) log: PathBuf,
}

/// Manifests of the tour: name, component, and what follows the common head.
const MANIFESTS: &[(&str, &str, &str)] = &[
    ("text-stats", "text-stats", "tier = 0\n"),
    (
        "csv-report",
        "csv-report",
        "tier = 1\n\n[[workspace]]\nname = \"books\"\naccess = \"write\"\nread = [\"**\"]\nwrite = [\"reports\", \"reports/**\"]\n",
    ),
    (
        "rename-symbol",
        "rename-symbol",
        "tier = 1\nhold = [\"file.delete\"]\n\n[[workspace]]\nname = \"src\"\naccess = \"write\"\n",
    ),
    (
        "notes",
        "notes",
        "tier = 1\n\n[tiers]\nlist = 0\nsearch = 0\n\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n",
    ),
    ("spin", "spin", "tier = 0\n\n[limits]\nfuel = 50_000_000\n"),
    ("spin-long", "spin", "tier = 0\n\n[limits]\nfuel = 1_000_000_000_000\ndeadline_ms = 300\n"),
    ("path-escape", "path-escape", "tier = 1\n\n[[workspace]]\nname = \"notes\"\naccess = \"write\"\n"),
];

/// Manifests with an origin, which stands for `ORIGIN` in them.
const OUTWARD: &[(&str, &str, &str)] = &[
    (
        "ticket",
        "ticket",
        "tier = 2\n\n[tiers]\nshow = 0\n\n[[http]]\nname = \"tracker\"\norigin = \"ORIGIN\"\nmethods = [\"GET\", \"POST\"]\npaths = [\"/tickets/**\"]\nreversible = true\nallow_private = true\n",
    ),
    (
        "counter",
        "counter",
        "tier = 1\n\n[tiers]\nget = 0\nlist = 0\n\n[[keys]]\nbucket = \"counts\"\naccess = \"write\"\n",
    ),
    (
        "saga",
        "saga",
        "tier = 2\n\n[[keys]]\nbucket = \"stock\"\naccess = \"write\"\n\n[[workspace]]\nname = \"orders\"\naccess = \"write\"\n\n[[http]]\nname = \"carrier\"\norigin = \"ORIGIN\"\nmethods = [\"PUT\"]\npaths = [\"/pickups/*\"]\nreversible = true\nallow_private = true\n",
    ),
];

/// The next version of a tool, offered in a folder of its own: its name, its component, and what follows the common head.
pub(super) const NEXT: (&str, &str, &str) =
    ("text-stats", "text-stats-next", "version = \"2.0.0\"\ntier = 0\n\n[record]\nsuite = \"texts\"\n");

impl World {
    /// Copy the data, write configuration and manifests. `origin` is that of the system which the tour brings along.
    pub(super) fn prepare(data: &Path, tools: &Path, into: Option<&Path>, origin: &str) -> Result<Self, Stop> {
        if !tools.is_dir() {
            return Err(Stop::NotBuilt(tools.to_path_buf()));
        }
        let root = match into {
            Some(path) => path.to_path_buf(),
            None => std::env::temp_dir().join(format!("toolkeep-demo-{}", std::process::id())),
        };
        fs::create_dir_all(&root).map_err(Stop::file(&root))?;
        let root = root.canonicalize().map_err(Stop::file(&root))?;
        for part in ["books", "src"] {
            copy(&data.join(part), &root.join(part))?;
        }
        for part in ["notes", "orders", "tools", "next"] {
            let path = root.join(part);
            fs::create_dir_all(&path).map_err(Stop::file(&path))?;
        }
        for (name, component, rest) in MANIFESTS.iter().chain(OUTWARD) {
            let rest = rest.replace("ORIGIN", origin);
            give(tools, &root.join("tools"), (name, component, &rest))?;
        }
        give(tools, &root.join("next"), NEXT)?;
        let config = root.join("toolkeep.toml");
        fs::write(&config, configuration()).map_err(Stop::file(&config))?;
        Ok(Self { log: root.join("daemon.log"), config, root })
    }
}

/// Put a component and its manifest into a folder.
fn give(tools: &Path, folder: &Path, (name, component, rest): (&str, &str, &str)) -> Result<(), Stop> {
    let from = tools.join(format!("{component}.wasm"));
    fs::copy(&from, folder.join(format!("{component}.wasm"))).map_err(Stop::file(&from))?;
    let text = format!("format = 1\nname = \"{name}\"\ncomponent = \"{component}.wasm\"\n{rest}");
    let path = folder.join(format!("{name}.toml"));
    fs::write(&path, text).map_err(Stop::file(&path))
}

/// Paths are relative to the file.
fn configuration() -> String {
    let mut text = "[daemon]\nstate_dir = \"state\"\nruntime_dir = \"run\"\ntools_dir = \"tools\"\n".to_owned();
    for name in ["books", "src", "notes", "orders"] {
        text.push_str(&format!("\n[[workspace]]\nname = \"{name}\"\npath = \"{name}\"\n"));
    }
    text
}

fn copy(from: &Path, to: &Path) -> Result<(), Stop> {
    fs::create_dir_all(to).map_err(Stop::file(to))?;
    for entry in fs::read_dir(from).map_err(Stop::file(from))? {
        let entry = entry.map_err(Stop::file(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).map_err(Stop::file(&source))?;
        }
    }
    Ok(())
}
