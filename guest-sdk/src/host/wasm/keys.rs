//! Buckets over `wasi:keyvalue`.

use crate::bindings::wasi::keyvalue::atomics;
use crate::bindings::wasi::keyvalue::store::{self, Error as Refused};
use crate::error::Error;

/// A bucket that was opened.
#[derive(Debug)]
pub(crate) struct OpenBucket {
    name: String,
    bucket: store::Bucket,
}

pub(crate) fn open_bucket(name: &str) -> Result<OpenBucket, Error> {
    let bucket = store::open(name).map_err(|refused| failure(name, "", refused))?;
    Ok(OpenBucket { name: name.to_owned(), bucket })
}

fn failure(bucket: &str, key: &str, refused: Refused) -> Error {
    match refused {
        Refused::NoSuchStore => Error::not_found(format!("this tool has no bucket `{bucket}`")),
        Refused::AccessDenied => Error::denied(format!("this tool may not do that with `{key}` of bucket `{bucket}`")),
        Refused::Other(why) => Error::invalid_input(format!("`{}` of bucket `{bucket}`: {why}", key.escape_debug())),
    }
}

impl OpenBucket {
    fn of<T>(&self, key: &str, result: Result<T, Refused>) -> Result<T, Error> {
        result.map_err(|refused| failure(&self.name, key, refused))
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.of(key, self.bucket.get(key))
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.of(key, self.bucket.set(key, value))
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), Error> {
        self.of(key, self.bucket.delete(key))
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool, Error> {
        self.of(key, self.bucket.exists(key))
    }

    pub(crate) fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.of(key, atomics::increment(&self.bucket, key, delta))
    }

    pub(crate) fn list(&self) -> Result<Vec<String>, Error> {
        let mut keys: Vec<String> = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let page = self.of("", self.bucket.list_keys(cursor.as_deref()))?;
            keys.extend(page.keys);
            cursor = page.cursor;
            if cursor.is_none() {
                return Ok(keys);
            }
        }
    }
}
