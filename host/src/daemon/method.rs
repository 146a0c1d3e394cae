//! The methods that exist, one closed table per plane.
//!
//! A plane looks names up in its own table only, so a method of the other plane is as unknown as one that nobody
//! wrote. The dispatchers match these enums exhaustively: a method in a table without a body does not compile.
//! `docs/protocol.md` describes each; a test compares the lists.

macro_rules! methods {
    ($(#[$doc:meta])* $name:ident { $($(#[$each:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum $name { $($(#[$each])* $variant,)* }

        impl $name {
            /// Every method of the plane.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The method of this name, if the plane has it.
            #[must_use]
            pub fn named(name: &str) -> Option<Self> {
                match name {
                    $($word => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The name on the wire.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }
        }
    };
}

methods! {
    /// What an agent can ask. Nothing here grants, approves, installs or stops anything.
    AgentMethod {
        /// Show a token, a session or a signed statement, before anything else.
        SessionAuthenticate = "session.authenticate",
        /// Who the caller is here, and what it holds.
        SessionGet = "session.get",
        /// Open a session that holds a part of what the caller holds.
        SessionsDelegate = "sessions.delegate",
        /// The sessions that the caller has opened.
        SessionsList = "sessions.list",
        /// Take a session back.
        SessionsRevoke = "sessions.revoke",
        /// Version, bounds and whether the daemon is ready.
        HostInfo = "host.info",
        /// The tools that the caller may call.
        ToolsList = "tools.list",
        /// One tool with its schemas.
        ToolsDescribe = "tools.describe",
        /// Begin a run.
        RunsOpen = "runs.open",
        /// A run and its calls.
        RunsGet = "runs.get",
        /// Say what the caller's model used.
        RunsReport = "runs.report",
        /// End a run.
        RunsClose = "runs.close",
        /// Call a tool.
        CallsExecute = "calls.execute",
        /// Call a tool and commit nothing.
        CallsPreview = "calls.preview",
        /// The reply of a call, or its state.
        CallsGet = "calls.get",
        /// A part of an output that was too long for its reply.
        CallsOutput = "calls.output",
        /// Stop an execution.
        CallsCancel = "calls.cancel",
        /// A plan, a page of its effects, and diffs.
        PlansGet = "plans.get",
        /// Commit a previewed plan.
        PlansCommit = "plans.commit",
        /// Throw a previewed plan away.
        PlansDiscard = "plans.discard",
        /// The state of an approval.
        ApprovalsGet = "approvals.get",
        /// Wait until an approval is resolved.
        ApprovalsWait = "approvals.wait",
        /// Begin a transaction.
        TransactionsBegin = "transactions.begin",
        /// A transaction, its calls and its effects.
        TransactionsGet = "transactions.get",
        /// The caller's transactions.
        TransactionsList = "transactions.list",
        /// What a commit would do, as a plan.
        TransactionsPreview = "transactions.preview",
        /// Commit all that the calls of a transaction staged.
        TransactionsCommit = "transactions.commit",
        /// Drop all that the calls of a transaction staged.
        TransactionsRollback = "transactions.rollback",
        /// Preview the undoing of a call or a run.
        UndoPropose = "undo.propose",
        /// Check the signature of a receipt.
        ReceiptsVerify = "receipts.verify",
    }
}

methods! {
    /// What an operator can ask.
    AdminMethod {
        /// Show the admin token, where agent and operator share a uid, or a minted one.
        SessionAuthenticate = "session.authenticate",
        /// Mint a token.
        TokensMint = "tokens.mint",
        /// Tokens, or sessions, of the tenant.
        TokensList = "tokens.list",
        /// Take a token or a session back.
        TokensRevoke = "tokens.revoke",
        /// Approvals that wait, or all.
        ApprovalsList = "approvals.list",
        /// One approval with everything that its plan would change.
        ApprovalsShow = "approvals.show",
        /// Consent to one plan.
        ApprovalsApprove = "approvals.approve",
        /// Refuse one plan.
        ApprovalsReject = "approvals.reject",
        /// Standing approvals.
        StandingList = "standing.list",
        /// What a standing approval would have let through.
        StandingPreview = "standing.preview",
        /// Make a standing approval.
        StandingMake = "standing.make",
        /// Agree to a standing approval that waits for another person.
        StandingAgree = "standing.agree",
        /// End a standing approval.
        StandingRevoke = "standing.revoke",
        /// How far agents may go, and what became of their plans.
        AutonomyList = "autonomy.list",
        /// The same, of one agent with one tool.
        AutonomyShow = "autonomy.show",
        /// Say how far an agent may go with a tool.
        AutonomySet = "autonomy.set",
        /// The four questions about a call or a run.
        IncidentGet = "incident.get",
        /// What operators have to know.
        AlertsList = "alerts.list",
        /// One alert with its facts.
        AlertsShow = "alerts.show",
        /// Say that an alert was seen.
        AlertsAck = "alerts.ack",
        /// Calls with a request of which nobody knows what became of it.
        OutcomesList = "outcomes.list",
        /// Say what became of one.
        OutcomesResolve = "outcomes.resolve",
        /// Install a tool from its manifest.
        ToolsInstall = "tools.install",
        /// Every manifest and what became of it.
        ToolsList = "tools.list",
        /// Read the manifests again.
        ToolsReload = "tools.reload",
        /// Plans of the tenant.
        PlansList = "plans.list",
        /// One plan.
        PlansShow = "plans.show",
        /// Runs of the tenant.
        RunsList = "runs.list",
        /// One run and its calls.
        RunsShow = "runs.show",
        /// Let a held run go on, or raise its budget.
        RunsRelease = "runs.release",
        /// Contracts, ceilings and what is paused.
        BudgetsShow = "budgets.show",
        /// What was spent.
        BudgetsSpend = "budgets.spend",
        /// Resume what is paused or used up.
        BudgetsResume = "budgets.resume",
        /// Transactions of the tenant.
        TransactionsList = "transactions.list",
        /// Undo a call or a run, or preview that.
        UndoCall = "undo.call",
        /// The policies in force.
        PolicyGet = "policy.get",
        /// Whether policies are valid.
        PolicyCheck = "policy.check",
        /// Why something is decided as it is.
        PolicyExplain = "policy.explain",
        /// What other policies would have said to recorded calls.
        PolicyDiff = "policy.diff",
        /// Read the policies again.
        PolicyReload = "policy.reload",
        /// Execute a recorded call again and compare.
        ReplayCall = "replay.call",
        /// Try another version, manifest or policy set on recorded calls.
        ReplayStart = "replay.start",
        /// How far a job has come, and what it came to.
        ReplayProgress = "replay.progress",
        /// End a job.
        ReplayCancel = "replay.cancel",
        /// Add a golden case.
        EvalAdd = "eval.add",
        /// Golden cases, and what became of their suites.
        EvalList = "eval.list",
        /// One golden case.
        EvalShow = "eval.show",
        /// Remove a golden case.
        EvalRemove = "eval.remove",
        /// Run a suite, or the adversarial pack.
        EvalRun = "eval.run",
        /// What could not be delivered.
        DeadlettersList = "deadletters.list",
        /// One dead letter with its message.
        DeadlettersGet = "deadletters.get",
        /// Try a dead letter again from the start.
        DeadlettersRetry = "deadletters.retry",
        /// Throw a dead letter away.
        DeadlettersDiscard = "deadletters.discard",
        /// What rests because it fails.
        BreakersList = "breakers.list",
        /// Hold a circuit open.
        BreakersOpen = "breakers.open",
        /// Close a circuit.
        BreakersClose = "breakers.close",
        /// Stop something.
        KillSet = "kill.set",
        /// Let it run again.
        KillClear = "kill.clear",
        /// What is stopped.
        KillList = "kill.list",
        /// Verify the audit.
        AuditVerify = "audit.verify",
        /// What is on record.
        AuditEntries = "audit.entries",
        /// Prove that something is on record, to whoever does not trust the daemon.
        AuditProve = "audit.prove",
        /// What runs did, one record each.
        AuditExport = "audit.export",
        /// The key that verifies checkpoints.
        AuditKey = "audit.key",
        /// Signed statements of how far the audit has come.
        AuditCheckpoints = "audit.checkpoints",
        /// Make one now.
        AuditCheckpoint = "audit.checkpoint",
        /// Read the payloads of a call in full, on record.
        AuditRead = "audit.read",
        /// How long what is kept, and what is held.
        RetentionShow = "retention.show",
        /// Let go of what is over now, or say what would go.
        RetentionRun = "retention.run",
        /// Hold a call or a run.
        RetentionHold = "retention.hold",
        /// Release what is held.
        RetentionRelease = "retention.release",
        /// Forget a tenant, or a person of it.
        PrivacyForget = "privacy.forget",
        /// Calls that ended, added up.
        StatsCalls = "stats.calls",
        /// Runs by agent and time.
        StatsRuns = "stats.runs",
        /// Who changed a file.
        StatsFile = "stats.file",
        /// Whether the daemon is well.
        HealthGet = "health.get",
        /// Stop gracefully.
        DaemonDrain = "daemon.drain",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_finds_its_own_method_and_no_plane_finds_what_is_the_others_alone() {
        for method in AgentMethod::ALL {
            assert_eq!(AgentMethod::named(method.name()), Some(*method));
        }
        for method in AdminMethod::ALL {
            assert_eq!(AdminMethod::named(method.name()), Some(*method));
        }
        for powerful in [
            "approvals.approve",
            "approvals.reject",
            "standing.make",
            "autonomy.set",
            "tools.install",
            "undo.call",
            "policy.reload",
            "daemon.drain",
            "tokens.mint",
            "tokens.revoke",
            "kill.set",
            "kill.clear",
            "runs.release",
            "budgets.resume",
            "audit.read",
            "retention.run",
            "retention.release",
            "privacy.forget",
        ] {
            assert!(AgentMethod::named(powerful).is_none(), "{powerful}");
            assert!(AdminMethod::named(powerful).is_some(), "{powerful}");
        }
        assert!(AdminMethod::named("calls.execute").is_none(), "an operator is not an agent");
    }
}
