//! The catalog: which tools exist, read from the manifests folder.
//!
//! A catalog is immutable; a reload builds a new one beside it and swaps them, so that a call sees one or the other. A
//! manifest that is invalid is refused with its reason and the tool that its file gave before stays. Nothing here runs
//! guest code: names, descriptions and schemas come from the component's custom section.

mod configured;
pub mod offered;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use serde_json::{Value, json};
use tokio::sync::watch;
use toolkeep_core::descriptor::{Descriptor, Descriptors};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ToolName;
use toolkeep_core::manifest::{MANIFEST_MAX_BYTES, Manifest, ManifestText};
use toolkeep_core::redact;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_core::tier::Tier;
use toolkeep_sandbox::execution::Entry;

use crate::artifacts::Artifacts;
use crate::metrics::{Slot, ToolSeries};
use crate::policy::ToolShape;
use crate::schema;

pub use configured::Configured;

/// Largest component, in bytes: a Python tool with its interpreter is 18 MB.
pub const COMPONENT_MAX_BYTES: u64 = 64 * 1024 * 1024;
/// Most manifests in the folder.
pub const MANIFESTS_MAX: usize = 10_000;

/// The first part of names that the daemon keeps for itself.
const RESERVED: &str = "toolkeep";

/// One tool that an agent can call.
#[derive(Debug)]
pub struct Tool {
    /// What agents call it.
    pub name: ToolName,
    /// What its component, or its manifest for the component, calls it.
    pub local: ToolName,
    /// What is called in the component.
    pub entry: Entry,
    /// The tier that the manifest declares.
    pub tier: Tier,
    /// What the operator granted.
    pub manifest: Arc<Manifest>,
    /// What the author said about it.
    pub descriptor: Descriptor,
    /// The file that runs.
    pub component: Arc<ComponentFile>,
    /// What policies see of it.
    pub shape: Arc<ToolShape>,
    /// What its schemas mark as sensitive: JSON Pointers that begin with `/input` or `/output`.
    sensitive: Vec<String>,
    /// What is counted of it.
    pub series: Slot<ToolSeries>,
    /// Checks inputs.
    input: schema::Lazy,
    /// Checks outputs.
    output: schema::Lazy,
}

/// A component file as it was when the catalog was built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ComponentFile {
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Where it is. Its bytes are checked against the digest whenever they are read again.
    pub path: PathBuf,
    /// Bytes.
    pub size: u64,
    /// Operator's limits for compiling: CPU seconds and bytes.
    pub compile: (Option<u64>, Option<u64>),
}

/// A manifest that could not be used.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Problem {
    /// The manifest.
    pub file: PathBuf,
    /// What is wrong and what to do.
    pub problem: String,
    /// Whether the tools that the file gave before are still offered.
    pub kept_old: bool,
}

/// All tools at one moment.
#[derive(Debug, Default)]
pub struct Catalog {
    tools: BTreeMap<ToolName, Arc<Tool>>,
    by_file: BTreeMap<PathBuf, Vec<Arc<Tool>>>,
    problems: Vec<Problem>,
}

/// Why a manifest cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The manifest cannot be read.
    #[error("cannot be read: {0}")]
    Unreadable(std::io::Error),
    /// It is too large.
    #[error("is larger than {0} bytes")]
    TooLarge(u64),
    /// It is not TOML of the right shape.
    #[error("{0}")]
    Shape(String),
    /// A value makes no sense.
    #[error(transparent)]
    Manifest(#[from] toolkeep_core::manifest::BadManifest),
    /// The component is missing or unreadable.
    #[error("`component`: `{path}` cannot be read: {source}")]
    Component {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The component is not the pinned one.
    #[error(
        "`sha256`: the component has digest {found}, the manifest pins {pinned}; it changed, look at it before you accept it"
    )]
    Changed {
        /// What it has.
        found: Digest,
        /// What it should have.
        pinned: Digest,
    },
    /// The component is refused before anything of it runs.
    #[error("`component`: {0}")]
    Refused(String),
    /// The functions of a component are not described as they have to be.
    #[error("`function`: {0}")]
    Functions(String),
    /// A schema is not a JSON Schema.
    #[error("tool `{tool}`: its {which} schema is refused: {problem}")]
    Schema {
        /// The tool.
        tool: ToolName,
        /// `input`, `output` or `error`.
        which: &'static str,
        /// Why.
        problem: String,
    },
    /// `tiers` names a tool that the component does not have.
    #[error("`tiers.{0}`: the component has no such tool")]
    UnknownTier(ToolName),
    /// Another manifest already gives this name.
    #[error("`name`: `{name}` is already given by `{other}`")]
    NameTaken {
        /// The name.
        name: ToolName,
        /// The other manifest.
        other: PathBuf,
    },
    /// The joined name is too long.
    #[error("`name`: {0}")]
    Name(String),
}

impl Catalog {
    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &ToolName) -> Option<Arc<Tool>> {
        self.tools.get(name).cloned()
    }

    /// The manifest that gives a tool.
    #[must_use]
    pub fn file_of(&self, name: &ToolName) -> Option<&Path> {
        self.by_file.iter().find(|(_, tools)| tools.iter().any(|t| t.name == *name)).map(|(path, _)| path.as_path())
    }

    /// The tools that a manifest gives; none where it is not in force.
    #[must_use]
    pub fn given_by(&self, file: &Path) -> &[Arc<Tool>] {
        self.by_file.get(file).map(Vec::as_slice).unwrap_or_default()
    }

    /// Every manifest with its tools.
    pub fn files(&self) -> impl Iterator<Item = (&Path, &[Arc<Tool>])> {
        self.by_file.iter().map(|(file, tools)| (file.as_path(), tools.as_slice()))
    }

    /// All tools in order of their names.
    pub fn tools(&self) -> impl Iterator<Item = &Arc<Tool>> {
        self.tools.values()
    }

    /// What policies see of all tools.
    #[must_use]
    pub fn shapes(&self) -> Vec<Arc<ToolShape>> {
        self.tools.values().map(|tool| Arc::clone(&tool.shape)).collect()
    }

    /// Whether it offers the same tools as another one, from the same components and manifests.
    fn offers_what(&self, other: &Self) -> bool {
        fn identity(tool: &Arc<Tool>) -> (&ToolName, Digest, Digest) {
            (&tool.name, tool.component.digest, tool.manifest.digest)
        }
        self.tools().map(identity).eq(other.tools().map(identity))
    }

    /// Manifests that could not be used.
    #[must_use]
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    /// Read the folder. `old` keeps the tools of files that became invalid; what is in `known` was looked at before.
    #[must_use]
    pub fn read(folder: &Path, old: &Self, known: &BTreeSet<Digest>, configured: &Configured) -> Self {
        let mut next = Self::default();
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok().map(|e| e.path()))
                .filter(|path| path.extension().is_some_and(|ext| ext == "toml"))
                .take(MANIFESTS_MAX)
                .collect(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => {
                next.problems.push(Problem { file: folder.into(), problem: error.to_string(), kept_old: false });
                Vec::new()
            }
        };
        files.sort();
        for (file, tools) in read_all(files, known) {
            let result = tools.and_then(|tools| {
                tools.first().map_or(Ok(()), |tool| configured.check(&tool.manifest))?;
                next.add(&file, tools)
            });
            if let Err(error) = result {
                let kept = old.by_file.get(&file).is_some_and(|tools| next.add(&file, tools.clone()).is_ok());
                next.problems.push(Problem { file, problem: error.to_string(), kept_old: kept });
            }
        }
        next
    }

    fn add(&mut self, file: &Path, tools: Vec<Arc<Tool>>) -> Result<(), Unusable> {
        for tool in &tools {
            if self.tools.contains_key(&tool.name) {
                let other = self.file_of(&tool.name).map_or_else(PathBuf::new, Path::to_path_buf);
                return Err(Unusable::NameTaken { name: tool.name.clone(), other });
            }
        }
        for tool in &tools {
            self.tools.insert(tool.name.clone(), Arc::clone(tool));
        }
        self.by_file.insert(file.to_path_buf(), tools);
        Ok(())
    }
}

/// A manifest, and the tools that it gives or why it gives none.
type Read = (PathBuf, Result<Vec<Arc<Tool>>, Unusable>);

/// Read manifests on two threads, because most of the time goes into hashing their components. In the order given.
fn read_all(files: Vec<PathBuf>, known: &BTreeSet<Digest>) -> Vec<Read> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let Some((at, file)) =
            Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|at| Some((at, files.get(at)?)))
        {
            done.push((at, read_manifest(file, known)));
        }
        done
    };
    let mut read = std::thread::scope(|scope| {
        let beside = (files.len() > 1).then(|| std::thread::Builder::new().spawn_scoped(scope, work).ok()).flatten();
        let mut done = work();
        // What a thread that panicked had read is missing, and said to be.
        done.extend(beside.and_then(|beside| beside.join().ok()).unwrap_or_default());
        done
    });
    read.sort_by_key(|(at, _)| *at);
    let mut read = read.into_iter().peekable();
    let mut result_of = |at| {
        let panicked = || Unusable::Refused("BUG: reading it panicked".to_owned());
        read.next_if(|(other, _)| *other == at).map_or_else(|| Err(panicked()), |(_, tools)| tools)
    };
    files.into_iter().enumerate().map(|(at, file)| (file, result_of(at))).collect()
}

/// Read one manifest and everything that it names. A component in `known` was looked at before, with its schemas; whatever
/// that says, the compiler looks again before it compiles.
///
/// # Errors
/// The first thing that is wrong.
pub fn read_manifest(file: &Path, known: &BTreeSet<Digest>) -> Result<Vec<Arc<Tool>>, Unusable> {
    let bytes = read_bounded(file, MANIFEST_MAX_BYTES as u64).map_err(|e| match e {
        ReadError::TooLarge => Unusable::TooLarge(MANIFEST_MAX_BYTES as u64),
        ReadError::Io(error) => Unusable::Unreadable(error),
    })?;
    let text = std::str::from_utf8(&bytes).map_err(|e| Unusable::Shape(e.to_string()))?;
    let shaped: ManifestText = toml::from_str(text).map_err(|e| Unusable::Shape(e.to_string()))?;
    let manifest = Arc::new(shaped.check(Digest::of(&bytes))?);
    let path = file.parent().unwrap_or(Path::new(".")).join(&manifest.component);
    let wasm = read_bounded(&path, COMPONENT_MAX_BYTES).map_err(|e| match e {
        ReadError::TooLarge => Unusable::Refused(format!("is larger than {COMPONENT_MAX_BYTES} bytes")),
        ReadError::Io(source) => Unusable::Component { path: path.clone(), source },
    })?;
    let digest = Digest::of(&wasm);
    if let Some(pinned) = manifest.sha256.filter(|pinned| *pinned != digest) {
        return Err(Unusable::Changed { found: digest, pinned });
    }
    let is_known = known.contains(&digest);
    if !is_known {
        toolkeep_sandbox::compile::prescreen(&wasm).map_err(|e| Unusable::Refused(e.to_string()))?;
    }
    let descriptors = offered::Offering::read(&wasm)?.under(&manifest)?;
    let component = Arc::new(ComponentFile { digest, path, size: wasm.len() as u64, compile: manifest.compile });
    tools_of(&manifest, descriptors, &component, is_known)
}

/// The tools that a component gives under a manifest. Where it `is_known`, its schemas were found good before.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn tools_of(
    manifest: &Arc<Manifest>,
    descriptors: Descriptors,
    component: &Arc<ComponentFile>,
    is_known: bool,
) -> Result<Vec<Arc<Tool>>, Unusable> {
    if let Some(unknown) = manifest.tiers.keys().find(|name| descriptors.tools.iter().all(|t| t.name != **name)) {
        return Err(Unusable::UnknownTier(unknown.clone()));
    }
    if manifest.name.as_str().split('.').next() == Some(RESERVED) {
        return Err(Unusable::Name(format!("names that start with `{RESERVED}` are the daemon's own")));
    }
    let single = descriptors.tools.len() == 1;
    descriptors
        .tools
        .into_iter()
        .map(|descriptor| {
            let local = descriptor.name.clone();
            let name = if single {
                manifest.name.clone()
            } else {
                format!("{}.{local}", manifest.name).parse().map_err(|e| Unusable::Name(format!("{e}")))?
            };
            let schema = |which, schema: &Value| {
                let checked = if is_known { Ok(schema::Lazy::default()) } else { schema::Lazy::compiled(schema) };
                checked.map_err(|problem| Unusable::Schema { tool: local.clone(), which, problem })
            };
            let (input, output) =
                (schema("input", &descriptor.input_schema)?, schema("output", &descriptor.output_schema)?);
            schema("error", &descriptor.error_schema)?;
            let tier = manifest.tiers.get(&local).copied().unwrap_or(manifest.tier);
            let shape = ToolShape::new(name.clone(), tier, component.digest, manifest, &descriptor.input_schema);
            let mut sensitive = redact::sensitive(&descriptor.input_schema, "/input");
            sensitive.extend(redact::sensitive(&descriptor.output_schema, "/output"));
            Ok(Arc::new(Tool {
                sensitive,
                tier,
                shape: Arc::new(shape),
                name,
                entry: offered::entry(manifest, &local),
                local,
                manifest: Arc::clone(manifest),
                descriptor,
                component: Arc::clone(component),
                series: Slot::default(),
                input,
                output,
            }))
        })
        .collect()
}

/// The bytes of a component that somebody proposes.
///
/// # Errors
/// `invalid_input`: it cannot be read or is too large.
pub fn read_component(path: &Path) -> Result<Arc<[u8]>, Refusal> {
    let refused = |why: String| Refusal::new(Code::InvalidInput, format!("`{}` {why}", path.display()));
    let wasm = read_bounded(path, COMPONENT_MAX_BYTES).map_err(|error| match error {
        ReadError::TooLarge => refused(format!("is larger than {COMPONENT_MAX_BYTES} bytes")),
        ReadError::Io(error) => refused(format!("cannot be read: {error}")),
    })?;
    Ok(wasm.into())
}

/// The text of a manifest, if it is still the one of this digest.
#[must_use]
pub fn manifest_text(file: &Path, digest: Digest) -> Option<String> {
    let bytes = read_bounded(file, MANIFEST_MAX_BYTES as u64).ok()?;
    String::from_utf8(bytes).ok().filter(|text| Digest::of(text.as_bytes()) == digest)
}

enum ReadError {
    TooLarge,
    Io(std::io::Error),
}

fn read_bounded(path: &Path, most: u64) -> Result<Vec<u8>, ReadError> {
    let file = std::fs::File::open(path).map_err(ReadError::Io)?;
    let size = file.metadata().map_err(ReadError::Io)?.len().min(most);
    // One byte of room more, so that the end of the file is found without growing.
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0).saturating_add(1));
    file.take(most + 1).read_to_end(&mut bytes).map_err(ReadError::Io)?;
    if bytes.len() as u64 > most { Err(ReadError::TooLarge) } else { Ok(bytes) }
}

impl Tool {
    /// What checks inputs.
    ///
    /// # Errors
    /// `internal`: the schema was found good before and is not any more.
    pub fn input(&self) -> Result<&jsonschema::Validator, Refusal> {
        self.input.of(&self.descriptor.input_schema).map_err(|problem| self.broken("input", problem))
    }

    /// What checks outputs.
    ///
    /// # Errors
    /// As [`Tool::input`].
    pub fn output(&self) -> Result<&jsonschema::Validator, Refusal> {
        self.output.of(&self.descriptor.output_schema).map_err(|problem| self.broken("output", problem))
    }

    /// What its schemas mark as sensitive: JSON Pointers that begin with `/input` or `/output`.
    #[must_use]
    pub fn sensitive(&self) -> &[String] {
        &self.sensitive
    }

    /// Whether its schemas mark anything as sensitive.
    #[must_use]
    pub const fn is_sensitive(&self) -> bool {
        !self.sensitive.is_empty()
    }

    fn broken(&self, which: &str, problem: &str) -> Refusal {
        tracing::error!(tool = %self.name, which, problem, "BUG: a schema that was found good does not compile");
        Refusal::new(Code::Internal, format!("the {which} schema of `{}` cannot be used", self.name))
    }

    /// The four parts of the author's description as one text.
    #[must_use]
    pub fn description(&self) -> String {
        let parts = &self.descriptor.description;
        let (what, when, effects, errors) = (&parts.what, &parts.when, &parts.side_effects, &parts.errors);
        format!("{what}\n\nWhen: {when}\n\nSide effects: {effects}\n\nErrors: {errors}")
    }

    /// What `tools.list` shows: enough to choose a tool and to call it.
    #[must_use]
    pub fn listing(&self) -> Value {
        json!({
            "name": self.name,
            "title": self.descriptor.title,
            "description": self.description(),
            "tier": self.tier,
            "read_only": self.tier == Tier::ReadOnly,
            "input_schema": self.descriptor.input_schema,
            "output_schema": self.descriptor.output_schema,
        })
    }

    /// What `tools.describe` shows: the listing and everything that the operator granted.
    #[must_use]
    pub fn detail(&self) -> Value {
        let mut detail = self.listing();
        let workspaces: Vec<Value> = self
            .manifest
            .files
            .iter()
            .map(|grant| {
                let access = match grant.access {
                    toolkeep_core::capability::Access::Read => "read",
                    toolkeep_core::capability::Access::Write => "write",
                };
                json!({"workspace": grant.workspace, "access": access, "read": grant.read.patterns(),
                    "write": grant.write.patterns(), "sensitive": grant.sensitive.iter().map(|c| c.name()).collect::<Vec<_>>()})
            })
            .collect();
        if let Value::Object(members) = &mut detail {
            members.insert("version".to_owned(), json!(self.manifest.version));
            members.insert("component".to_owned(), json!(self.component.digest));
            members.insert("component_bytes".to_owned(), json!(self.component.size));
            members.insert("manifest".to_owned(), json!(self.manifest.digest));
            members.insert("declared_effects".to_owned(), json!(self.descriptor.effects));
            members.insert("error_schema".to_owned(), self.descriptor.error_schema.clone());
            members.insert("workspaces".to_owned(), json!(workspaces));
            members.insert("limits".to_owned(), json!(self.manifest.limits));
        }
        detail
    }
}

/// Remembers which components were looked at and found good, so that a start does not look at all of them again.
#[derive(Debug)]
pub struct Known {
    artifacts: Artifacts,
    rules: String,
}

impl Known {
    /// What was found good for the engine of this fingerprint, by the rules of this version.
    #[must_use]
    pub fn new(artifacts: Artifacts, fingerprint: &str) -> Self {
        let rules = format!("{} {} {fingerprint}", env!("CARGO_PKG_VERSION"), toolkeep_sandbox::prescreen::RULES);
        Self { artifacts, rules }
    }

    fn digests(&self) -> BTreeSet<Digest> {
        self.artifacts.screened(&self.rules)
    }

    /// Remember those of a catalog, and no others.
    fn keep(&self, before: &BTreeSet<Digest>, catalog: &Catalog) {
        let now: BTreeSet<Digest> = catalog.tools.values().map(|tool| tool.component.digest).collect();
        if now != *before {
            self.artifacts.keep_screened(&self.rules, &now);
        }
    }
}

/// The catalog that is in force.
#[derive(Debug)]
pub struct CatalogHandle {
    folder: PathBuf,
    known: Known,
    configured: Configured,
    current: ArcSwap<Catalog>,
    /// Counts the readings that offer something else than the one before.
    changes: watch::Sender<u64>,
    /// One reader of the folder at a time: an older reading must not replace a newer one.
    reading: Mutex<()>,
}

impl CatalogHandle {
    /// Read the folder for the first time. Blocks.
    #[must_use]
    pub fn open(folder: &Path, known: Known, configured: Configured) -> Self {
        let (folder, current, reading) = (folder.to_path_buf(), ArcSwap::default(), Mutex::new(()));
        let handle = Self { folder, known, configured, current, changes: watch::Sender::new(0), reading };
        handle.reload();
        handle
    }

    /// The catalog of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Catalog> {
        self.current.load_full()
    }

    /// Changes when other tools are offered, or the same ones otherwise.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What manifests may name.
    #[must_use]
    pub const fn configured(&self) -> &Configured {
        &self.configured
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Read the folder again and swap. Blocks.
    pub fn reload(&self) -> Arc<Catalog> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let known = self.known.digests();
        let next = Arc::new(Catalog::read(&self.folder, &self.current.load(), &known, &self.configured));
        self.known.keep(&known, &next);
        let before = self.current.swap(Arc::clone(&next));
        if !next.offers_what(&before) {
            self.changes.send_modify(|count| *count += 1);
        }
        next
    }
}
