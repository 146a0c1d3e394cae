//! Streams. Shadows `wasi:io/streams` and `wasi:io/error`, so that every byte which a guest reads is recorded in one place.
//!
//! The streams themselves are objects of their makers (files, console) in the resource table. Here reads are bounded, their
//! bytes recorded, and failures noted. Successful writes are not recorded: their answers follow from the limits.

use wasmtime::component::Resource;
use wasmtime_wasi_io::bindings::wasi::io::error::{Host as ErrorHost, HostError};
use wasmtime_wasi_io::bindings::wasi::io::streams::{self, Host, HostInputStream, HostOutputStream};
use wasmtime_wasi_io::poll::DynPollable;
use wasmtime_wasi_io::streams::{DynInputStream, DynOutputStream, Error, StreamError, StreamResult};

use crate::recording::Recorder;
use crate::state::State;

/// Bytes that one read, skip or splice moves at most: the host holds them while it copies.
const CHUNK_MAX_BYTES: u64 = 64 * 1024;

const READ: &str = "wasi:io/streams#input-stream.read";
const SKIP: &str = "wasi:io/streams#input-stream.skip";
const WRITE: &str = "wasi:io/streams#output-stream.write";
const SPLICE: &str = "wasi:io/streams#output-stream.splice";

/// Record a failure; a success is recorded by the caller where it matters.
fn noted<T>(recorder: &Recorder, import: &'static str, result: StreamResult<T>) -> StreamResult<T> {
    match &result {
        Err(StreamError::Closed) => recorder.error(import, "", "closed"),
        Err(StreamError::LastOperationFailed(_)) => recorder.error(import, "", "last-operation-failed"),
        Ok(_) | Err(StreamError::Trap(_)) => {}
    }
    result
}

impl State {
    fn read_result(&self, result: StreamResult<Vec<u8>>) -> StreamResult<Vec<u8>> {
        if let Ok(bytes) = &result {
            self.recorder.bytes(READ, "", bytes);
        }
        noted(&self.recorder, READ, result)
    }

    fn count_result(&self, import: &'static str, result: StreamResult<u64>) -> StreamResult<u64> {
        if let Ok(count) = &result {
            self.recorder.value(import, "", count.to_string());
        }
        noted(&self.recorder, import, result)
    }

    fn write_result<T>(&self, result: StreamResult<T>) -> StreamResult<T> {
        noted(&self.recorder, WRITE, result)
    }
}

impl ErrorHost for State {}

impl HostError for State {
    /// One text for all: causes may name things of the host.
    fn to_debug_string(&mut self, error: Resource<Error>) -> wasmtime::Result<String> {
        self.table.get(&error)?;
        Ok("the last operation on the stream failed".to_owned())
    }

    fn drop(&mut self, error: Resource<Error>) -> wasmtime::Result<()> {
        self.table.delete(error)?;
        Ok(())
    }
}

impl Host for State {
    fn convert_stream_error(&mut self, error: StreamError) -> wasmtime::Result<streams::StreamError> {
        Host::convert_stream_error(&mut self.table, error)
    }
}

impl HostInputStream for State {
    fn read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        let result = HostInputStream::read(&mut self.table, stream, length.min(CHUNK_MAX_BYTES));
        self.read_result(result)
    }

    async fn blocking_read(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<Vec<u8>> {
        let result = self.table.blocking_read(stream, length.min(CHUNK_MAX_BYTES)).await;
        self.read_result(result)
    }

    fn skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let result = self.table.skip(stream, length.min(CHUNK_MAX_BYTES));
        self.count_result(SKIP, result)
    }

    async fn blocking_skip(&mut self, stream: Resource<DynInputStream>, length: u64) -> StreamResult<u64> {
        let result = self.table.blocking_skip(stream, length.min(CHUNK_MAX_BYTES)).await;
        self.count_result(SKIP, result)
    }

    fn subscribe(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        HostInputStream::subscribe(&mut self.table, stream)
    }

    async fn drop(&mut self, stream: Resource<DynInputStream>) -> wasmtime::Result<()> {
        HostInputStream::drop(&mut self.table, stream).await
    }
}

impl HostOutputStream for State {
    fn check_write(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<u64> {
        let result = self.table.check_write(stream);
        self.write_result(result)
    }

    fn write(&mut self, stream: Resource<DynOutputStream>, bytes: Vec<u8>) -> StreamResult<()> {
        let result = HostOutputStream::write(&mut self.table, stream, bytes);
        self.write_result(result)
    }

    async fn blocking_write_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        bytes: Vec<u8>,
    ) -> StreamResult<()> {
        let result = self.table.blocking_write_and_flush(stream, bytes).await;
        self.write_result(result)
    }

    fn flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let result = HostOutputStream::flush(&mut self.table, stream);
        self.write_result(result)
    }

    async fn blocking_flush(&mut self, stream: Resource<DynOutputStream>) -> StreamResult<()> {
        let result = self.table.blocking_flush(stream).await;
        self.write_result(result)
    }

    fn subscribe(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<Resource<DynPollable>> {
        HostOutputStream::subscribe(&mut self.table, stream)
    }

    fn write_zeroes(&mut self, stream: Resource<DynOutputStream>, length: u64) -> StreamResult<()> {
        let result = self.table.write_zeroes(stream, length);
        self.write_result(result)
    }

    async fn blocking_write_zeroes_and_flush(
        &mut self,
        stream: Resource<DynOutputStream>,
        length: u64,
    ) -> StreamResult<()> {
        let result = self.table.blocking_write_zeroes_and_flush(stream, length).await;
        self.write_result(result)
    }

    fn splice(
        &mut self,
        into: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let result = self.table.splice(into, from, length.min(CHUNK_MAX_BYTES));
        self.count_result(SPLICE, result)
    }

    async fn blocking_splice(
        &mut self,
        into: Resource<DynOutputStream>,
        from: Resource<DynInputStream>,
        length: u64,
    ) -> StreamResult<u64> {
        let result = self.table.blocking_splice(into, from, length.min(CHUNK_MAX_BYTES)).await;
        self.count_result(SPLICE, result)
    }

    async fn drop(&mut self, stream: Resource<DynOutputStream>) -> wasmtime::Result<()> {
        HostOutputStream::drop(&mut self.table, stream).await
    }
}
