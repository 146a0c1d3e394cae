//! Receipts: signed statements of what was committed.
//!
//! A receipt is made together with the intent and released when the outcome is known, so that recovery after a crash
//! releases the very same bytes. It is signed with the daemon's ed25519 key (RFC 8032) over canonical JSON (RFC 8785)
//! under a domain line. A claim without a receipt that verifies is just a claim.

use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::digest::Digest;
use crate::effect::BodyState;
use crate::hex;
use crate::id::{CallId, PlanId, ReceiptId, RunId, ToolName};
use crate::json::canonical_text;
use crate::plan::Totals;
use crate::principal::Principal;

const DOMAIN: &[u8] = b"toolkeep.receipt.v1\n";

/// What is stated.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Statement {
    /// Always 1.
    pub format: u32,
    /// This receipt.
    pub receipt: ReceiptId,
    /// The call whose effects were committed.
    pub call: CallId,
    /// Its run.
    pub run: Option<RunId>,
    /// Who acted.
    pub principal: Principal,
    /// With which tool.
    pub tool: ToolName,
    /// SHA-256 of the component.
    pub component: Digest,
    /// The stored plan.
    pub plan: PlanId,
    /// What the plan is.
    pub plan_digest: Digest,
    /// What was done, counted.
    pub totals: Totals,
    /// When the intent was made: milliseconds since the Unix epoch.
    pub committed_at_ms: u64,
    /// What other systems answered to the requests of the plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub responses: Vec<Response>,
}

/// The answer to one request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Which effect of the plan, counted from 0.
    pub ordinal: u32,
    /// The status code.
    pub status: u16,
    /// The body.
    pub body: BodyState,
}

/// A statement with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receipt {
    /// What is stated.
    pub statement: Statement,
    /// SHA-256 of the public key, to find it.
    pub key: Digest,
    /// 128 hexadecimal digits.
    pub signature: String,
}

/// Why a receipt does not verify.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadReceipt {
    /// Signed by another key.
    #[error("the receipt is signed by key {0}, not by this daemon")]
    OtherKey(Digest),
    /// The signature is not one.
    #[error("the signature is not 128 hexadecimal digits")]
    Malformed,
    /// The statement was changed, or the signature forged.
    #[error("the signature does not match the statement")]
    Mismatch,
    /// The statement cannot be made canonical.
    #[error("the statement cannot be written as canonical JSON: {0}")]
    Canonical(String),
}

fn signed_bytes(statement: &Statement) -> Result<Vec<u8>, BadReceipt> {
    let mut bytes = DOMAIN.to_vec();
    let canonical = canonical_text(statement).map_err(|e| BadReceipt::Canonical(e.to_string()))?;
    bytes.extend_from_slice(canonical.as_bytes());
    Ok(bytes)
}

/// The digest that receipts name a key by.
#[must_use]
pub fn key_digest(key: &VerifyingKey) -> Digest {
    Digest::of(key.as_bytes())
}

impl Receipt {
    /// Sign a statement.
    ///
    /// # Errors
    /// The statement cannot be made canonical.
    pub fn sign(statement: Statement, key: &SigningKey) -> Result<Self, BadReceipt> {
        let signature = key.sign(&signed_bytes(&statement)?);
        Ok(Self { statement, key: key_digest(&key.verifying_key()), signature: hex::text(&signature.to_bytes()) })
    }

    /// Verify against the key that should have signed it.
    ///
    /// # Errors
    /// Another key, a malformed signature, or a statement that the signature does not cover.
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), BadReceipt> {
        if self.key != key_digest(key) {
            return Err(BadReceipt::OtherKey(self.key));
        }
        let signature = Signature::from_bytes(&parse_signature(&self.signature).ok_or(BadReceipt::Malformed)?);
        key.verify_strict(&signed_bytes(&self.statement)?, &signature).map_err(|_| BadReceipt::Mismatch)
    }
}

fn parse_signature(text: &str) -> Option<[u8; 64]> {
    if text.len() != 128 || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return None;
    }
    let mut bytes = [0_u8; 64];
    for (at, slot) in bytes.iter_mut().enumerate() {
        *slot = u8::from_str_radix(text.get(at * 2..at * 2 + 2)?, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn receipt() -> (Receipt, SigningKey) {
        let key = SigningKey::from_bytes(&[7; 32]);
        let name = |text: &str| text.to_owned();
        let statement: Statement = serde_json::from_value(serde_json::json!({
            "format": 1, "receipt": ReceiptId::new(Uuid::from_u128(1)), "call": CallId::new(Uuid::from_u128(2)), "run": null,
            "principal": {"tenant": name("t"), "user": "u", "agent": "a"}, "tool": "x", "component": Digest::of(b"c"),
            "plan": PlanId::new(Uuid::from_u128(3)), "plan_digest": Digest::of(b"p"), "totals": Totals::default(), "committed_at_ms": 9,
        }))
        .expect("statement");
        (Receipt::sign(statement, &key).expect("signed"), key)
    }

    #[test]
    fn r10_a_receipt_verifies_and_any_change_is_detected() {
        let (receipt, key) = receipt();
        assert_eq!(receipt.verify(&key.verifying_key()), Ok(()));
        let mut other = receipt.clone();
        other.statement.committed_at_ms = 10;
        assert_eq!(other.verify(&key.verifying_key()), Err(BadReceipt::Mismatch));
        let mut forged = receipt.clone();
        forged.signature.replace_range(0..2, if receipt.signature.starts_with("00") { "01" } else { "00" });
        assert_eq!(forged.verify(&key.verifying_key()), Err(BadReceipt::Mismatch));
        let stranger = SigningKey::from_bytes(&[8; 32]).verifying_key();
        assert!(matches!(receipt.verify(&stranger), Err(BadReceipt::OtherKey(_))));
        forged.signature.push('0');
        assert_eq!(forged.verify(&key.verifying_key()), Err(BadReceipt::Malformed));
    }
}
