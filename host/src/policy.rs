//! Policy as code: who may call what, and what may be committed, as Cedar policies that are validated when they are loaded.
//!
//! Two questions are asked: one when a call is authorized, one when its plan is decided about. A set is immutable;
//! a reload builds another beside it and swaps, so that a question sees one or the other, and a set that is not valid is refused
//! while the old one stays. The floor beneath every set is in `toolkeep_core::policy`.

pub mod case;
mod compile;
pub mod context;
pub mod entity;
pub mod facts;
pub mod judgement;
pub mod obligation;
pub mod rule;
pub mod scope;
pub mod set;
pub mod shape;
pub mod slice;
pub mod source;
pub mod vocabulary;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

pub use self::compile::{FINDINGS_MAX, POLICIES_MAX, UNDO};
pub use self::context::{Circumstances, Matter, PlanFacts, RunFacts};
pub use self::judgement::Judgement;
pub use self::set::{DEFAULT, Policies, Ruling};
pub use self::shape::ToolShape;
pub use self::source::{Finding, Source};

/// What became of a reading of the directory.
#[derive(Debug, Clone)]
pub enum Reloaded {
    /// The policies are those that were in force before.
    Same,
    /// Another set is in force.
    Changed(Arc<Policies>),
    /// What lies there is not valid; the set that was in force stays.
    Refused(Arc<[Finding]>),
}

/// The policy set in force.
#[derive(Debug)]
pub struct PolicyHandle {
    directory: Option<PathBuf>,
    current: ArcSwap<Policies>,
    problems: ArcSwap<Vec<Finding>>,
    /// One reader of the directory at a time: an older reading must not replace a newer one.
    reading: Mutex<()>,
}

impl PolicyHandle {
    /// Read the directory for the first time; without one, the built-in set is in force. Where the directory is not valid
    /// nobody may do anything until it is.
    #[must_use]
    pub fn open(directory: Option<PathBuf>, tools: &[Arc<ToolShape>]) -> Self {
        let (first, problems) = match read(directory.as_deref(), tools) {
            Ok(policies) => (policies, Vec::new()),
            Err(findings) => (Policies::nothing(), findings),
        };
        Self {
            directory,
            current: ArcSwap::from_pointee(first),
            problems: ArcSwap::from_pointee(problems),
            reading: Mutex::new(()),
        }
    }

    /// The set of this moment.
    #[must_use]
    pub fn current(&self) -> Arc<Policies> {
        self.current.load_full()
    }

    /// Where its files lie; nothing for the built-in set.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// What is wrong with what lies in the directory now.
    #[must_use]
    pub fn problems(&self) -> Arc<Vec<Finding>> {
        self.problems.load_full()
    }

    /// Read the directory again, validate it against the tools of this moment, and swap. Blocks.
    pub fn reload(&self, tools: &[Arc<ToolShape>]) -> Reloaded {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        match read(self.directory.as_deref(), tools) {
            Ok(next) => {
                self.problems.store(Arc::default());
                if next.sources() == self.current.load().sources() {
                    return Reloaded::Same;
                }
                let next = Arc::new(next);
                self.current.store(Arc::clone(&next));
                Reloaded::Changed(next)
            }
            Err(findings) => {
                let told: Arc<[Finding]> = findings.clone().into();
                self.problems.store(Arc::new(findings));
                Reloaded::Refused(told)
            }
        }
    }
}

fn read(directory: Option<&Path>, tools: &[Arc<ToolShape>]) -> Result<Policies, Vec<Finding>> {
    match directory {
        None => Policies::built_in(tools),
        Some(directory) => Policies::new(source::read(directory)?, tools),
    }
}
