//! `wasi:filesystem` over the stage: preopens and descriptors.
//!
//! The generated traits fix the types of their handles, but a handle is only a number and the table is dynamic, so
//! descriptors of our own live behind the same numbers. Every workspace is preopened as `/<name>`. Each call is recorded
//! with its answer, except drops, which tell nothing. A full or stale stage is not an answer for the guest: the
//! call traps with the [`StageError`], which ends the execution.
//!
//! Nothing blocks for long here: the lower layer is local files without FIFOs and devices, read 64 KiB at a time.

mod answer;
mod descriptor;
mod stream;
#[cfg(test)]
mod tests;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable, ResourceTableError};
use wasmtime_wasi::p2::FsError;
use wasmtime_wasi::p2::bindings::filesystem::{preopens, types};
use wasmtime_wasi_io::streams::Error;

use crate::recording::Recorder;
use crate::stage::{Handle, Stage, StageError};
use answer::{code_of, word_of};

/// What `wasi:filesystem` answers from.
#[derive(Debug)]
pub struct FilesView<'a> {
    /// Where descriptors and streams live.
    pub table: &'a mut ResourceTable,
    /// The stage of the execution; without one there are no preopens.
    pub stage: Option<&'a Stage>,
    /// Takes every answer.
    pub recorder: &'a Recorder,
}

/// A descriptor behind a `wasi:filesystem/types.descriptor`.
#[derive(Debug)]
struct Open {
    handle: Handle,
    stage: Stage,
}

/// A position in a listing behind a `wasi:filesystem/types.directory-entry-stream`.
#[derive(Debug)]
struct Entries {
    directory: Handle,
    stage: Stage,
    after: Option<String>,
}

/// Add `wasi:filesystem/types` and `wasi:filesystem/preopens` to a linker.
///
/// # Errors
/// The linker has one of them already and does not allow shadowing.
pub fn add_to_linker<T: Send + 'static>(
    linker: &mut Linker<T>,
    view: fn(&mut T) -> FilesView<'_>,
) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Files>(linker, view)?;
    preopens::add_to_linker::<T, Files>(linker, view)
}

/// Tells the linker which view it gets.
struct Files;

impl HasData for Files {
    type Data<'a> = FilesView<'a>;
}

impl FilesView<'_> {
    fn open(&self, descriptor: &Resource<types::Descriptor>) -> Result<&Open, ResourceTableError> {
        self.table.get(&Resource::<Open>::new_borrow(descriptor.rep()))
    }

    fn push(&mut self, open: Open) -> Result<Resource<types::Descriptor>, ResourceTableError> {
        Ok(Resource::new_own(self.table.push(open)?.rep()))
    }

    /// Record the answer to a call and give it to the guest, or end the execution.
    fn answer<T>(
        &self,
        import: &'static str,
        about: String,
        result: Result<T, StageError>,
        show: impl FnOnce(&T) -> Option<String>,
    ) -> Result<T, FsError> {
        match result {
            Ok(answer) => {
                match show(&answer) {
                    Some(text) => self.recorder.value(import, about, text),
                    None => self.recorder.done(import, about),
                }
                Ok(answer)
            }
            Err(error) => Err(match code_of(&error) {
                Some(code) => {
                    self.recorder.error(import, about, word_of(code));
                    code.into()
                }
                None => FsError::trap(error),
            }),
        }
    }
}

impl preopens::Host for FilesView<'_> {
    fn get_directories(&mut self) -> wasmtime::Result<Vec<(Resource<types::Descriptor>, String)>> {
        let mut directories = Vec::new();
        if let Some(stage) = self.stage {
            for (name, handle) in stage.roots() {
                let descriptor = self.push(Open { handle, stage: stage.clone() })?;
                directories.push((descriptor, format!("/{name}")));
            }
        }
        let names: Vec<&str> = directories.iter().map(|(_, name)| name.as_str()).collect();
        self.recorder.value("wasi:filesystem/preopens#get-directories", "", names.join(" "));
        Ok(directories)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<types::ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(&mut self, error: Resource<Error>) -> wasmtime::Result<Option<types::ErrorCode>> {
        let code = self.table.get(&error)?.downcast_ref::<types::ErrorCode>().copied();
        let shown = code.map_or("none", word_of);
        self.recorder.value("wasi:filesystem/types#filesystem-error-code", "", shown);
        Ok(code)
    }
}
