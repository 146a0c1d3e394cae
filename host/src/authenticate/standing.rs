//! Whether a credential still stands: until when, whether somebody took it back, and what may still be used of it.
//!
//! A standing knows the one that it was delegated from, so that whatever ends a parent ends its children at once, without a
//! search. It is shared by every connection that showed the credential, and asked by each of their requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use toolkeep_core::refusal::{Code, Refusal};

/// The standing of one credential.
#[derive(Debug)]
pub struct Standing {
    parent: Option<Arc<Self>>,
    expires_ms: u64,
    revoked: AtomicBool,
    calls: Option<Calls>,
}

#[derive(Debug)]
struct Calls {
    most: u64,
    made: AtomicU64,
}

/// Why a credential does not stand any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Over {
    /// Its time is over.
    #[error("the credential of this connection has expired")]
    Expired,
    /// Somebody took it back, or one that it comes from.
    #[error("the credential of this connection was revoked")]
    Revoked,
}

impl Over {
    /// As a caller is told.
    #[must_use]
    pub fn refusal(self) -> Refusal {
        Refusal::new(Code::Unauthorized, self.to_string())
            .hint("open another connection and show a credential that stands; nothing was run")
    }
}

impl Standing {
    /// A standing until `expires_ms` (Unix epoch) with at most `calls` in all, of which some were made before.
    #[must_use]
    pub fn new(parent: Option<Arc<Self>>, expires_ms: u64, calls: Option<(u64, u64)>) -> Self {
        let calls = calls.map(|(most, made)| Calls { most, made: AtomicU64::new(made) });
        Self { parent, expires_ms, revoked: AtomicBool::new(false), calls }
    }

    /// That of a signed statement, which nobody here can take back.
    #[must_use]
    pub fn of_statement(expires_ms: u64) -> Self {
        Self::new(None, expires_ms, None)
    }

    /// Itself and everything that it comes from.
    fn chain(&self) -> impl Iterator<Item = &Self> {
        std::iter::successors(Some(self), |standing| standing.parent.as_deref())
    }

    /// When it ends by itself, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn expires_ms(&self) -> u64 {
        self.chain().map(|standing| standing.expires_ms).min().unwrap_or(0)
    }

    /// Whether it stands.
    ///
    /// # Errors
    /// It does not, and why.
    pub fn check(&self, now_ms: u64) -> Result<(), Over> {
        for standing in self.chain() {
            if standing.revoked.load(Ordering::Acquire) {
                return Err(Over::Revoked);
            }
            if standing.expires_ms <= now_ms {
                return Err(Over::Expired);
            }
        }
        Ok(())
    }

    /// Take it back, and with it everything that was delegated from it.
    pub fn revoke(&self) {
        self.revoked.store(true, Ordering::Release);
    }

    /// How many calls may still be made: the least that it, or one that it comes from, has left.
    #[must_use]
    pub fn calls_left(&self) -> Option<u64> {
        let left = |calls: &Calls| calls.most.saturating_sub(calls.made.load(Ordering::Acquire));
        self.chain().filter_map(|standing| standing.calls.as_ref().map(left)).min()
    }

    /// Count one call, here and in everything that it comes from, or nowhere.
    ///
    /// # Errors
    /// `budget_exceeded`.
    pub fn spend_call(&self) -> Result<(), Refusal> {
        for (at, standing) in self.chain().enumerate() {
            let Some(calls) = &standing.calls else { continue };
            let more = |made: u64| (made < calls.most).then_some(made + 1);
            if calls.made.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
                for taken in self.chain().take(at).filter_map(|standing| standing.calls.as_ref()) {
                    taken.made.fetch_sub(1, Ordering::AcqRel);
                }
                let message = format!("the session may make {} call(s) in all, and they were made", calls.most);
                return Err(Refusal::new(Code::BudgetExceeded, message)
                    .hint("whoever delegated the session can delegate another one; nothing was run"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r18_what_ends_a_parent_ends_its_children() {
        let parent = Arc::new(Standing::new(None, 100, None));
        let child = Arc::new(Standing::new(Some(Arc::clone(&parent)), 200, None));
        let grandchild = Standing::new(Some(Arc::clone(&child)), 50, None);
        assert_eq!((parent.expires_ms(), child.expires_ms(), grandchild.expires_ms()), (100, 100, 50));
        assert_eq!((child.check(99), child.check(100)), (Ok(()), Err(Over::Expired)));
        assert_eq!((grandchild.check(49), grandchild.check(50)), (Ok(()), Err(Over::Expired)));
        parent.revoke();
        assert_eq!(grandchild.check(0), Err(Over::Revoked));
        let parent = Arc::new(Standing::new(None, 100, None));
        let child = Standing::new(Some(Arc::clone(&parent)), 100, None);
        child.revoke();
        assert_eq!((child.check(0), parent.check(0)), (Err(Over::Revoked), Ok(())));
    }

    #[test]
    fn r18_a_session_makes_the_calls_that_it_may_and_not_one_more() {
        let parent = Arc::new(Standing::new(None, 1, Some((5, 1))));
        let one = Standing::new(Some(Arc::clone(&parent)), 1, Some((3, 0)));
        let two = Standing::new(Some(Arc::clone(&parent)), 1, Some((3, 0)));
        assert_eq!((one.calls_left(), parent.calls_left()), (Some(3), Some(4)));
        for _ in 0..3 {
            one.spend_call().expect("a call");
        }
        assert_eq!(one.spend_call().expect_err("none left").code, Code::BudgetExceeded);
        assert_eq!((parent.calls_left(), two.calls_left()), (Some(1), Some(1)), "children share what the parent has");
        two.spend_call().expect("the last of the parent");
        two.spend_call().expect_err("none left above");
        assert_eq!(
            two.calls.as_ref().map(|calls| calls.made.load(Ordering::Acquire)),
            Some(1),
            "what failed is not counted"
        );
    }

    #[test]
    fn r18_calls_that_are_made_at_once_are_counted_once_each() {
        let parent = Arc::new(Standing::new(None, 1, Some((100, 0))));
        let made = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                let child = Standing::new(Some(Arc::clone(&parent)), 1, Some((60, 0)));
                let made = &made;
                scope.spawn(move || {
                    for _ in 0..200 {
                        if child.spend_call().is_ok() {
                            made.fetch_add(1, Ordering::AcqRel);
                        }
                    }
                });
            }
        });
        assert_eq!((made.into_inner(), parent.calls_left()), (100, Some(0)));
    }
}
