//! `toolkeep demo`: the main job on a copy of a real folder, each step explained in a line.
//!
//! The tour uses nothing that a reader could not type: it starts the daemon and runs the command line against it, and
//! shows every command before its output. A step that does not end as it should ends the tour with an error.

mod stop;
mod tour;
mod world;

use std::path::PathBuf;

use super::exit::Exit;
use super::failure::Failure;
use super::ui::Ui;

/// Arguments of `toolkeep demo`.
#[derive(Debug, clap::Args)]
pub struct Demo {
    /// The folder that is copied: it holds `books/` and `src/`.
    #[arg(long, default_value = "sample-tools/demo")]
    data: PathBuf,
    /// The folder with the packed components, as `make guests` leaves them.
    #[arg(long, default_value = "target/tools")]
    tools: PathBuf,
    /// Where the copy, the configuration and the state go; a new folder under the system's temporary one by default.
    #[arg(long)]
    into: Option<PathBuf>,
}

/// Run the tour.
///
/// # Errors
/// The folders cannot be prepared, the daemon does not start, or a step does not end as it should.
pub fn run(arguments: &Demo, ui: &Ui) -> Result<Exit, Failure> {
    let world = world::World::prepare(&arguments.data, &arguments.tools, arguments.into.as_deref())?;
    tour::Tour::new(&world, ui)?.walk()?;
    Ok(Exit::Ok)
}
