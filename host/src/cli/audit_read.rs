//! `toolkeep audit read`: the payloads of a call in full.
//!
//! The daemon writes down who reads and why before it hands anything out, and hands out what is encrypted as it is. It is
//! opened here, with the identity of whoever asks: the private key never leaves this process.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use toolkeep_core::digest::Digest;
use toolkeep_core::display::visible_json;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::ui::text_at;
use crate::daemon::method::AdminMethod;
use crate::vault::{Identities, KeyId, Part, VaultError, keygen};

/// Largest file of identities, in bytes.
const IDENTITY_MAX_BYTES: u64 = 64 * 1024;

/// Read the payloads of a call in full
#[derive(Debug, clap::Args)]
pub struct ReadArgs {
    /// The id of the call
    call: String,
    /// Why, for the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// File with the age identity that payloads are encrypted to; it is read here and sent nowhere
    #[arg(long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

/// Make an age identity
#[derive(Debug, clap::Args)]
pub struct KeygenArgs {
    /// The new file that gets the identity, readable by you alone; keep it where the daemon is not
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
}

impl KeygenArgs {
    /// Do it.
    ///
    /// # Errors
    /// The file exists or cannot be written.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let (identity, recipient) = keygen(context.ambient);
        let failed = |source| Failure::File { what: "write", path: self.to.clone(), source };
        let mut options = std::fs::OpenOptions::new();
        let mut file = options.write(true).create_new(true).mode(0o600).open(&self.to).map_err(failed)?;
        let text = zeroize::Zeroizing::new(format!("# public key: {recipient}\n{}\n", identity.as_str()));
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
        context.ui.value(&json!({"recipient": recipient}), || recipient.clone())?;
        Ok(Exit::Ok)
    }
}

fn identities(path: &Path) -> Result<Identities, Failure> {
    let failed = |source| Failure::File { what: "read", path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let mut text = zeroize::Zeroizing::new(String::new());
    file.take(IDENTITY_MAX_BYTES).read_to_string(&mut text).map_err(failed)?;
    Identities::of(&text).map_err(|error| Failure::usage(format!("`{}`: {error}", path.display()), "name another file"))
}

/// A text as it was before it was sealed.
fn opened(part: Part, text: &str, keys: &Value, identities: Option<&Identities>) -> Result<String, Failure> {
    let Some(id) = KeyId::of(text) else { return Ok(text.to_owned()) };
    let missing = || {
        Failure::usage(
            "the payload is encrypted to operators",
            "add `--identity FILE`, the age identity of one of them",
        )
    };
    let identities = identities.ok_or_else(missing)?;
    let wrapped = keys.get(id.to_string()).and_then(Value::as_str);
    let Some(wrapped) = wrapped.and_then(|text| STANDARD.decode(text).ok()) else {
        return Err(Failure::Findings("its key was destroyed: the tenant was forgotten".to_owned()));
    };
    let key = identities.unwrap(id, &wrapped);
    let text = key.and_then(|key| key.open(part, text));
    text.map_err(|error| match error {
        VaultError::OtherIdentity => Failure::usage(error.to_string(), "name the identity of another recipient"),
        other => Failure::Findings(format!("{}: {other}", part.word())),
    })
}

impl ReadArgs {
    /// Do it.
    ///
    /// # Errors
    /// There is no such call, the identity does not open it, or it is not what was recorded.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        // Before anything is asked: a read that cannot be shown is not put on the record.
        let identities = self.identity.as_deref().map(identities).transpose()?;
        let asked = json!({"call": self.call, "reason": self.reason});
        let mut answer = context.admin()?.ask(ui, AdminMethod::AuditRead, asked)?;
        let mut take = |name: &str| answer.get_mut(name).map(Value::take).unwrap_or_default();
        let (parts, keys) = (take("parts"), take("keys"));
        let mut shown = Map::new();
        for part in Part::SHOWN {
            let Some(text) = parts.get(part.word()).and_then(Value::as_str) else { continue };
            if text.is_empty() {
                shown.insert(part.word().to_owned(), Value::Null);
                continue;
            }
            let text = opened(part, text, &keys, identities.as_ref())?;
            let recorded = answer.get("input_digest").and_then(Value::as_str);
            if part == Part::Input && recorded.is_some_and(|digest| digest != Digest::of(text.as_bytes()).to_hex()) {
                return Err(Failure::Findings("the input is not the one on record".to_owned()));
            }
            shown.insert(part.word().to_owned(), serde_json::from_str(&text).unwrap_or(Value::String(text)));
        }
        if let Value::Object(members) = &mut answer {
            members.retain(|name, _| name != "keys");
            members.insert("parts".to_owned(), Value::Object(shown.clone()));
        }
        ui.value(&answer, || {
            let mut lines =
                vec![format!("call       {}\ntool       {}", text_at(&answer, "/call_id"), text_at(&answer, "/tool"))];
            for (name, value) in &shown {
                let text = if value.is_null() {
                    "not kept any more".to_owned()
                } else {
                    visible_json(&value.to_string()).into_owned()
                };
                lines.push(format!("{name:<10} {text}"));
            }
            lines.join("\n")
        })?;
        Ok(Exit::Ok)
    }
}
