//! From the text of a guest's path to a node.
//!
//! A guest may write `.` and `..` where they do not climb above the handle that the path is relative to; everything else
//! that the grammar refuses is refused: absolute paths, empty components, a trailing `/` or `/.`, control characters,
//! backslashes, and names or paths that are too long. The walk goes through the merged tree, so links of the
//! lower layer are resolved here, never by the kernel.

use std::collections::VecDeque;

use toolkeep_core::path::{DEPTH_MAX, PATH_MAX_BYTES, PathProblem, WorkspacePath, check_component};
use toolkeep_core::plan::EntryKind;

use super::tree::{Kind, NodeId, Tree};
use super::{RefusedKind, StageError};

/// Most symbolic links in one path (`MAXSYMLINKS` of Linux).
pub(super) const LINKS_MAX: u32 = 40;

/// One step of a path.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Up,
    Into(Box<str>),
}

/// Where a path leads.
#[derive(Debug)]
pub(super) struct Place {
    /// The directory that holds it.
    pub(super) parent: NodeId,
    /// Its name there; nothing if the path ends in `.` or `..`.
    pub(super) name: Option<Box<str>>,
    /// What is there.
    pub(super) node: Option<NodeId>,
    /// Whether a symbolic link was followed on the way.
    pub(super) linked: bool,
}

impl Place {
    /// The path of the place.
    pub(super) fn path(&self, tree: &Tree) -> Result<WorkspacePath, StageError> {
        let parent = tree.node(self.parent)?;
        match &self.name {
            None => Ok(parent.path.clone()),
            Some(name) => parent.path.join(name).map_err(|bad| match bad.problem {
                PathProblem::TooDeep => StageError::Full { what: "levels of directories", limit: DEPTH_MAX as u64 },
                problem => StageError::BadPath(problem),
            }),
        }
    }
}

/// The steps of a path that a guest wrote.
fn parse(text: &str) -> Result<VecDeque<Step>, StageError> {
    if text.is_empty() {
        return Err(StageError::NoEntry);
    }
    if text.len() > PATH_MAX_BYTES {
        return Err(PathProblem::LongPath.into());
    }
    if text.starts_with('/') {
        return Err(PathProblem::Absolute.into());
    }
    if text.ends_with('/') || text.ends_with("/.") {
        return Err(PathProblem::TrailingSlash.into());
    }
    let mut steps = VecDeque::new();
    for component in text.split('/') {
        match component {
            "." => {}
            ".." => steps.push_back(Step::Up),
            name => {
                check_component(name)?;
                steps.push_back(Step::Into(name.into()));
            }
        }
    }
    if steps.iter().filter(|step| **step != Step::Up).count() > DEPTH_MAX {
        return Err(PathProblem::TooDeep.into());
    }
    Ok(steps)
}

/// The steps of a link's target: what the kernel would take, except that it stays inside.
fn parse_target(text: &str) -> Result<Vec<Step>, StageError> {
    if text.starts_with('/') {
        return Err(StageError::Escape);
    }
    let mut steps = Vec::new();
    for component in text.split('/') {
        match component {
            "" | "." => {}
            ".." => steps.push(Step::Up),
            name => {
                check_component(name)?;
                steps.push(Step::Into(name.into()));
            }
        }
    }
    Ok(steps)
}

impl Tree {
    /// Walk `text` from the directory `base`. Links in the middle are followed, one at the end only with `follow`.
    pub(super) fn resolve(
        &mut self,
        operation: &'static str,
        base: NodeId,
        text: &str,
        follow: bool,
    ) -> Result<Place, StageError> {
        self.node(base)?.directory()?;
        let result = parse(text).and_then(|steps| self.walk(operation, base, steps, follow));
        if let Err(error) = &result
            && is_escape(error)
        {
            self.breach(operation, text, error);
        }
        result
    }

    fn walk(
        &mut self,
        operation: &'static str,
        base: NodeId,
        mut steps: VecDeque<Step>,
        follow: bool,
    ) -> Result<Place, StageError> {
        let mut way: Vec<NodeId> = Vec::new();
        let mut here = base;
        let mut links = 0;
        let place = |parent, name, node, links| Place { parent, name, node, linked: links > 0 };
        while let Some(step) = steps.pop_front() {
            let last = steps.is_empty();
            let name = match step {
                Step::Up => {
                    here = way.pop().ok_or(StageError::Escape)?;
                    continue;
                }
                Step::Into(name) => name,
            };
            self.may_enter(operation, here)?;
            let Some(found) = self.lookup(here, &name)? else {
                return if last { Ok(place(here, Some(name), None, links)) } else { Err(StageError::NoEntry) };
            };
            match &self.node(found)?.kind {
                Kind::Symlink if follow || !last => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(StageError::Loop);
                    }
                    for step in parse_target(&self.read_target(found)?)?.into_iter().rev() {
                        steps.push_front(step);
                    }
                }
                Kind::Directory(_) if !last => {
                    way.push(here);
                    here = found;
                }
                Kind::Refused(RefusedKind::Mount) if !last => return Err(StageError::LinkOrSpecial),
                _ if last => return Ok(place(here, Some(name), Some(found), links)),
                _ => {
                    self.observe(found)?;
                    return Err(StageError::NotDirectory);
                }
            }
        }
        let (parent, node) = (way.pop().unwrap_or(here), Some(here));
        Ok(Place { parent, name: None, node, linked: links > 0 })
    }

    /// The target of a link, which becomes part of the read set.
    fn read_target(&mut self, id: NodeId) -> Result<String, StageError> {
        let node = self.node(id)?;
        let Some(lower) = &node.lower else { return Err(StageError::Invalid) };
        let root = &self.mount(node.mount)?.root;
        let (target, seen) =
            root.read_link(&lower.path, self.notes.as_ref()).map_err(|error| self.reopened(id, error))?;
        self.same_state(id, &seen)?;
        self.observe(id)?;
        self.observe_bytes(id, 0, target.as_bytes())?;
        Ok(target)
    }

    pub(super) fn read_link_at(&mut self, base: &super::Handle, text: &str) -> Result<String, StageError> {
        let place = self.resolve("readlink", base.node, text, false)?;
        let id = place.node.ok_or(StageError::NoEntry)?;
        self.observe(id)?;
        if !matches!(self.node(id)?.kind, Kind::Symlink) {
            return Err(StageError::Invalid);
        }
        let target = self.read_target(id)?;
        if target.starts_with('/') {
            let path = self.node(id)?.path.clone();
            return Err(self.refuse("readlink", path.as_str(), StageError::Escape));
        }
        Ok(target)
    }

    pub(super) fn stat_at(
        &mut self,
        base: &super::Handle,
        text: &str,
        follow: bool,
    ) -> Result<(super::Stat, u64), StageError> {
        let place = self.resolve("stat", base.node, text, follow)?;
        let id = place.node.ok_or(StageError::NoEntry)?;
        Ok((self.stat(id)?, id.number()))
    }

    pub(super) fn stat(&mut self, id: NodeId) -> Result<super::Stat, StageError> {
        self.observe(id)?;
        let node = self.node(id)?;
        let seen = node.lower.as_ref().map(|lower| &lower.seen);
        let (entry, refused) = match &node.kind {
            Kind::File(_) => (EntryKind::File, None),
            Kind::Directory(_) => (EntryKind::Directory, None),
            Kind::Symlink => (EntryKind::Symlink, None),
            Kind::Refused(kind) => (EntryKind::Refused, Some(*kind)),
        };
        let staged = match &node.kind {
            Kind::File(super::tree::FileContent::Upper(buffer)) => Some(buffer.size()),
            _ => None,
        };
        let shown_ns = match (staged, seen) {
            (None, Some(seen)) => seen.tuple.mtime_ns,
            _ => node.modified_ns,
        };
        Ok(super::Stat {
            entry,
            refused,
            size: staged.or_else(|| seen.map(|seen| seen.size)).unwrap_or(0),
            modified_ns: node.times.unwrap_or(shown_ns),
        })
    }
}

const fn is_escape(error: &StageError) -> bool {
    matches!(error, StageError::Escape | StageError::BadPath(PathProblem::Absolute | PathProblem::Escape))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t_f1_the_grammar_of_a_guests_path() {
        let check = |text: &str, expect: Result<usize, StageError>| {
            assert_eq!(parse(text).map(|steps| steps.len()), expect, "{text:?}");
        };
        let bad = |problem| Err(StageError::BadPath(problem));
        check(".", Ok(0));
        check("a", Ok(1));
        check("./a/../b", Ok(3));
        check("..", Ok(1));
        check("", Err(StageError::NoEntry));
        check("/", bad(PathProblem::Absolute));
        check("/etc/passwd", bad(PathProblem::Absolute));
        check("a/", bad(PathProblem::TrailingSlash));
        check("a/.", bad(PathProblem::TrailingSlash));
        check("./", bad(PathProblem::TrailingSlash));
        check("a//b", bad(PathProblem::Empty));
        check("a\\b", bad(PathProblem::Control));
        check("a\0b", bad(PathProblem::Control));
        check("a\u{1b}b", bad(PathProblem::Control));
        check("a\u{9b}b", bad(PathProblem::Control));
        check(&"a".repeat(255), Ok(1));
        check(&"a".repeat(256), bad(PathProblem::LongComponent));
        check(&vec!["a"; DEPTH_MAX].join("/"), Ok(DEPTH_MAX));
        check(&vec!["a"; DEPTH_MAX + 1].join("/"), bad(PathProblem::TooDeep));
        check("../".repeat(1365).trim_end_matches('/'), Ok(1365));
        check("../".repeat(1366).trim_end_matches('/'), bad(PathProblem::LongPath));
    }
}
