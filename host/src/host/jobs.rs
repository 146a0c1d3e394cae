//! Jobs: long questions of operators that are asked once and looked at again until they are answered.
//!
//! A job lives in memory and belongs to the tenant of who asked. It is bounded: few run at one time, few are kept, and a
//! restart forgets them, because asking again costs nothing but time. Cancelling one ends what it executes.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde_json::{Value, json};
use toolkeep_core::id::TenantName;
use toolkeep_core::refusal::{Code, Refusal};
use toolkeep_sandbox::execution::Cancel;

use super::Host;
use crate::authenticate::Operator;

/// Jobs that run at one time: they compute beside everybody else's calls.
pub(super) const RUNNING_MAX: usize = 2;
/// Jobs that are kept, running or over; the oldest that is over goes first.
pub(super) const KEPT_MAX: usize = 32;
/// When to ask again for a place, in milliseconds.
const AGAIN_MS: u64 = 2_000;

/// The jobs of a daemon.
#[derive(Debug, Default)]
pub(super) struct Jobs(Mutex<BTreeMap<String, Arc<Job>>>);

/// One job.
#[derive(Debug)]
pub(super) struct Job {
    tenant: TenantName,
    what: &'static str,
    total: u64,
    done: AtomicU64,
    /// Ends it.
    pub(super) cancel: Cancel,
    answer: OnceLock<Result<Value, Refusal>>,
}

impl Job {
    /// One more step is done.
    pub(super) fn step(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn view(&self, id: &str) -> Value {
        let (done, total) = (self.done.load(Ordering::Relaxed), self.total);
        let mut view = json!({"job": id, "what": self.what, "done": done, "total": total});
        let (state, member) = match self.answer.get() {
            None => ("running", None),
            Some(Ok(report)) => ("done", Some(("report", report.clone()))),
            Some(Err(refusal)) => ("failed", Some(("error", json!(refusal)))),
        };
        if let Value::Object(members) = &mut view {
            members.insert("state".to_owned(), json!(state));
            members.extend(member.map(|(name, value)| (name.to_owned(), value)));
        }
        view
    }
}

impl Jobs {
    fn jobs(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Job>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Take a place for a job.
    fn begin(&self, id: String, job: Arc<Job>) -> Result<(), Refusal> {
        let mut jobs = self.jobs();
        if jobs.values().filter(|job| job.answer.get().is_none()).count() >= RUNNING_MAX {
            let message = format!("{RUNNING_MAX} jobs are running; wait for one, or cancel it");
            return Err(Refusal::new(Code::Overloaded, message).after_ms(AGAIN_MS));
        }
        while jobs.len() >= KEPT_MAX {
            // Ids carry their time: the first is the oldest.
            let Some(oldest) = jobs.iter().find(|(_, job)| job.answer.get().is_some()).map(|(id, _)| id.clone()) else {
                break;
            };
            jobs.remove(&oldest);
        }
        jobs.insert(id, job);
        Ok(())
    }

    fn find(&self, tenant: &TenantName, id: &str) -> Result<Arc<Job>, Refusal> {
        let found = self.jobs().get(id).map(Arc::clone);
        found.filter(|job| job.tenant == *tenant).ok_or_else(|| Refusal::not_found("job"))
    }
}

impl Host {
    /// Begin a job of `total` steps. The answer names it.
    pub(super) fn begin_job<F: Future<Output = Result<Value, Refusal>> + Send + 'static>(
        &self,
        operator: &Operator,
        (what, total): (&'static str, u64),
        work: impl FnOnce(Self, Arc<Job>) -> F,
    ) -> Result<Value, Refusal> {
        let id = format!("job_{}", self.ambient().uuid_v7());
        let job = Arc::new(Job {
            tenant: operator.tenant().clone(),
            what,
            total,
            done: AtomicU64::new(0),
            cancel: Cancel::new(),
            answer: OnceLock::new(),
        });
        self.0.jobs.begin(id.clone(), Arc::clone(&job))?;
        let (work, ending) = (work(self.clone(), Arc::clone(&job)), Arc::clone(&job));
        let task = self.spawn(work);
        self.spawn(async move {
            let panicked = |_| Err(Refusal::new(Code::Internal, "BUG: the job panicked"));
            let _answered_once = ending.answer.set(task.await.unwrap_or_else(panicked));
        });
        Ok(job.view(&id))
    }

    /// How far a job has come, and what it came to.
    ///
    /// # Errors
    /// `not_found`: there is no such job of the operator's tenant; a restart forgets them.
    pub fn job(&self, operator: &Operator, id: &str) -> Result<Value, Refusal> {
        Ok(self.0.jobs.find(operator.tenant(), id)?.view(id))
    }

    /// End a job. What it found so far is its answer.
    ///
    /// # Errors
    /// As [`Host::job`].
    pub fn cancel_job(&self, operator: &Operator, id: &str) -> Result<Value, Refusal> {
        let job = self.0.jobs.find(operator.tenant(), id)?;
        job.cancel.cancel();
        Ok(job.view(id))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(tenant: &str) -> Arc<Job> {
        Arc::new(Job {
            tenant: tenant.parse().expect("name"),
            what: "test",
            total: 1,
            done: AtomicU64::new(0),
            cancel: Cancel::new(),
            answer: OnceLock::new(),
        })
    }

    #[test]
    fn r47_at_most_so_many_jobs_run_and_the_oldest_that_is_over_makes_room() {
        let jobs = Jobs::default();
        let running: Vec<Arc<Job>> = (0..RUNNING_MAX).map(|_| job("a")).collect();
        for (place, job) in running.iter().enumerate() {
            jobs.begin(format!("job_{place}"), Arc::clone(job)).expect("as many as the bound says");
        }
        assert_eq!(jobs.begin("job_x".to_owned(), job("a")).map_err(|e| e.code), Err(Code::Overloaded));
        for job in &running {
            job.answer.set(Ok(Value::Null)).expect("once");
        }
        for place in 10..10 + KEPT_MAX {
            let next = job("a");
            next.answer.set(Ok(Value::Null)).expect("once");
            jobs.begin(format!("job_{place}"), next).expect("nothing runs");
        }
        assert_eq!(jobs.jobs().len(), KEPT_MAX);
        assert!(jobs.jobs().get("job_0").is_none());
    }

    #[test]
    fn r47_a_job_of_another_tenant_looks_like_none() {
        let jobs = Jobs::default();
        jobs.begin("job_1".to_owned(), job("a")).expect("room");
        assert!(jobs.find(&"a".parse().expect("name"), "job_1").is_ok());
        let foreign = jobs.find(&"b".parse().expect("name"), "job_1").map(|_| ()).expect_err("foreign");
        let missing = jobs.find(&"a".parse().expect("name"), "job_2").map(|_| ()).expect_err("missing");
        assert_eq!(foreign, missing);
    }
}
