//! `read-all`: reads every file of a folder and adds up sizes and bytes, with nothing but `std::fs`.
//!
//! It does not use the workspace of the SDK, so that it runs on plain WASI as well, which is the floor.

use std::fs::{self, File};
use std::io::Read as _;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Error, Result, tool};

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 * 1024;

/// What to read.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReadArgs {
    /// A folder below the workspace `data`, without folders in it.
    pub folder: String,
}

/// What was read.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReadOutput {
    /// How many files.
    pub files: u64,
    /// How many bytes in all.
    pub bytes: u64,
}

/// Reads all files of a folder and says how much it was.
///
/// When: measuring.
/// Side effects: none.
/// Errors: failed if a file cannot be read.
#[tool(title = "Read all", deterministic)]
pub fn read_all(args: ReadArgs) -> Result<ReadOutput> {
    let failed = |error: std::io::Error| Error::failed(error.to_string());
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut output = ReadOutput { files: 0, bytes: 0 };
    for entry in fs::read_dir(format!("/data/{}", args.folder)).map_err(failed)? {
        let mut file = File::open(entry.map_err(failed)?.path()).map_err(failed)?;
        output.files += 1;
        loop {
            match file.read(&mut buffer).map_err(failed)? {
                0 => break,
                read => output.bytes += read as u64,
            }
        }
    }
    Ok(output)
}

toolkeep_sdk::export!(read_all);
