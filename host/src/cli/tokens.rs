//! `toolkeep tokens`: who may connect without being known by a uid.

use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;
use super::plans::show_page;
use super::ui::{Column, text_at, time_at};
use crate::daemon::method::AdminMethod;

/// Mint tokens, see which stand, take them back
#[derive(Debug, clap::Subcommand)]
pub enum TokensCommand {
    /// Mint a token and print it, once
    Mint(MintArgs),
    /// List tokens that stand, newest first
    List {
        /// Those that ended too
        #[arg(long)]
        all: bool,
        /// Sessions that were delegated, instead of tokens
        #[arg(long)]
        sessions: bool,
        /// Continue after the page that told this cursor
        #[arg(long, value_name = "N")]
        cursor: Option<u64>,
    },
    /// Take a token or a session back, with everything that was delegated from it
    Revoke {
        /// Its id
        id: String,
    },
}

/// What the token says.
#[derive(Debug, clap::Args)]
pub struct MintArgs {
    /// The person
    #[arg(long, value_name = "NAME")]
    user: String,
    /// The agent; without it the token is for the admin plane, and for yourself
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,
    /// A group of your own, for the admin plane; may be repeated
    #[arg(long = "group", value_name = "NAME")]
    groups: Vec<String>,
    #[command(flatten)]
    part: PartArgs,
    /// What it is for
    #[arg(long, value_name = "TEXT", default_value = "")]
    label: String,
    /// Write the token to a new file (mode 0600) instead of printing it
    #[arg(long, value_name = "FILE")]
    to: Option<PathBuf>,
}

/// What is held of what the principal may do.
#[derive(Debug, clap::Args)]
pub struct PartArgs {
    /// The only tools; may be repeated
    #[arg(long = "tool", value_name = "NAME")]
    tools: Vec<String>,
    /// The only workspaces, `NAME` to read or `NAME=write`; may be repeated
    #[arg(long = "workspace", value_name = "NAME[=ACCESS]")]
    workspaces: Vec<String>,
    /// The highest tier of a tool
    #[arg(long, value_name = "0-3")]
    max_tier: Option<u8>,
    /// How many further delegations may follow
    #[arg(long, value_name = "N")]
    delegations: Option<u8>,
    /// How long it stands: seconds, or a number with m, h or d
    #[arg(long, value_name = "TIME")]
    expires: Option<String>,
}

impl PartArgs {
    /// As the protocol says it.
    ///
    /// # Errors
    /// An argument makes no sense.
    pub fn members(&self) -> Result<Map<String, Value>, Failure> {
        let mut members = Map::new();
        if !self.tools.is_empty() {
            members.insert("tools".to_owned(), json!(self.tools));
        }
        if !self.workspaces.is_empty() {
            let access = |text: &String| match text.split_once('=') {
                None => (text.clone(), json!("read")),
                Some((name, access)) => (name.to_owned(), json!(access)),
            };
            members.insert("workspaces".to_owned(), self.workspaces.iter().map(access).collect());
        }
        members.extend(self.max_tier.map(|tier| ("max_tier".to_owned(), json!(tier))));
        members.extend(self.delegations.map(|depth| ("delegations".to_owned(), json!(depth))));
        if let Some(text) = &self.expires {
            members.insert("expires_in_s".to_owned(), json!(seconds(text)?));
        }
        Ok(members)
    }
}

/// `90`, `15m`, `12h`, `30d`.
fn seconds(text: &str) -> Result<u64, Failure> {
    let wrong = || Failure::usage(format!("`{text}` is not a time"), "write seconds, or a number with `m`, `h` or `d`");
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3_600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        _ => (Some(text), 1),
    };
    let number: u64 = number.and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    number.checked_mul(unit).ok_or_else(wrong)
}

const COLUMNS: [Column; 7] = [
    Column::new("ID", |e| text_at(e, "/id")),
    Column::new("PLANE", |e| text_at(e, "/plane")),
    Column::new("USER", |e| text_at(e, "/user")),
    Column::new("AGENT", |e| text_at(e, "/agent")),
    Column::new("EXPIRES", |e| time_at(e, "/expires_at_ms")),
    Column::new("REVOKED", |e| time_at(e, "/revoked_at_ms")),
    Column::new("LABEL", |e| text_at(e, "/label")),
];

impl TokensCommand {
    /// Do it.
    ///
    /// # Errors
    /// The daemon refuses, or there is none.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        let ui = &context.ui;
        match self {
            Self::Mint(args) => {
                let plane = if args.agent.is_some() { "agent" } else { "admin" };
                let mut params = args.part.members()?;
                params.extend([
                    ("plane".to_owned(), json!(plane)),
                    ("user".to_owned(), json!(args.user)),
                    ("agent".to_owned(), json!(args.agent)),
                    ("groups".to_owned(), json!(args.groups)),
                    ("label".to_owned(), json!(args.label)),
                ]);
                let minted = context.admin()?.ask(ui, AdminMethod::TokensMint, Value::Object(params))?;
                tell(context, minted, "id", args.to.as_ref())?;
            }
            Self::List { all, sessions, cursor } => {
                let params = json!({"all": all, "sessions": sessions, "cursor": cursor});
                let page = context.admin()?.ask(ui, AdminMethod::TokensList, params)?;
                show_page(ui, &page, "tokens", &COLUMNS)?;
            }
            Self::Revoke { id } => {
                let answer = context.admin()?.ask(ui, AdminMethod::TokensRevoke, json!({"token": id}))?;
                ui.value(&answer, || format!("{id}: revoked"))?;
            }
        }
        Ok(Exit::Ok)
    }
}

/// Print what was minted, or put its secret into a file that nobody else can read and print the rest.
///
/// # Errors
/// The file exists or cannot be written: the credential stands and nobody has it.
pub(super) fn tell(context: &Context<'_>, mut minted: Value, id: &str, to: Option<&PathBuf>) -> Result<(), Failure> {
    let ui = &context.ui;
    let (id, until) = (text_at(&minted, &format!("/{id}")), time_at(&minted, "/expires_at_ms"));
    let Some(path) = to else {
        ui.note(&format!("{id} stands until {until}; the token is shown this once"));
        return ui.value(&minted, || text_at(&minted, "/token"));
    };
    let token = minted.as_object_mut().and_then(|members| members.remove("token")).unwrap_or_default();
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(path);
    let written = file.and_then(|mut file| file.write_all(token.as_str().unwrap_or_default().as_bytes()));
    written.map_err(Failure::file("write", path)).inspect_err(|_| {
        ui.note(&format!("{id} stands although nobody has its token; revoke it"));
    })?;
    ui.value(&minted, || format!("{id} stands until {until}; its token is in {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_have_a_unit() {
        let told = ["90", "15m", "12h", "30d"].map(|text| seconds(text).expect("a time"));
        assert_eq!(told, [90, 900, 43_200, 2_592_000]);
        for wrong in ["", "m", "1w", "-1", "1.5h", "é", "99999999999999999999d", "18446744073709551615d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }
}
