//! Keys and values that stay between calls, in buckets that the manifest grants.
//!
//! Changes are staged: this call sees them at once, everybody else after the commit. [`Bucket::get`] makes the plan depend
//! on the value that was seen: if somebody changes it before the commit, the plan is stale. [`Bucket::add`] depends on
//! nothing, so additions of many calls at one time all count; the sum that it answers is only what is known now.

use crate::error::Error;
use crate::host::{self, OpenBucket};

/// A bucket.
///
/// ```
/// use toolkeep_sdk::keys;
/// use toolkeep_sdk::testing::Harness;
///
/// Harness::new().bucket("counts", [("visits", "41")]).inside(|| {
///     let counts = keys::bucket("counts")?;
///     assert_eq!(counts.add("visits", 1)?, 42);
///     assert_eq!(counts.get_text("visits")?.as_deref(), Some("42"));
///     Ok::<_, toolkeep_sdk::Error>(())
/// })?;
/// # Ok::<_, toolkeep_sdk::Error>(())
/// ```
#[derive(Debug)]
pub struct Bucket(OpenBucket);

/// The bucket `name`, as the manifest of the tool names it.
///
/// # Errors
/// Not-found if no grant names it.
pub fn bucket(name: &str) -> Result<Bucket, Error> {
    host::open_bucket(name).map(Bucket)
}

impl Bucket {
    /// The value of a key; none if it does not exist.
    ///
    /// # Errors
    /// Denied if no grant covers the key; invalid-input if it is not one: 1 to 512 bytes without control characters and `*`.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.0.get(key)
    }

    /// As [`Self::get`], as text.
    ///
    /// # Errors
    /// As [`Self::get`]; failed if the value is not UTF-8.
    pub fn get_text(&self, key: &str) -> Result<Option<String>, Error> {
        let text =
            |value| String::from_utf8(value).map_err(|_| Error::failed(format!("the value of `{key}` is no text")));
        self.get(key)?.map(text).transpose()
    }

    /// Give a key a value of at most 64 KiB.
    ///
    /// # Errors
    /// As [`Self::get`]; denied if the grant only reads.
    pub fn set(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), Error> {
        self.0.set(key, value.as_ref())
    }

    /// Remove a key; nothing happens if it does not exist.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn delete(&self, key: &str) -> Result<(), Error> {
        self.0.delete(key)
    }

    /// Whether a key exists.
    ///
    /// # Errors
    /// As [`Self::get`].
    pub fn exists(&self, key: &str) -> Result<bool, Error> {
        self.0.exists(key)
    }

    /// Add to the number in a key, which counts as 0 if it does not exist. The sum is what is known now.
    ///
    /// # Errors
    /// As [`Self::set`]; invalid-input if the value is no decimal number, or the sum does not fit 64 bits.
    pub fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.0.add(key, delta)
    }

    /// Give a key a value if it still has the one that was expected. False if it has another.
    ///
    /// # Errors
    /// As [`Self::set`].
    pub fn swap(&self, key: &str, expected: Option<&[u8]>, value: impl AsRef<[u8]>) -> Result<bool, Error> {
        if self.get(key)?.as_deref() != expected {
            return Ok(false);
        }
        self.set(key, value).map(|()| true)
    }

    /// All keys that the grant covers, in the order of their bytes.
    ///
    /// # Errors
    /// What the host answers.
    pub fn list(&self) -> Result<Vec<String>, Error> {
        self.0.list()
    }
}
