//! `toolkeep audit`: is the record whole, and what does it say?
//!
//! Everything can be asked of the daemon, and of a copy of its ledger where nobody has to be trusted: `--ledger` names the
//! copy, `--key` the key that its checkpoints must be signed with.

mod asked;
mod offline;
mod shown;

use std::path::PathBuf;

use toolkeep_core::audit::AuditKind;

use super::audit_read;
use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;

/// Verify, prove, show and export what is on record
#[derive(Debug, clap::Subcommand)]
pub enum AuditCommand {
    /// Recompute every link, every hash and every checkpoint from the first entry on
    Verify(VerifyArgs),
    /// Prove to somebody else that an entry is on record, or that nothing below a kept checkpoint has changed
    Prove(ProveArgs),
    /// Write what runs did as JSON lines, one record for each run, or the entries themselves
    Export(ExportArgs),
    /// Show entries, the oldest first
    Show(ShowArgs),
    /// Print the key that verifies checkpoints; keep it elsewhere
    Key(KeyArgs),
    /// Show signed checkpoints, the latest first, or make one
    Checkpoints(CheckpointsArgs),
    /// Read the payloads of a call in full; who reads and why is on the record first
    Read(audit_read::ReadArgs),
    /// Make an age identity for operators, and say the recipient for `[privacy] recipients`
    Keygen(audit_read::KeygenArgs),
}

/// Where to look instead of asking the daemon.
#[derive(Debug, Clone, clap::Args)]
struct Place {
    /// A copy of the ledger's folder; no daemon is asked
    #[arg(long, value_name = "DIR")]
    ledger: Option<PathBuf>,
    /// The key of the log, as `audit key` printed it; without it the copy's own word is taken for it
    #[arg(long, value_name = "KEY", requires = "ledger")]
    key: Option<String>,
}

/// `audit verify`.
#[derive(Debug, clap::Args)]
pub struct VerifyArgs {
    #[command(flatten)]
    place: Place,
    /// A file of checkpoints that was kept elsewhere: what was cut off or changed below one of them is found
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Believe what the latest of these checkpoints covers, and verify only what came after it
    #[arg(long, requires = "checkpoint", requires = "ledger")]
    after_checkpoint: bool,
}

/// `audit prove`.
#[derive(Debug, clap::Args)]
#[group(id = "what", required = true, multiple = false)]
pub struct ProveArgs {
    /// The number of an entry
    #[arg(group = "what")]
    entry: Option<u64>,
    /// A file with a checkpoint that was kept elsewhere; prove that it is the beginning of what there is now
    #[arg(long, value_name = "FILE", group = "what")]
    from: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

/// `audit export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    #[command(flatten)]
    place: Place,
    /// The entries themselves with their hashes, instead of run records
    #[arg(long)]
    raw: bool,
    /// Only this run
    #[arg(long, value_name = "RUN", conflicts_with = "raw")]
    run: Option<String>,
    /// Only this tenant's; the daemon gives only the operator's own
    #[arg(long, value_name = "TENANT", requires = "ledger")]
    tenant: Option<String>,
    #[command(flatten)]
    time: Time,
}

/// From when to when.
#[derive(Debug, Clone, clap::Args)]
struct Time {
    /// Not before this time, such as 2026-11-21T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<u64>,
    /// Before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<u64>,
}

/// `audit show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// Only entries of this kind, such as `approval`
    #[arg(long, value_parser = kind)]
    kind: Option<AuditKind>,
    /// Only entries that name this id: a call, a run, a plan, an approval
    #[arg(long, value_name = "ID")]
    about: Option<String>,
    /// Begin after this entry
    #[arg(long, value_name = "N")]
    after: Option<u64>,
    /// At most so many
    #[arg(long, default_value_t = 100, value_name = "N")]
    limit: u64,
    #[command(flatten)]
    time: Time,
    #[command(flatten)]
    place: Place,
}

/// `audit key`.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    #[command(flatten)]
    place: Place,
}

/// `audit checkpoints`.
#[derive(Debug, clap::Args)]
pub struct CheckpointsArgs {
    #[command(flatten)]
    place: Place,
    /// Make one now and send it out
    #[arg(long, conflicts_with = "ledger")]
    make: bool,
    /// Only the latest, as the note that it is
    #[arg(long)]
    latest: bool,
    /// Begin below this size
    #[arg(long, value_name = "N")]
    below: Option<u64>,
}

fn kind(text: &str) -> Result<AuditKind, String> {
    AuditKind::from_word(text).ok_or_else(|| {
        let words: Vec<&str> = AuditKind::ALL.iter().map(|kind| kind.word()).collect();
        format!("there are {}", words.join(", "))
    })
}

fn moment(text: &str) -> Result<u64, String> {
    let time: jiff::Timestamp = text.parse().map_err(|_| "write it as 2026-11-21T00:00:00Z".to_owned())?;
    u64::try_from(time.as_millisecond()).map_err(|_| "it lies before 1970".to_owned())
}

impl AuditCommand {
    /// Do it.
    ///
    /// # Errors
    /// Something does not verify, or there is no daemon and no copy.
    pub fn run(self, context: &Context<'_>) -> Result<Exit, Failure> {
        match self {
            Self::Read(args) => args.run(context),
            Self::Keygen(args) => args.run(context),
            Self::Verify(args) if args.place.ledger.is_some() => offline::verify(context, &args),
            Self::Verify(args) => asked::verify(context, &args),
            Self::Prove(args) if args.place.ledger.is_some() => offline::prove(context, &args),
            Self::Prove(args) => asked::prove(context, &args),
            Self::Export(args) if args.place.ledger.is_some() => offline::export(context, &args),
            Self::Export(args) => asked::export(context, &args),
            Self::Show(args) if args.place.ledger.is_some() => offline::show(context, &args),
            Self::Show(args) => asked::show(context, &args),
            Self::Key(args) if args.place.ledger.is_some() => offline::key(context, &args.place),
            Self::Key(_) => asked::key(context),
            Self::Checkpoints(args) if args.place.ledger.is_some() => offline::checkpoints(context, &args),
            Self::Checkpoints(args) => asked::checkpoints(context, &args),
        }
    }
}
