//! Rows that are what was written: each carries a SHA-256 over all of its other columns.
//!
//! A plan's canonical text has digests of its own; what stands around it in its row, and the consent to it, has this one. A
//! row in which a bit was flipped is refused wherever it is read, and nothing is committed from it (G11). It finds damage and
//! careless hands; whoever can write the database and knows this file can make the digest anew, which the audit
//! chain is for.

use rusqlite::types::ValueRef;
use rusqlite::{Row, params};
use toolkeep_core::digest::{Digest, Hasher};

use super::batch::Batch;
use super::column::{Reading, digest_bytes};
use super::failure::LedgerError;
use super::statement::Failed;

const DOMAIN: &str = "toolkeep.row.v1";
/// The column that carries the digest.
const COLUMN: &str = "row_digest";
/// A column that came when rows had digests already: where nothing stands in it, the digest is that of before.
const LATER: &str = "via";

/// The digest of a row of `table`: names, types and values of its columns in their order.
fn digest_of(row: &Row<'_>, table: &str) -> Result<Digest, LedgerError> {
    let damaged = |_| LedgerError::Damaged(format!("a row of `{table}` cannot be read").into());
    let mut hasher = Hasher::under(DOMAIN);
    hasher.part(table.as_bytes());
    let statement = row.as_ref();
    for at in 0..statement.column_count() {
        let name = statement.column_name(at).map_err(damaged)?;
        let empty = || row.get_ref(at).is_ok_and(|value| value == ValueRef::Null);
        if name == COLUMN || (name == LATER && empty()) {
            continue;
        }
        hasher.part(name.as_bytes());
        let mut kind_and_value = |kind: u8, value: &[u8]| {
            hasher.part(&[kind]);
            hasher.part(value);
        };
        match row.get_ref(at).map_err(damaged)? {
            ValueRef::Null => kind_and_value(b'n', &[]),
            ValueRef::Integer(number) => kind_and_value(b'i', &number.to_be_bytes()),
            ValueRef::Real(number) => kind_and_value(b'r', &number.to_be_bytes()),
            ValueRef::Text(text) => kind_and_value(b't', text),
            ValueRef::Blob(bytes) => kind_and_value(b'b', bytes),
        }
    }
    Ok(hasher.finish())
}

/// Check that a row of `table`, read with all of its columns, is what was written.
///
/// # Errors
/// It is not.
pub(super) fn intact(row: &Row<'_>, table: &'static str) -> Result<(), LedgerError> {
    let kept = Reading::new(row, table).digest_or_null(COLUMN)?;
    if kept == Some(digest_of(row, table)?) {
        return Ok(());
    }
    Err(LedgerError::Damaged(format!("a row of `{table}` is not what was written").into()))
}

/// The rows that carry a digest.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kept<'a> {
    /// A plan that can still be committed, by its place.
    Plan(i64),
    /// An approval, by its id.
    Approval(&'a [u8]),
    /// A person's answer.
    Vote(&'a [u8], &'a str),
    /// A standing approval, by its id.
    Standing(&'a [u8]),
}

impl Batch<'_> {
    /// Write the digest of a row that was just written. Nothing happens if there is no such row.
    pub(super) fn keep_intact(&self, kept: Kept<'_>) -> Result<(), Failed> {
        let of = |table: &'static str| move |row: &Row<'_>| digest_of(row, table);
        match kept {
            Kept::Plan(seq) => {
                let sql = "SELECT p.*, t.canonical, t.witnesses FROM plans p \
                           JOIN plan_texts t ON t.plan_seq = p.seq WHERE p.seq = ?1";
                if let Some(digest) = self.row(sql, params![seq], of("plans"))? {
                    let sql = "UPDATE plans SET row_digest = ?1 WHERE seq = ?2";
                    self.execute(sql, params![digest_bytes(&digest), seq])?;
                }
            }
            Kept::Approval(id) => {
                let sql = "SELECT * FROM approvals WHERE id = ?1";
                if let Some(digest) = self.row(sql, params![id], of("approvals"))? {
                    let sql = "UPDATE approvals SET row_digest = ?1 WHERE id = ?2";
                    self.execute(sql, params![digest_bytes(&digest), id])?;
                }
            }
            Kept::Vote(approval, approver) => {
                let sql = "SELECT * FROM approval_votes WHERE approval = ?1 AND approver = ?2";
                if let Some(digest) = self.row(sql, params![approval, approver], of("approval_votes"))? {
                    let sql = "UPDATE approval_votes SET row_digest = ?1 WHERE approval = ?2 AND approver = ?3";
                    self.execute(sql, params![digest_bytes(&digest), approval, approver])?;
                }
            }
            Kept::Standing(id) => {
                let sql = "SELECT * FROM standing WHERE id = ?1";
                if let Some(digest) = self.row(sql, params![id], of("standing"))? {
                    let sql = "UPDATE standing SET row_digest = ?1 WHERE id = ?2";
                    self.execute(sql, params![digest_bytes(&digest), id])?;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
