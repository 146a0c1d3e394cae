//! `toolkeep demo`: the main job on a copy of a real folder, each step explained in a line.
//!
//! The tour uses nothing that a reader could not type: it starts the daemon and runs the command line against it, and
//! shows every command before its output. A step that does not end as it should ends the tour with an error.

mod stop;
mod tour;
mod tracker;
mod world;

use std::path::PathBuf;

use super::context::Context;
use super::exit::Exit;
use super::failure::Failure;

/// Walk through the main job on a copy of a real folder
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Folder that is copied; it holds `books/` and `src/`
    #[arg(long, default_value = "sample-tools/demo", value_name = "FOLDER")]
    data: PathBuf,
    /// Folder with the packed components, as `make guests` leaves them
    #[arg(long, default_value = "target/tools", value_name = "FOLDER")]
    tools: PathBuf,
    /// Where the copy, the configuration and the state go; a new folder under the temporary one by default
    #[arg(long, value_name = "FOLDER")]
    into: Option<PathBuf>,
}

impl DemoArgs {
    /// Run the tour.
    pub(super) fn run(&self, context: &Context<'_>) -> Result<Exit, Failure> {
        let tracker = tracker::Tracker::start().map_err(stop::Stop::file(&self.data))?;
        let world = world::World::prepare(&self.data, &self.tools, self.into.as_deref(), tracker.origin())?;
        tour::Tour::new(&world, &tracker, &context.ui)?.walk()?;
        Ok(Exit::Ok)
    }
}
