//! Exit statuses: what a script can tell without reading anything.
//!
//! They derive from the same table as everything else, status and outcome of the reply or the code of the refusal, in the
//! one function [`Exit::of_reply`]; no command chooses one by itself.

use std::process::ExitCode;

use toolkeep_core::call::{Outcome, Status};
use toolkeep_core::refusal::Code;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: it did what was asked.
    Ok,
    /// 1: it failed.
    Error,
    /// 2: it was asked wrongly.
    Usage,
    /// 3: policy or a person said no.
    Denied,
    /// 4: it waits for a person.
    Held,
    /// 5: there is no such thing.
    NotFound,
    /// 6: the world has changed since the plan was made.
    Stale,
    /// 7: a limit was reached.
    Limited,
    /// 8: no daemon answers.
    Unreachable,
    /// 9: a check found something.
    Findings,
}

impl Exit {
    /// The number.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Usage => 2,
            Self::Denied => 3,
            Self::Held => 4,
            Self::NotFound => 5,
            Self::Stale => 6,
            Self::Limited => 7,
            Self::Unreachable => 8,
            Self::Findings => 9,
        }
    }

    /// The status for a refusal.
    #[must_use]
    pub const fn of_code(code: Code) -> Self {
        match code.exit() {
            2 => Self::Usage,
            3 => Self::Denied,
            4 => Self::Held,
            5 => Self::NotFound,
            6 => Self::Stale,
            7 => Self::Limited,
            _ => Self::Error,
        }
    }

    /// The status for the reply of a call.
    #[must_use]
    pub const fn of_reply(status: Status, outcome: Outcome, code: Option<Code>) -> Self {
        match (status, outcome, code) {
            (Status::Ok, _, _) => Self::Ok,
            (Status::Held, _, _) => Self::Held,
            (Status::Failed, Outcome::Halted, _) | (Status::Unknown, _, _) => Self::Error,
            (Status::Denied | Status::Failed, _, Some(code)) => Self::of_code(code),
            (Status::Denied, _, None) => Self::Denied,
            (Status::Failed, _, None) => Self::Error,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.number())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r12_every_code_and_every_status_has_its_number() {
        for code in Code::ALL {
            assert_eq!(Exit::of_code(*code).number(), code.exit(), "{}", code.word());
            assert_eq!(Exit::of_reply(Status::Failed, Outcome::Discarded, Some(*code)).number(), code.exit());
        }
        assert_eq!(Exit::of_reply(Status::Ok, Outcome::Committed, None), Exit::Ok);
        assert_eq!(Exit::of_reply(Status::Held, Outcome::Pending, Some(Code::ApprovalRequired)), Exit::Held);
        assert_eq!(Exit::of_reply(Status::Denied, Outcome::Discarded, Some(Code::Denied)), Exit::Denied);
        assert_eq!(Exit::of_reply(Status::Failed, Outcome::Halted, Some(Code::Halted)), Exit::Error);
        assert_eq!(Exit::of_reply(Status::Unknown, Outcome::Unknown, None), Exit::Error);
    }
}
