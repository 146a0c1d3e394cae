//! `toolkeep forget`: payloads and rows of a tenant, or of one person, go for good; digests in the audit chain stay.

use serde_json::{Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::text_at;
use crate::daemon::method::AdminMethod;

/// Forget a tenant, or one person of it: calls, payloads and the keys that open them; the audit keeps digests
#[derive(Debug, clap::Args)]
pub struct ForgetArgs {
    /// The tenant
    #[arg(long, value_name = "NAME")]
    tenant: String,
    /// Only this person
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// The tenant's name, with `/NAME` of the person; asked for at a terminal
    #[arg(long, value_name = "TEXT")]
    confirm: Option<String>,
}

impl ForgetArgs {
    /// Do it.
    ///
    /// # Errors
    /// The confirmation is not what is forgotten, or there is no daemon.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        let wanted = self.user.as_ref().map_or_else(|| self.tenant.clone(), |user| format!("{}/{user}", self.tenant));
        let confirm = match self.confirm {
            Some(confirm) => confirm,
            None => ui
                .ask(&format!("This cannot be undone. Type `{wanted}` to forget it: "))?
                .ok_or_else(|| Failure::usage("nobody can be asked", format!("add `--confirm {wanted}`")))?,
        };
        let asked = json!({"tenant": self.tenant, "user": self.user, "reason": self.reason, "confirm": confirm.trim()});
        let answer = context.admin()?.ask(ui, AdminMethod::PrivacyForget, asked)?;
        ui.value(&answer, || {
            let (calls, keys) = (text_at(&answer, "/forgotten/calls"), text_at(&answer, "/forgotten/keys"));
            format!("{calls} calls forgotten, {keys} data keys destroyed")
        })?;
        if answer.get("done") == Some(&Value::Bool(false)) {
            ui.note(&format!(
                "{} calls are still open, halted or held; they are forgotten when they are over",
                text_at(&answer, "/left")
            ));
        }
        Ok(Exit::Ok)
    }
}
