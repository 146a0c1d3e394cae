//! `wasi:keyvalue` over the keys of an execution: store, atomics and batch.
//!
//! A bucket is its name. Each call is recorded with its answer; values that the guest reads are kept up to the recording
//! limit. A handle of `cas` remembers the value that it saw; the swap compares it with the value as the guest sees it then,
//! and the commit compares the committed one, because looking put it into the read set.

use bytes::Bytes;
use toolkeep_core::id::BucketName;
use wasmtime::component::Resource;

use crate::bindings::keyvalue::wasi::keyvalue::atomics::{self, CasError};
use crate::bindings::keyvalue::wasi::keyvalue::batch;
use crate::bindings::keyvalue::wasi::keyvalue::store::{self, Error, KeyResponse};
use crate::outbound::Outbound;
use crate::outbound::keys::{KeysError, StagedKeys, Wanted, granted};
use crate::state::State;

/// Keys of one call of `batch`.
pub const BATCH_MAX: usize = 1_000;

/// A bucket that was opened.
#[derive(Debug, Clone)]
pub struct Bucket {
    name: BucketName,
}

/// A value as it was seen.
#[derive(Debug)]
pub struct Seen {
    bucket: BucketName,
    key: String,
    value: Option<Bytes>,
}

type Answer<T> = wasmtime::Result<Result<T, Error>>;

/// What is asked, and about which key.
struct About<'a> {
    import: &'static str,
    bucket: &'a BucketName,
    key: &'a str,
    wanted: Wanted,
}

impl State {
    fn bucket(&self, bucket: &Resource<Bucket>) -> wasmtime::Result<BucketName> {
        Ok(self.table.get(bucket)?.name.clone())
    }

    /// Check the grant, do it, record it.
    async fn key<T>(
        &mut self,
        about: About<'_>,
        run: impl AsyncFnOnce(&mut StagedKeys, &crate::execution::Outward, &(BucketName, String)) -> Result<T, KeysError>,
        show: impl FnOnce(&T) -> Shown<'_>,
    ) -> Answer<T> {
        let About { import, bucket, key, wanted } = about;
        let outbound = self.outbound()?;
        let result = match granted(&outbound.outward.keys, bucket, key, wanted) {
            Ok(()) => {
                let place = (bucket.clone(), key.to_owned());
                let Outbound { keys, outward, .. } = outbound;
                match run(keys, outward, &place).await {
                    Ok(answer) => outbound.check().map(|()| answer).map_err(KeysError::Full),
                    Err(error) => Err(error),
                }
            }
            Err(error) => Err(error),
        };
        let place = format!("{bucket}/{key}");
        match result {
            Ok(answer) => {
                match show(&answer) {
                    Shown::Nothing => self.recorder.done(import, place),
                    Shown::Text(text) => self.recorder.value(import, place, text),
                    Shown::Bytes(bytes) => self.recorder.bytes(import, place, bytes),
                }
                Ok(Ok(answer))
            }
            Err(error) => self.refuse_key(import, &place, error),
        }
    }

    fn refuse_key<T>(&mut self, import: &'static str, place: &str, error: KeysError) -> Answer<T> {
        let text = error.to_string();
        let code = match error {
            KeysError::Stopped(stop) => return Err(stop.into()),
            KeysError::Full(full) => return Err(full.into()),
            KeysError::NoBucket => Error::NoSuchStore,
            KeysError::Denied(_) => Error::AccessDenied,
            KeysError::Invalid(problem) => Error::Other(problem),
        };
        self.recorder.error(import, place, text.as_str());
        if !matches!(code, Error::Other(_)) {
            self.outbound()?.breach("keys", place, &text);
        }
        Ok(Err(code))
    }

    async fn get_key(&mut self, import: &'static str, bucket: &BucketName, key: &str) -> Answer<Option<Bytes>> {
        let about = About { import, bucket, key, wanted: Wanted::Read };
        let get = async |keys: &mut StagedKeys, outward: &_, place: &_| keys.get(outward, place).await;
        self.key(about, get, |value| value.as_deref().map_or_else(|| Shown::Text("none".to_owned()), Shown::Bytes))
            .await
    }

    async fn set_key(&mut self, import: &'static str, bucket: &BucketName, key: &str, value: Vec<u8>) -> Answer<()> {
        let about = About { import, bucket, key, wanted: Wanted::Write };
        let set = async |keys: &mut StagedKeys, outward: &_, place: &_| keys.set(outward, place, value.into()).await;
        self.key(about, set, |()| Shown::Nothing).await
    }

    async fn delete_key(&mut self, import: &'static str, bucket: &BucketName, key: &str) -> Answer<()> {
        let about = About { import, bucket, key, wanted: Wanted::Write };
        let delete = async |keys: &mut StagedKeys, outward: &_, place: &_| keys.delete(outward, place).await;
        self.key(about, delete, |()| Shown::Nothing).await
    }
}

/// How an answer stands in the recording.
enum Shown<'a> {
    Nothing,
    Text(String),
    Bytes(&'a [u8]),
}

impl store::Host for State {
    async fn open(&mut self, identifier: String) -> Answer<Resource<Bucket>> {
        const OPEN: &str = "wasi:keyvalue/store#open";
        let about: String = identifier.chars().take(100).collect();
        let outbound = self.outbound()?;
        let known = outbound.outward.keys.iter().find(|grant| grant.bucket.as_str() == identifier);
        let Some(name) = known.map(|grant| grant.bucket.clone()) else {
            return self.refuse_key(OPEN, &about, KeysError::NoBucket);
        };
        self.recorder.done(OPEN, about);
        Ok(Ok(self.table.push(Bucket { name })?))
    }
}

impl store::HostBucket for State {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Option<Vec<u8>>> {
        let bucket = self.bucket(&bucket)?;
        let value = self.get_key("wasi:keyvalue/store#bucket.get", &bucket, &key).await?;
        Ok(value.map(|value| value.map(Vec::from)))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        self.set_key("wasi:keyvalue/store#bucket.set", &bucket, &key, value).await
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<()> {
        let bucket = self.bucket(&bucket)?;
        self.delete_key("wasi:keyvalue/store#bucket.delete", &bucket, &key).await
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<bool> {
        let bucket = &self.bucket(&bucket)?;
        let about = About { import: "wasi:keyvalue/store#bucket.exists", bucket, key: &key, wanted: Wanted::Read };
        let exists = async |keys: &mut StagedKeys, outward: &_, place: &_| keys.exists(outward, place).await;
        self.key(about, exists, |exists| Shown::Text(exists.to_string())).await
    }

    async fn list_keys(&mut self, bucket: Resource<Bucket>, cursor: Option<String>) -> Answer<KeyResponse> {
        const LIST: &str = "wasi:keyvalue/store#bucket.list-keys";
        let bucket = self.bucket(&bucket)?;
        let Outbound { keys, outward, .. } = self.outbound()?;
        match keys.list(outward, &bucket, cursor.as_deref()).await {
            Ok((keys, more)) => {
                self.recorder.bytes(LIST, bucket.as_str(), keys.join("\n").as_bytes());
                let cursor = keys.last().filter(|_| more).cloned();
                Ok(Ok(KeyResponse { keys, cursor }))
            }
            Err(error) => self.refuse_key(LIST, bucket.as_str(), error),
        }
    }

    async fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.table.delete(bucket)?;
        Ok(())
    }
}

impl State {
    async fn see(
        &mut self,
        import: &'static str,
        bucket: &Resource<Bucket>,
        key: String,
    ) -> Answer<(Resource<Seen>, Option<Bytes>)> {
        let bucket = self.bucket(bucket)?;
        let value = match self.get_key(import, &bucket, &key).await? {
            Ok(value) => value,
            Err(error) => return Ok(Err(error)),
        };
        let seen = self.table.push(Seen { bucket, key, value: value.clone() })?;
        Ok(Ok((seen, value)))
    }
}

impl atomics::HostCas for State {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Answer<Resource<Seen>> {
        let seen = self.see("wasi:keyvalue/atomics#cas.new", &bucket, key).await?;
        Ok(seen.map(|(seen, _)| seen))
    }

    async fn new_with_read(
        &mut self,
        bucket: Resource<Bucket>,
        key: String,
    ) -> Answer<(Resource<Seen>, Option<Vec<u8>>)> {
        let seen = self.see("wasi:keyvalue/atomics#cas.new-with-read", &bucket, key).await?;
        Ok(seen.map(|(seen, value)| (seen, value.map(Vec::from))))
    }

    async fn drop(&mut self, cas: Resource<Seen>) -> wasmtime::Result<()> {
        self.table.delete(cas)?;
        Ok(())
    }
}

impl atomics::Host for State {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Answer<i64> {
        let bucket = &self.bucket(&bucket)?;
        let about = About { import: "wasi:keyvalue/atomics#increment", bucket, key: &key, wanted: Wanted::Write };
        let add = async |keys: &mut StagedKeys, outward: &_, place: &_| keys.add(outward, place, delta).await;
        self.key(about, add, |sum| Shown::Text(sum.to_string())).await
    }

    async fn swap(&mut self, cas: Resource<Seen>, value: Vec<u8>) -> wasmtime::Result<Result<(), CasError>> {
        const SWAP: &str = "wasi:keyvalue/atomics#swap";
        let Seen { bucket, key, value: before } = self.table.delete(cas)?;
        let now = match self.get_key(SWAP, &bucket, &key).await? {
            Ok(now) => now,
            Err(error) => return Ok(Err(CasError::StoreError(error))),
        };
        if now != before {
            let seen = self.table.push(Seen { bucket, key, value: now.clone() })?;
            return Ok(Err(CasError::CasFailed((seen, now.map(Vec::from)))));
        }
        Ok(self.set_key(SWAP, &bucket, &key, value).await?.map_err(CasError::StoreError))
    }
}

/// More keys than one call may name.
fn too_many(count: usize) -> Option<Error> {
    (count > BATCH_MAX).then(|| Error::Other(format!("{count} keys in one call; at most {BATCH_MAX}")))
}

impl batch::Host for State {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Answer<Vec<Option<(String, Vec<u8>)>>> {
        if let Some(error) = too_many(keys.len()) {
            return Ok(Err(error));
        }
        let bucket = self.bucket(&bucket)?;
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            match self.get_key("wasi:keyvalue/batch#get-many", &bucket, &key).await? {
                Ok(value) => values.push(value.map(|value| (key, Vec::from(value)))),
                Err(error) => return Ok(Err(error)),
            }
        }
        Ok(Ok(values))
    }

    async fn set_many(&mut self, bucket: Resource<Bucket>, key_values: Vec<(String, Vec<u8>)>) -> Answer<()> {
        if let Some(error) = too_many(key_values.len()) {
            return Ok(Err(error));
        }
        let bucket = self.bucket(&bucket)?;
        for (key, value) in key_values {
            if let Err(error) = self.set_key("wasi:keyvalue/batch#set-many", &bucket, &key, value).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Answer<()> {
        if let Some(error) = too_many(keys.len()) {
            return Ok(Err(error));
        }
        let bucket = self.bucket(&bucket)?;
        for key in keys {
            if let Err(error) = self.delete_key("wasi:keyvalue/batch#delete-many", &bucket, &key).await? {
                return Ok(Err(error));
            }
        }
        Ok(Ok(()))
    }
}
