//! Versions of tools, golden cases and what became of suites, on record.
//!
//! A version is written once, when a catalog with it comes into force, and stays: recordings of long ago name it. A case
//! holds everything that it needs, so that it outlives the call that it was made from. All of it is the operators' and
//! small; each list is bounded.

use std::sync::Arc;

use rusqlite::{Row, params};
use serde_json::Value;
use toolkeep_core::audit::{AuditKind, canonical_body};
use toolkeep_core::digest::Digest;
use toolkeep_core::id::{CallId, TenantName, ToolName, UserName};

use super::Ledger;
use super::batch::{Batch, Step};
use super::chain::Who;
use super::column::{Reading, digest_bytes, id_bytes, integer};
use super::failure::LedgerError;
use super::oversight::OversightWork;
use super::queue::Work;
use super::rows::Durability;
use super::standing::Overseen;
use super::statement::{row, rows};

/// Most golden cases of one tenant: running all of them takes minutes, and each may be a megabyte.
pub const CASES_MAX: u64 = 2_000;
/// Tenants whose cases are run when a version comes into force: each takes its time beside live calls.
const CASE_TENANTS_MAX: i64 = 100;
/// Runs of one suite that are kept: enough to see a drift.
const SUITE_RUNS_KEPT: i64 = 100;
/// Most versions of one tool that are listed.
const VERSIONS_LISTED: i64 = 200;

/// A manifest as it was in force, and the component that it meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VersionRow {
    /// SHA-256 of the manifest's text.
    pub manifest: Digest,
    /// SHA-256 of the component.
    pub component: Digest,
    /// The manifest's name.
    pub name: ToolName,
    /// The version that the manifest says.
    pub version: Arc<str>,
    /// Its tools: what agents call them, and what the component does. JSON.
    pub tools: Arc<str>,
    /// The text of the manifest.
    pub body: Arc<str>,
    /// Where the component lay.
    pub path: Arc<str>,
    /// Bytes of the component.
    pub size: u64,
    /// When it came into force.
    pub first_ms: u64,
}

/// A golden case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseRow {
    /// Whose.
    pub tenant: TenantName,
    /// The suite that it belongs to.
    pub suite: ToolName,
    /// Its name there.
    pub name: ToolName,
    /// The tool that it is about.
    pub tool: ToolName,
    /// What it is, JSON.
    pub body: Arc<str>,
    /// Who added it.
    pub made_by: UserName,
    /// When.
    pub made_ms: u64,
    /// The call that it was made from.
    pub from_call: Option<CallId>,
    /// The person whose call that was.
    pub from_user: Option<UserName>,
}

/// A golden case in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseLine {
    /// The suite that it belongs to.
    pub suite: ToolName,
    /// Its name there.
    pub name: ToolName,
    /// The tool that it is about.
    pub tool: ToolName,
    /// Who added it.
    pub made_by: UserName,
    /// When.
    pub made_ms: u64,
    /// Bytes of it.
    pub bytes: u64,
}

/// What a golden case asks of every call of its tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseBounds {
    /// The name of the case.
    pub name: ToolName,
    /// What has to come of it, JSON.
    pub expect: Arc<str>,
    /// Whether parts of it are hidden from eyes.
    pub hidden: bool,
}

/// What became of a change among the golden cases.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseChange {
    /// It is done, and on record.
    Done,
    /// There are [`CASES_MAX`] already.
    Full,
    /// There is no such case to remove, or the call that one is to be made from is gone.
    Missing,
}

/// What became of a suite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteRun {
    /// Whose.
    pub tenant: TenantName,
    /// Which.
    pub suite: ToolName,
    /// Cases that went as expected.
    pub passed: u64,
    /// Cases that did not.
    pub failed: u64,
    /// The names of these, JSON; of a version before this one also why.
    pub body: Arc<str>,
    /// When.
    pub at_ms: u64,
}

/// One write of this kind.
#[derive(Debug)]
pub(super) enum TrialWork {
    Version(Box<VersionRow>),
    /// With its audit entry, and whether the call has to be on record that it was made from.
    Case {
        case: Box<CaseRow>,
        facts: String,
        of_call: bool,
    },
    Remove {
        tenant: TenantName,
        suite: ToolName,
        name: ToolName,
        facts: String,
    },
    Ran(Box<SuiteRun>),
}

fn version_of(row: &Row<'_>) -> Result<VersionRow, LedgerError> {
    let reading = Reading::new(row, "versions");
    Ok(VersionRow {
        manifest: reading.digest("manifest")?,
        component: reading.digest("component")?,
        name: reading.name("name")?,
        version: Arc::from(reading.text("version")?),
        tools: Arc::from(reading.text("tools")?),
        body: Arc::from(reading.text("body")?),
        path: Arc::from(reading.text("path")?),
        size: reading.number("size")?,
        first_ms: reading.number("first_ms")?,
    })
}

fn line_of(row: &Row<'_>) -> Result<CaseLine, LedgerError> {
    let reading = Reading::new(row, "golden_cases");
    Ok(CaseLine {
        suite: reading.name("suite")?,
        name: reading.name("name")?,
        tool: reading.name("tool")?,
        made_by: reading.name("made_by")?,
        made_ms: reading.number("made_ms")?,
        bytes: reading.number("bytes")?,
    })
}

fn bounds_of(row: &Row<'_>) -> Result<CaseBounds, LedgerError> {
    let reading = Reading::new(row, "golden_cases");
    Ok(CaseBounds {
        name: reading.name("name")?,
        expect: Arc::from(reading.text("expect")?),
        hidden: reading.number("hidden")? == 1,
    })
}

fn ran_of(row: &Row<'_>) -> Result<SuiteRun, LedgerError> {
    let reading = Reading::new(row, "suite_runs");
    Ok(SuiteRun {
        tenant: reading.name("tenant")?,
        suite: reading.name("suite")?,
        passed: reading.number("passed")?,
        failed: reading.number("failed")?,
        body: Arc::from(reading.text("body")?),
        at_ms: reading.number("at_ms")?,
    })
}

impl Batch<'_> {
    pub(super) fn try_out(&mut self, work: &TrialWork) -> Step<Overseen, LedgerError> {
        match work {
            TrialWork::Version(version) => {
                self.execute(
                    "INSERT INTO versions (manifest, component, name, version, tools, body, path, size, first_ms) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (manifest, component) DO UPDATE SET \
                     path = excluded.path, tools = excluded.tools",
                    params![
                        digest_bytes(&version.manifest),
                        digest_bytes(&version.component),
                        version.name.as_str(),
                        version.version,
                        version.tools,
                        version.body,
                        version.path,
                        integer(version.size),
                        integer(version.first_ms)
                    ],
                )?;
            }
            TrialWork::Case { case, facts, of_call } => {
                return self.add_case(case, facts, *of_call).map(Overseen::Case);
            }
            TrialWork::Remove { tenant, suite, name, facts } => {
                let gone = self.execute(
                    "DELETE FROM golden_cases WHERE tenant = ?1 AND suite = ?2 AND name = ?3",
                    params![tenant.as_str(), suite.as_str(), name.as_str()],
                )?;
                if gone == 0 {
                    return Ok(Overseen::Case(CaseChange::Missing));
                }
                self.append(AuditKind::Evaluation, facts.clone());
                return Ok(Overseen::Case(CaseChange::Done));
            }
            TrialWork::Ran(run) => {
                let of = params![
                    run.tenant.as_str(),
                    run.suite.as_str(),
                    integer(run.passed),
                    integer(run.failed),
                    run.body,
                    integer(run.at_ms)
                ];
                self.execute(
                    "INSERT INTO suite_runs (tenant, suite, passed, failed, body, at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                    of,
                )?;
                self.execute(
                    "DELETE FROM suite_runs WHERE tenant = ?1 AND suite = ?2 AND seq NOT IN (SELECT seq FROM suite_runs \
                     WHERE tenant = ?1 AND suite = ?2 ORDER BY seq DESC LIMIT ?3)",
                    params![run.tenant.as_str(), run.suite.as_str(), SUITE_RUNS_KEPT],
                )?;
            }
        }
        Ok(Overseen::Done)
    }

    /// Counted and looked for where it is written: nobody comes in between.
    fn add_case(&mut self, case: &CaseRow, facts: &str, of_call: bool) -> Step<CaseChange, LedgerError> {
        let (tenant, suite, name) = (case.tenant.as_str(), case.suite.as_str(), case.name.as_str());
        let others = "SELECT count(*) AS cases FROM golden_cases WHERE tenant = ?1 AND NOT (suite = ?2 AND name = ?3)";
        let others =
            self.row(others, params![tenant, suite, name], |row| Reading::new(row, "golden_cases").number("cases"))?;
        if others.unwrap_or(0) >= CASES_MAX {
            return Ok(CaseChange::Full);
        }
        let call = case.from_call.as_ref().map(|call| id_bytes(call.uuid()));
        if of_call && self.row("SELECT 1 FROM calls WHERE id = ?1", params![call], |_row| Ok(()))?.is_none() {
            return Ok(CaseChange::Missing);
        }
        let values = params![
            tenant,
            suite,
            name,
            case.tool.as_str(),
            case.body,
            case.made_by.as_str(),
            integer(case.made_ms),
            call,
            case.from_user.as_ref().map(UserName::as_str)
        ];
        self.execute(
            "INSERT INTO golden_cases (tenant, suite, name, tool, body, made_by, made_ms, from_call, from_user) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT (tenant, suite, name) DO UPDATE SET \
             tool = excluded.tool, body = excluded.body, made_by = excluded.made_by, made_ms = excluded.made_ms, \
             from_call = excluded.from_call, from_user = excluded.from_user",
            values,
        )?;
        self.append(AuditKind::Evaluation, facts.to_owned());
        Ok(CaseChange::Done)
    }
}

impl Ledger {
    /// A version came into force. Written with the next batch; one that is known stays.
    ///
    /// # Errors
    /// The queue is full, or the ledger failed.
    pub(crate) async fn keep_version(&self, version: VersionRow) -> Result<(), LedgerError> {
        let work = OversightWork::Trial(TrialWork::Version(Box::new(version)));
        self.put(Work::Oversee(work), Durability::Lazy).await
    }

    /// The versions that are known, by manifest and component.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub(crate) async fn version_names(&self) -> Result<Vec<(Digest, Digest)>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT manifest, component FROM versions";
        self.read(move |conn| {
            rows(conn, sql, params![], |row| {
                let reading = Reading::new(row, "versions");
                Ok((reading.digest("manifest")?, reading.digest("component")?))
            })
        })
        .await
    }

    /// One version.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn version(&self, manifest: Digest, component: Digest) -> Result<Option<VersionRow>, LedgerError> {
        self.caught_up().await?;
        let sql = "SELECT * FROM versions WHERE manifest = ?1 AND component = ?2";
        self.read(move |conn| row(conn, sql, params![digest_bytes(&manifest), digest_bytes(&component)], version_of))
            .await
    }

    /// The versions of a manifest of this name, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn versions_of(&self, name: &ToolName) -> Result<Vec<VersionRow>, LedgerError> {
        self.caught_up().await?;
        let (name, sql) = (name.clone(), "SELECT * FROM versions WHERE name = ?1 ORDER BY first_ms DESC LIMIT ?2");
        self.read(move |conn| rows(conn, sql, params![name.as_str(), VERSIONS_LISTED], version_of)).await
    }

    /// Add a golden case, or put it in the place of the one of the same name, with an entry of who did. Durable when it
    /// returns. `of_call`: only while the call is on record that it was made from.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn add_case(
        &self,
        case: CaseRow,
        (who, facts): (Who<'_>, Value),
        of_call: bool,
    ) -> Result<CaseChange, LedgerError> {
        let facts = canonical_body(&who.signed(facts));
        self.change_case(TrialWork::Case { case: Box::new(case), facts, of_call }).await
    }

    /// Remove a golden case, with an entry of who did. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn remove_case(
        &self,
        tenant: &TenantName,
        (suite, name): (&ToolName, &ToolName),
        (who, facts): (Who<'_>, Value),
    ) -> Result<CaseChange, LedgerError> {
        let (tenant, suite, name) = (tenant.clone(), suite.clone(), name.clone());
        let facts = canonical_body(&who.signed(facts));
        self.change_case(TrialWork::Remove { tenant, suite, name, facts }).await
    }

    async fn change_case(&self, work: TrialWork) -> Result<CaseChange, LedgerError> {
        match self.oversee(OversightWork::Trial(work)).await? {
            Overseen::Case(change) => Ok(change),
            _ => Err(LedgerError::Closed),
        }
    }

    /// The golden cases of a tenant, of one suite or all, in the order of their names; at most [`CASES_MAX`].
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cases(&self, tenant: &TenantName, suite: Option<&ToolName>) -> Result<Vec<CaseLine>, LedgerError> {
        self.caught_up().await?;
        let (tenant, suite) = (tenant.clone(), suite.cloned());
        let sql = "SELECT suite, name, tool, made_by, made_ms, length(CAST(body AS BLOB)) AS bytes FROM golden_cases \
                   WHERE tenant = ?1 AND (?2 IS NULL OR suite = ?2) ORDER BY suite, name LIMIT ?3";
        self.read(move |conn| {
            let suite = suite.as_ref().map(ToolName::as_str);
            rows(conn, sql, params![tenant.as_str(), suite, integer(CASES_MAX)], line_of)
        })
        .await
    }

    /// The tenants that have cases in a suite, each with one who added some; at most 100.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn tenants_with_cases(&self, suite: &ToolName) -> Result<Vec<(TenantName, UserName)>, LedgerError> {
        self.caught_up().await?;
        let suite = suite.clone();
        let sql = "SELECT tenant, min(made_by) AS made_by FROM golden_cases WHERE suite = ?1 GROUP BY tenant \
                   ORDER BY tenant LIMIT ?2";
        self.read(move |conn| {
            rows(conn, sql, params![suite.as_str(), CASE_TENANTS_MAX], |row| {
                let reading = Reading::new(row, "golden_cases");
                Ok((reading.name("tenant")?, reading.name("made_by")?))
            })
        })
        .await
    }

    /// What one golden case is, JSON.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn case(&self, tenant: &TenantName, suite: &str, name: &str) -> Result<Option<Arc<str>>, LedgerError> {
        self.caught_up().await?;
        let (tenant, suite, name) = (tenant.clone(), suite.to_owned(), name.to_owned());
        let sql = "SELECT body FROM golden_cases WHERE tenant = ?1 AND suite = ?2 AND name = ?3";
        self.read(move |conn| {
            row(conn, sql, params![tenant.as_str(), suite, name], |row| {
                Ok(Arc::from(Reading::new(row, "golden_cases").text("body")?))
            })
        })
        .await
    }

    /// What the golden cases of a tenant ask of one tool; of at most `limit` of them, without their worlds.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn cases_about(
        &self,
        tenant: &TenantName,
        tool: &ToolName,
        limit: u64,
    ) -> Result<Vec<CaseBounds>, LedgerError> {
        self.caught_up().await?;
        let (tenant, tool) = (tenant.clone(), tool.clone());
        let sql = "SELECT name, json_extract(body, '$.expect') AS expect, \
                   coalesce(json_extract(body, '$.hidden'), 0) AS hidden \
                   FROM golden_cases WHERE tenant = ?1 AND tool = ?2 ORDER BY seq LIMIT ?3";
        self.read(move |conn| rows(conn, sql, params![tenant.as_str(), tool.as_str(), integer(limit)], bounds_of)).await
    }

    /// Keep what became of a suite. Durable when it returns.
    ///
    /// # Errors
    /// The ledger failed.
    pub async fn ran_suite(&self, run: SuiteRun) -> Result<(), LedgerError> {
        self.try_out(TrialWork::Ran(Box::new(run))).await
    }

    /// What became of a suite the last times, newest first.
    ///
    /// # Errors
    /// The ledger cannot be read.
    pub async fn suite_runs(
        &self,
        tenant: &TenantName,
        suite: &ToolName,
        limit: u32,
    ) -> Result<Vec<SuiteRun>, LedgerError> {
        self.caught_up().await?;
        let (tenant, suite) = (tenant.clone(), suite.clone());
        let sql = "SELECT * FROM suite_runs WHERE tenant = ?1 AND suite = ?2 ORDER BY seq DESC LIMIT ?3";
        self.read(move |conn| rows(conn, sql, params![tenant.as_str(), suite.as_str(), i64::from(limit)], ran_of)).await
    }

    async fn try_out(&self, work: TrialWork) -> Result<(), LedgerError> {
        self.put(Work::Oversee(OversightWork::Trial(work)), Durability::Durable).await
    }
}
