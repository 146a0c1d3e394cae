//! Terms: what a version gives a recorded call that is executed again.
//!
//! A call may have had less than its manifest allows, because a session, a budget or an earlier attempt narrowed it. That
//! stays so with every version. What was not narrowed then is what the version that runs says itself: another manifest with
//! less fuel gives less. Nothing in a recording gives more than that manifest, whoever wrote the recording.

use std::sync::Arc;

use toolkeep_core::capability::{Access, FileGrant};
use toolkeep_core::event::Given;
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::id::WorkspaceName;
use toolkeep_core::tier::Tier;

use super::version::Version;

/// What a call gets.
#[derive(Debug)]
pub(super) struct Terms {
    /// Fuel.
    pub(super) fuel: u64,
    /// Its deadline, in milliseconds.
    pub(super) deadline_ms: u64,
    /// Workspaces.
    pub(super) files: Vec<FileGrant>,
    /// Origins that it may send requests to.
    pub(super) http: Arc<[HttpGrant]>,
}

impl Version {
    /// What it allows a call that nobody narrowed.
    #[must_use]
    pub fn allows(&self) -> Given {
        let manifest = &self.manifest;
        Given {
            fuel: manifest.limits.fuel,
            deadline_ms: manifest.limits.deadline_ms,
            mounts: manifest.files.iter().map(|grant| (grant.workspace.clone(), self.most(grant))).collect(),
            requests: manifest.http.iter().map(|grant| grant.requests).collect(),
        }
    }

    fn most(&self, grant: &FileGrant) -> Access {
        if self.tier == Tier::ReadOnly { Access::Read } else { grant.access }
    }
}

/// What `version` gives a call that was given this, where its own manifest allowed that much.
pub(super) fn terms(given: &Given, allowed: &Given, version: &Version) -> Terms {
    let own = version.allows();
    Terms {
        fuel: narrowed(given.fuel, allowed.fuel, own.fuel),
        deadline_ms: narrowed(given.deadline_ms, allowed.deadline_ms, own.deadline_ms),
        files: version.manifest.files.iter().filter_map(|grant| file(given, allowed, (version, grant))).collect(),
        http: requests(given, allowed, &version.manifest.http),
    }
}

fn narrowed<T: Ord + Copy>(had: T, allowed: T, own: T) -> T {
    if had < allowed { had.min(own) } else { own }
}

/// A workspace as the call gets it; nothing if it was taken from the call.
fn file(given: &Given, allowed: &Given, (version, grant): (&Version, &FileGrant)) -> Option<FileGrant> {
    let of = |all: &Given| all.mounts.iter().find(|(name, _): &&(WorkspaceName, _)| *name == grant.workspace).cloned();
    let own = version.most(grant);
    let access = match (of(given), of(allowed)) {
        (Some((_, had)), Some((_, allowed))) => narrowed(had, allowed, own),
        (None, Some(_)) => return None,
        (_, None) => own,
    };
    Some(FileGrant { access, ..grant.clone() })
}

/// The grants of requests. Recordings know them by their place alone, so that a manifest with others gives its own.
fn requests(given: &Given, allowed: &Given, own: &Arc<[HttpGrant]>) -> Arc<[HttpGrant]> {
    if given.requests.len() != own.len() || allowed.requests.len() != own.len() || given.requests == allowed.requests {
        return Arc::clone(own);
    }
    let had = given.requests.iter().zip(&allowed.requests);
    let grants = own.iter().zip(had).map(|(grant, (had, allowed))| {
        let mut grant = grant.clone();
        grant.requests = narrowed(*had, *allowed, grant.requests);
        grant
    });
    grants.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sample::version;

    const BOTH: &str = "tier = 1\n[limits]\nfuel = 1000\ndeadline_ms = 500\n\
                        [[workspace]]\nname = \"notes\"\naccess = \"write\"\n[[workspace]]\nname = \"books\"\naccess = \"read\"\n";

    #[test]
    fn r47_another_version_gives_its_own_fuel_and_time_and_not_those_of_the_recording() {
        let (was, less) = (version(BOTH), version(&BOTH.replace("1000", "10").replace("500", "5")));
        let given = was.allows();
        let now = terms(&given, &given, &less);
        assert_eq!((now.fuel, now.deadline_ms), (10, 5));
        let more = version(&BOTH.replace("1000", "7000").replace("500", "900"));
        let now = terms(&given, &given, &more);
        assert_eq!((now.fuel, now.deadline_ms), (7_000, 900));
    }

    #[test]
    fn r47_what_a_call_was_narrowed_to_stays_so_with_every_version() {
        let (was, more) = (version(BOTH), version(&BOTH.replace("1000", "7000")));
        let narrowed = Given { fuel: 400, ..was.allows() };
        assert_eq!(terms(&narrowed, &was.allows(), &more).fuel, 400);
        let less = version(&BOTH.replace("1000", "10"));
        assert_eq!(terms(&narrowed, &was.allows(), &less).fuel, 10);
        assert_eq!(terms(&narrowed, &was.allows(), &was).fuel, 400);
    }

    #[test]
    fn r45_a_recording_that_says_it_was_given_more_gets_what_the_manifest_allows() {
        let was = version(BOTH);
        let given = Given { fuel: u64::MAX, deadline_ms: u64::MAX, ..was.allows() };
        for allowed in [&given, &was.allows()] {
            let now = terms(&given, allowed, &was);
            assert_eq!((now.fuel, now.deadline_ms), (1_000, 500));
        }
    }

    #[test]
    fn r47_workspaces_follow_the_version_that_runs_unless_they_were_taken_from_the_call() {
        let was = version(BOTH);
        let shape = |terms: &Terms| -> Vec<(String, Access)> {
            terms.files.iter().map(|grant| (grant.workspace.to_string(), grant.access)).collect()
        };
        let of = |given: &Given, version: &Version| shape(&terms(given, &was.allows(), version));
        let both = [("notes".to_owned(), Access::Write), ("books".to_owned(), Access::Read)];
        assert_eq!(of(&was.allows(), &was), both);
        let wider = version(&BOTH.replace("\"read\"", "\"write\""));
        assert_eq!(of(&was.allows(), &wider)[1].1, Access::Write, "the version gives more than the old one did");
        let mut given = was.allows();
        given.mounts[0].1 = Access::Read;
        given.mounts.pop();
        assert_eq!(of(&given, &wider), [("notes".to_owned(), Access::Read)]);
        let reads = version(&BOTH.replace("tier = 1", "tier = 0").replace("\"write\"", "\"read\""));
        assert_eq!(of(&was.allows(), &reads)[0].1, Access::Read);
    }
}
