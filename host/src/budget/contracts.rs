//! Contracts: the operator's files that say what runs may do, read from their folder and swapped as a whole.
//!
//! A file that is wrong is refused with its reason, and the contract that it gave before stays. A run that names a contract
//! which is not there is not opened: nothing falls back to fewer rules.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use toolkeep_core::contract::{CONTRACT_MAX_BYTES, Contract, ContractText};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ContractName;

/// Most contracts in the folder.
pub const CONTRACTS_MAX: usize = 1_000;

/// A file that gives no contract now.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct ContractProblem {
    /// The file.
    pub file: PathBuf,
    /// What is wrong and what to do.
    pub problem: String,
    /// Whether the contract that the file gave before is still in force.
    pub kept_old: bool,
}

/// All contracts at one moment.
#[derive(Debug, Default)]
pub struct Contracts {
    by_name: BTreeMap<ContractName, (PathBuf, Arc<Contract>)>,
    problems: Vec<ContractProblem>,
}

impl Contracts {
    /// The contract of this name.
    #[must_use]
    pub fn named(&self, name: &ContractName) -> Option<Arc<Contract>> {
        self.by_name.get(name).map(|(_, contract)| Arc::clone(contract))
    }

    /// All of them in order of their names.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Contract>> {
        self.by_name.values().map(|(_, contract)| contract)
    }

    /// Files that give no contract now.
    #[must_use]
    pub fn problems(&self) -> &[ContractProblem] {
        &self.problems
    }

    /// Read a folder. `old` keeps the contracts of files that became wrong.
    #[must_use]
    pub fn read(folder: &Path, old: &Self) -> Self {
        let mut next = Self::default();
        let problem = |file: &Path, problem: String| ContractProblem { file: file.into(), problem, kept_old: false };
        let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
            Ok(entries) => entries
                .filter_map(|entry| entry.ok().map(|entry| entry.path()))
                .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
                .collect(),
            Err(error) => {
                next.problems.push(problem(folder, error.to_string()));
                Vec::new()
            }
        };
        files.sort();
        if files.len() > CONTRACTS_MAX {
            next.problems.push(problem(folder, format!("{} files; at most {CONTRACTS_MAX} are read", files.len())));
            files.truncate(CONTRACTS_MAX);
        }
        for file in files {
            if let Err(why) = read_one(&file).and_then(|contract| next.add(&file, Arc::new(contract))) {
                let before = old.by_name.values().find(|(path, _)| *path == file);
                let kept_old = before.is_some_and(|(path, contract)| next.add(path, Arc::clone(contract)).is_ok());
                next.problems.push(ContractProblem { file, problem: why, kept_old });
            }
        }
        next
    }

    fn add(&mut self, file: &Path, contract: Arc<Contract>) -> Result<(), String> {
        if let Some((other, _)) = self.by_name.get(&contract.name) {
            return Err(format!("`name`: `{}` is already given by `{}`", contract.name, other.display()));
        }
        self.by_name.insert(contract.name.clone(), (file.to_path_buf(), contract));
        Ok(())
    }
}

fn read_one(file: &Path) -> Result<Contract, String> {
    let opened = std::fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    let mut bytes = Vec::new();
    let most = u64::try_from(CONTRACT_MAX_BYTES).unwrap_or(u64::MAX).saturating_add(1);
    opened.take(most).read_to_end(&mut bytes).map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() > CONTRACT_MAX_BYTES {
        return Err(format!("is larger than {CONTRACT_MAX_BYTES} bytes"));
    }
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let shaped: ContractText = toml::from_str(text).map_err(|error| error.to_string())?;
    shaped.check(Digest::of(&bytes)).map_err(|error| error.to_string())
}

/// The contracts that are in force.
#[derive(Debug)]
pub struct ContractHandle {
    folder: Option<PathBuf>,
    current: ArcSwap<Contracts>,
    /// One reader of the folder at a time: an older reading must not replace a newer one.
    reading: Mutex<()>,
}

impl ContractHandle {
    /// Read the folder for the first time; without one there are no contracts. Blocks.
    #[must_use]
    pub fn open(folder: Option<PathBuf>) -> Self {
        let handle = Self { folder, current: ArcSwap::default(), reading: Mutex::new(()) };
        handle.reload();
        handle
    }

    /// The contracts of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Contracts> {
        self.current.load_full()
    }

    /// Read the folder again and swap. Blocks.
    pub fn reload(&self) -> Arc<Contracts> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &self.folder {
            let next = Contracts::read(folder, &self.current.load());
            for problem in next.problems() {
                let file = problem.file.display();
                tracing::warn!(%file, kept_old = problem.kept_old, "contract refused: {}", problem.problem);
            }
            self.current.store(Arc::new(next));
        }
        self.current()
    }
}
