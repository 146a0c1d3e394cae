//! `toolkeep audit`: is the record whole?

use serde_json::json;
use toolkeep_core::refusal::Code;

use super::audit_read;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::text_at;
use crate::daemon::method::AdminMethod;

/// Check the audit chain
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Recompute every link; tells the head, to be kept elsewhere: a cut end shows only against it
    Verify,
    /// Read the payloads of a call in full; who reads and why is on the record first
    Read(audit_read::ReadArgs),
    /// Make an age identity for operators, and say the recipient for `[privacy] recipients`
    Keygen(audit_read::KeygenArgs),
}

impl AuditCommand {
    /// Check.
    ///
    /// # Errors
    /// A link is broken, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Verify => {}
            Self::Read(args) => return args.run(context),
            Self::Keygen(args) => return args.run(context),
        }
        let mut client = context.admin()?;
        let answer = client.ask(&context.ui, AdminMethod::AuditVerify, json!({})).map_err(|failure| match failure {
            Failure::Refused(refusal) if refusal.code == Code::Halted => {
                context.ui.note(&format!("hint: {}", refusal.hint));
                Failure::Findings(refusal.message)
            }
            other => other,
        })?;
        context.ui.value(&answer, || {
            format!(
                "{} entries verified\nhead {} {}",
                text_at(&answer, "/verified"),
                text_at(&answer, "/head/seq"),
                text_at(&answer, "/head/digest")
            )
        })?;
        Ok(Exit::Ok)
    }
}
