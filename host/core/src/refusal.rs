//! Refusals: every way in which a request can end without its effects, as one stable code each.
//!
//! A code is a promise to programs: it never changes meaning. Message and hint are for people and models. What must not
//! leave the daemon (paths of the host, causes, other tenants) is never put into a refusal; it goes to the log.

use serde::{Deserialize, Serialize};

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident = $word:literal, retryable $retry:literal, rpc $rpc:literal, exit $exit:literal, hint $hint:literal;)*) => {
        /// Why a request was refused or failed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Code { $($(#[$doc])* #[serde(rename = $word)] $variant,)* }

        impl Code {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];
            /// The stable word.
            #[must_use]
            pub const fn word(self) -> &'static str { match self { $(Self::$variant => $word,)* } }
            /// Whether the same request may succeed later.
            #[must_use]
            pub const fn retryable(self) -> bool { match self { $(Self::$variant => $retry,)* } }
            /// The JSON-RPC error number where the refusal is not a call's reply.
            #[must_use]
            pub const fn rpc(self) -> i32 { match self { $(Self::$variant => $rpc,)* } }
            /// The exit status of the CLI.
            #[must_use]
            pub const fn exit(self) -> u8 { match self { $(Self::$variant => $exit,)* } }
            /// What to do next, in general.
            #[must_use]
            pub const fn hint(self) -> &'static str { match self { $(Self::$variant => $hint,)* } }
        }
    };
}

codes! {
    /// The input is not valid against the schema, or a parameter makes no sense.
    InvalidInput = "invalid_input", retryable false, rpc 1000, exit 2, hint "correct the named fields and call again";
    /// The connection is not that of a known principal.
    Unauthorized = "unauthorized", retryable false, rpc 1001, exit 3, hint "ask the operator to map this uid to a principal";
    /// Policy, tier or grant does not allow it.
    Denied = "denied", retryable false, rpc 1002, exit 3, hint "ask the operator for a grant, or use a tool that may do it";
    /// Nothing of that name exists for this tenant.
    NotFound = "not_found", retryable false, rpc 1003, exit 5, hint "list what exists, then use an id from the list";
    /// A budget is used up.
    BudgetExceeded = "budget_exceeded", retryable false, rpc 1004, exit 7, hint "close the run or ask for a larger budget";
    /// Too many requests in a time.
    RateLimited = "rate_limited", retryable true, rpc 1005, exit 7, hint "wait as long as `retry_after_ms` says";
    /// The tool fails too often and rests.
    CircuitOpen = "circuit_open", retryable true, rpc 1006, exit 7, hint "wait, or use another tool";
    /// An operator stopped it.
    Killed = "killed", retryable false, rpc 1007, exit 3, hint "wait until the operator clears the kill switch";
    /// The same call was made too often in one run.
    LoopDetected = "loop_detected", retryable false, rpc 1008, exit 7, hint "do something else; the same call will not give another result";
    /// The contract wants another call first.
    GateUnmet = "gate_unmet", retryable false, rpc 1009, exit 3, hint "make the call that the gate names first";
    /// The execution used all of its fuel.
    OutOfFuel = "out_of_fuel", retryable false, rpc 1010, exit 7, hint "ask for less at a time, or have the operator raise `limits.fuel`";
    /// The execution passed its deadline.
    DeadlineExceeded = "deadline_exceeded", retryable true, rpc 1011, exit 7, hint "ask for less at a time, or have the operator raise `limits.deadline_ms`";
    /// The execution wanted more memory, tables, handles or stage than it may have.
    MemoryExceeded = "memory_exceeded", retryable false, rpc 1012, exit 7, hint "ask for less at a time, or have the operator raise the limit that the message names";
    /// The tool returned more than it may.
    OutputTooLarge = "output_too_large", retryable false, rpc 1013, exit 7, hint "ask for less at a time, or let the tool write a file";
    /// The tool reported an error of its own.
    ToolFailed = "tool_failed", retryable false, rpc 1014, exit 1, hint "read the tool's message";
    /// The tool broke: trap, panic, exit, or output that its schema forbids.
    ToolTrapped = "tool_trapped", retryable false, rpc 1015, exit 1, hint "report it to the author of the tool";
    /// The world changed since the plan was made.
    StalePlan = "stale_plan", retryable true, rpc 1016, exit 6, hint "preview again and look at what changed";
    /// A re-execution asked for something that was not approved.
    PlanDiverged = "plan_diverged", retryable false, rpc 1017, exit 6, hint "preview again";
    /// Another system did not do what a plan wanted of it.
    EffectRefused = "effect_refused", retryable false, rpc 1028, exit 1, hint "look at what the other system says";
    /// The plan waits for a human.
    ApprovalRequired = "approval_required", retryable true, rpc 1018, exit 4, hint "wait with `approvals.wait`";
    /// A human said no.
    ApprovalRejected = "approval_rejected", retryable false, rpc 1019, exit 3, hint "read the reason";
    /// Nobody answered in time.
    ApprovalExpired = "approval_expired", retryable true, rpc 1020, exit 3, hint "call again if it is still wanted";
    /// The idempotency key was used with another request.
    IdempotencyMismatch = "idempotency_mismatch", retryable false, rpc 1021, exit 2, hint "use a new key for a new request";
    /// A call with this key is running.
    InFlight = "in_flight", retryable true, rpc 1022, exit 7, hint "ask `calls.get` for its state";
    /// A queue or pool is full.
    Overloaded = "overloaded", retryable true, rpc 1023, exit 7, hint "wait as long as `retry_after_ms` says";
    /// It is not known whether an effect happened.
    UnknownOutcome = "unknown_outcome", retryable false, rpc 1024, exit 1, hint "ask `calls.get` after the daemon was restarted; recovery decides";
    /// Recovery met content that is neither before nor after, or the disk failed.
    Halted = "halted", retryable false, rpc 1025, exit 1, hint "ask the operator to run `toolkeep doctor`";
    /// A call cannot be executed again from its recording.
    NotReplayable = "not_replayable", retryable false, rpc 1032, exit 1, hint "the message says what is missing; `docs/replay.md` says what is recorded";
    /// A changed version does not pass its golden cases.
    EvalFailed = "eval_failed", retryable false, rpc 1033, exit 1, hint "look at what fails with `toolkeep eval run`, or give a reason with `--accept-failing`";
    /// A fault of the host.
    Internal = "internal", retryable true, rpc 1026, exit 1, hint "try again; if it stays, give the call id to the operator";
}

/// One problem with one field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldProblem {
    /// JSON Pointer (RFC 6901).
    pub pointer: String,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub expected: String,
}

/// A refusal as callers see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[serde(deny_unknown_fields)]
#[error("{message}")]
pub struct Refusal {
    /// The stable code.
    pub code: Code,
    /// One sentence.
    pub message: String,
    /// What to do next.
    pub hint: String,
    /// Whether the same request may succeed later.
    pub retryable: bool,
    /// How long to wait before that, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The fields that caused it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldProblem>,
    /// The tool's own error value, for `tool_failed`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<serde_json::Value>,
}

impl Refusal {
    /// A refusal with the code's own hint.
    #[must_use]
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: code.hint().to_owned(),
            retryable: code.retryable(),
            retry_after_ms: None,
            fields: Vec::new(),
            detail: None,
        }
    }

    /// The answer to every id that does not exist or belongs to another tenant: one text for both.
    #[must_use]
    pub fn not_found(what: &str) -> Self {
        Self::new(Code::NotFound, format!("no such {what}"))
    }

    /// With a more particular hint.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// With a time to wait.
    #[must_use]
    pub const fn after_ms(mut self, milliseconds: u64) -> Self {
        self.retry_after_ms = Some(milliseconds);
        self
    }

    /// With one more field.
    #[must_use]
    pub fn field(
        mut self,
        pointer: impl Into<String>,
        problem: impl Into<String>,
        expected: impl Into<String>,
    ) -> Self {
        self.fields.push(FieldProblem { pointer: pointer.into(), problem: problem.into(), expected: expected.into() });
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r12_codes_are_distinct_words_and_numbers() {
        let words: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.word()).collect();
        let numbers: std::collections::BTreeSet<_> = Code::ALL.iter().map(|c| c.rpc()).collect();
        assert_eq!((words.len(), numbers.len()), (Code::ALL.len(), Code::ALL.len()));
        for code in Code::ALL {
            assert!(code.rpc() >= 1000 && !code.hint().is_empty());
            assert_eq!(serde_json::to_value(code).expect("json"), serde_json::json!(code.word()));
        }
    }
}
