//! What open runs have seen and tried: their taint, and how often they tested a boundary.
//!
//! Kept in memory for the calls, and in the ledger for a restart. A run that has seen and tried nothing is not in it, so that
//! asking costs one short look at a small map; a call without a run costs nothing. A call that belongs to no run taints itself
//! and nothing else: a connection is not a run, because several tasks may share it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use toolkeep_core::id::{RunId, TenantName};
use toolkeep_core::taint::Taint;

use crate::ledger::RunMark;

/// What one run has seen and tried.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Exposure {
    /// What it has seen.
    pub taint: Taint,
    /// How often it tried what it may not.
    pub breaches: u32,
}

/// What all open runs have seen and tried. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Exposures(Arc<RwLock<HashMap<RunId, Known>>>, Owed);

/// Runs of which more is known than the ledger could be told, with their tenants.
type Owed = Arc<Mutex<HashMap<RunId, TenantName>>>;

/// What is known of one run.
#[derive(Debug, Clone, Copy, Default)]
struct Known {
    exposure: Exposure,
    /// What of its taint is on the disk.
    kept: Taint,
}

impl Exposures {
    /// As they were when the daemon stopped.
    #[must_use]
    pub fn of_marks(marks: &[RunMark]) -> Self {
        let known = |mark: &RunMark| {
            let exposure = Exposure { taint: mark.taint, breaches: mark.breaches };
            (mark.run, Known { exposure, kept: mark.taint })
        };
        Self(Arc::new(RwLock::new(marks.iter().map(known).collect())), Owed::default())
    }

    /// What a run has seen and tried; nothing for no run.
    #[must_use]
    pub fn of(&self, run: Option<RunId>) -> Exposure {
        let Some(run) = run else { return Exposure::default() };
        self.known(run).exposure
    }

    fn known(&self, run: RunId) -> Known {
        self.0.read().unwrap_or_else(PoisonError::into_inner).get(&run).copied().unwrap_or_default()
    }

    /// A run has seen this. Gives what it has seen and tried by now, if that is more than is on the disk: whoever gets it
    /// writes it, and says so to [`Self::kept`], before anybody is answered.
    #[must_use]
    pub fn saw(&self, run: RunId, taint: Taint) -> Option<Exposure> {
        if self.known(run).kept.covers(taint) {
            return None;
        }
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let known = all.entry(run).or_default();
        known.exposure.taint = known.exposure.taint.and(taint);
        Some(known.exposure)
    }

    /// That a run has seen this is on the disk.
    pub fn kept(&self, run: RunId, taint: Taint) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&run) {
            known.kept = known.kept.and(taint);
        }
    }

    /// A run tried what it may not. Gives what it has seen and tried by now.
    #[must_use]
    pub fn tried(&self, run: RunId) -> Exposure {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let exposure = &mut all.entry(run).or_default().exposure;
        exposure.breaches = exposure.breaches.saturating_add(1);
        *exposure
    }

    /// An operator lets a run go on: so much of what it tried is forgotten, what it has seen is not.
    pub fn pardon(&self, run: RunId, tried: u32) {
        let mut all = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get_mut(&run) {
            known.exposure.breaches = known.exposure.breaches.saturating_sub(tried);
        }
    }

    /// The ledger could not be told what a run tried: it is owed to it.
    pub fn owe(&self, run: RunId, tenant: &TenantName) {
        self.1.lock().unwrap_or_else(PoisonError::into_inner).insert(run, tenant.clone());
    }

    /// What is owed to the ledger, of runs that are still open. It is owed no more.
    #[must_use]
    pub fn take_owed(&self) -> Vec<(TenantName, RunMark)> {
        let owed = std::mem::take(&mut *self.1.lock().unwrap_or_else(PoisonError::into_inner));
        if owed.is_empty() {
            return Vec::new();
        }
        let all = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let mark = |run: RunId| {
            let Exposure { taint, breaches } = all.get(&run)?.exposure;
            Some(RunMark { run, taint, breaches })
        };
        owed.into_iter().filter_map(|(run, tenant)| Some((tenant, mark(run)?))).collect()
    }

    /// The run is closed: no call names it any more.
    pub fn forget(&self, run: RunId) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(&run);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    #[test]
    fn r37_a_run_only_ever_sees_more_and_others_see_nothing_of_it() {
        let (runs, run, other) = (Exposures::default(), RunId::new(Uuid::from_u128(1)), RunId::new(Uuid::from_u128(2)));
        assert_eq!(runs.of(Some(run)), Exposure::default());
        assert_eq!(runs.saw(run, Taint::NONE), None, "nothing is no more than nothing");
        assert_eq!(runs.saw(run, Taint::UNTRUSTED).map(|seen| seen.taint), Some(Taint::UNTRUSTED));
        assert!(
            runs.saw(run, Taint::UNTRUSTED).is_some(),
            "it is known, but not on the disk: whoever saw it writes too"
        );
        runs.kept(run, Taint::UNTRUSTED);
        assert_eq!(runs.saw(run, Taint::UNTRUSTED), None, "it is known");
        let both = Taint { untrusted: true, private: true };
        assert_eq!(runs.saw(run, Taint::PRIVATE).map(|seen| seen.taint), Some(both));
        assert_eq!((runs.tried(run).breaches, runs.tried(run).breaches), (1, 2));
        assert_eq!((runs.of(Some(other)), runs.of(None)), (Exposure::default(), Exposure::default()));
        let again = Exposures::of_marks(&[RunMark { run, taint: both, breaches: 2 }]);
        assert_eq!(again.of(Some(run)), runs.of(Some(run)));
        assert_eq!(runs.tried(run).breaches, 3, "after the operator looked");
        runs.pardon(run, 2);
        assert_eq!(runs.of(Some(run)), Exposure { taint: both, breaches: 1 });
        runs.forget(run);
        assert_eq!(runs.of(Some(run)), Exposure::default());
    }

    #[test]
    fn r24_what_the_ledger_did_not_take_is_owed_as_it_is_by_then_and_once() {
        let (runs, run, closed) =
            (Exposures::default(), RunId::new(Uuid::from_u128(1)), RunId::new(Uuid::from_u128(2)));
        let tenant: TenantName = "acme".parse().expect("a name");
        assert_eq!((runs.tried(run).breaches, runs.tried(closed).breaches), (1, 1));
        runs.owe(run, &tenant);
        runs.owe(closed, &tenant);
        assert_eq!(runs.tried(run).breaches, 2);
        runs.forget(closed);
        assert_eq!(runs.take_owed(), [(tenant, RunMark { run, taint: Taint::NONE, breaches: 2 })]);
        assert!(runs.take_owed().is_empty());
    }
}
