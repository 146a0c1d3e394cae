//! Streams over files of the stage.
//!
//! They are always ready: a read or a write is done when it is asked for. A write is bound by a permit that
//! [`OutputStream::check_write`] gives and the write uses up, so that no guest can make the host hold more than 64 KiB.

use wasmtime_wasi::async_trait;
use wasmtime_wasi_io::bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::answer::code_of;
use crate::stage::{CHUNK_BYTES, Handle, Stage, StageError};

/// Reads a file from a position to its end.
pub(super) struct Reader {
    pub(super) stage: Stage,
    pub(super) file: Handle,
    pub(super) position: u64,
    pub(super) closed: bool,
}

#[async_trait]
impl Pollable for Reader {
    async fn ready(&mut self) {}
}

#[async_trait]
impl InputStream for Reader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.stage.read_at(&self.file, self.position, size as u64) {
            Ok(bytes) if bytes.is_empty() => {
                self.closed = true;
                Err(StreamError::Closed)
            }
            Ok(bytes) => {
                self.position = self.position.saturating_add(bytes.len() as u64);
                Ok(bytes.into())
            }
            Err(error) => {
                self.closed = true;
                Err(failed(error))
            }
        }
    }
}

/// Where the next write goes.
pub(super) enum Target {
    Position(u64),
    End,
}

/// Writes a file from a position, or at its end.
pub(super) struct Writer {
    pub(super) stage: Stage,
    pub(super) file: Handle,
    pub(super) target: Target,
    pub(super) permit: usize,
    pub(super) closed: bool,
}

#[async_trait]
impl Pollable for Writer {
    async fn ready(&mut self) {}
}

#[async_trait]
impl OutputStream for Writer {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        self.permit = self
            .permit
            .checked_sub(bytes.len())
            .ok_or_else(|| StreamError::trap("a write exceeds what check-write permitted"))?;
        let result = match &mut self.target {
            Target::End => self.stage.append(&self.file, &bytes),
            Target::Position(at) => {
                let result = self.stage.write_at(&self.file, *at, &bytes);
                *at = at.saturating_add(bytes.len() as u64);
                result
            }
        };
        result.map_err(|error| {
            self.closed = true;
            failed(error)
        })
    }

    fn flush(&mut self) -> StreamResult<()> {
        if self.closed { Err(StreamError::Closed) } else { Ok(()) }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        if self.closed {
            return Err(StreamError::Closed);
        }
        self.permit = CHUNK_BYTES;
        Ok(CHUNK_BYTES)
    }
}

/// What ends the execution traps; everything else is the stream's last failure, with its code inside.
fn failed(error: StageError) -> StreamError {
    match code_of(&error) {
        Some(code) => StreamError::LastOperationFailed(code.into()),
        None => StreamError::Trap(error.into()),
    }
}
