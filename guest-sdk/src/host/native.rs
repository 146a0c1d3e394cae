//! The host as the test harness plays it.
//!
//! Outside of a harness (a tool's function called directly) there is a caller called `nobody`, no
//! workspace, bucket, channel or answer, and log and progress go nowhere.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::context::{Mode, Principal};
use crate::error::Error;
use crate::http::{Error as HttpError, Request, Response};
use crate::log::Level;
use crate::messages::Message;
use crate::testing::running;
use crate::testing::{LogLine, ProgressReport};

pub(crate) fn caller() -> Principal {
    running::read(|call| call.context.caller.clone()).unwrap_or_else(|| Principal {
        tenant: "nobody".to_owned(),
        user: "nobody".to_owned(),
        agent: "nobody".to_owned(),
    })
}

/// Nobody delegates in a harness.
pub(crate) fn session_id() -> String {
    String::new()
}

/// Nobody is authenticated in a harness.
pub(crate) fn authenticated_by() -> String {
    "record".to_owned()
}

pub(crate) fn run_id() -> String {
    running::read(|call| call.context.run_id.clone()).unwrap_or_default()
}

pub(crate) fn call_id() -> String {
    running::read(|call| call.context.call_id.clone()).unwrap_or_default()
}

pub(crate) fn mode() -> Mode {
    running::read(|call| call.context.mode).unwrap_or(Mode::Preview)
}

pub(crate) fn deadline_left() -> Duration {
    running::read(|call| call.context.deadline).unwrap_or(Duration::MAX)
}

pub(crate) fn fuel_left() -> u64 {
    running::read(|call| call.context.fuel).unwrap_or(u64::MAX)
}

pub(crate) fn write_log(level: Level, message: &str) {
    running::change(|call| call.log.push(LogLine { level, message: message.to_owned() }));
}

pub(crate) fn report_progress(done: u64, total: Option<u64>, message: &str) {
    running::change(|call| call.progress.push(ProgressReport { done, total, message: message.to_owned() }));
}

pub(crate) fn workspace_root(name: &str) -> Option<PathBuf> {
    running::read(|call| call.workspaces.get(name).cloned()).flatten()
}

/// Answers as the test scripted them: the first of those for the same method and URL, and the last one again and again. A
/// request that writes and has none is staged, as by the host.
pub(crate) fn send_request(request: Request) -> Result<Response, HttpError> {
    let reads = matches!(request.method.as_str(), "GET" | "HEAD" | "OPTIONS");
    let asked = |earlier: &Request| earlier.method == request.method && earlier.url == request.url;
    let answer = running::read(|call| {
        let before = call.requests.iter().filter(|earlier| asked(earlier)).count();
        let answers = call.answers.iter().filter(|answer| answer.0 == request.method && answer.1 == request.url);
        let answers: Vec<&Response> = answers.map(|(_, _, response)| response).collect();
        answers.get(before).or(answers.last()).map(|response| (*response).clone())
    });
    let known = running::change(|call| call.requests.push(request.clone())).is_some();
    let staged =
        || Response { headers: vec![("x-toolkeep-staged".to_owned(), "1".to_owned())], ..Response::new(202, "") };
    match answer.flatten() {
        Some(response) => Ok(response),
        None if reads || !known => {
            let Request { method, url, .. } = request;
            Err(HttpError::Denied(format!("the test has no answer to {method} {url}")))
        }
        None => Ok(staged()),
    }
}

pub(crate) fn send_message(message: Message) -> Result<(), Error> {
    let known = running::read(|call| call.channels.contains(&message.channel)).unwrap_or_default();
    if !known {
        return Err(Error::denied(format!("no grant names the channel `{}`", message.channel)));
    }
    running::change(|call| call.messages.push(message));
    Ok(())
}

/// A bucket of the harness.
#[derive(Debug)]
pub(crate) struct OpenBucket(String);

pub(crate) fn open_bucket(name: &str) -> Result<OpenBucket, Error> {
    let known = running::read(|call| call.buckets.contains_key(name)).unwrap_or_default();
    let missing = || Error::not_found(format!("this tool has no bucket `{name}`"));
    known.then(|| OpenBucket(name.to_owned())).ok_or_else(missing)
}

impl OpenBucket {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> Result<T, Error> {
        let act = |call: &mut running::Running| call.buckets.get_mut(&self.0).map(act);
        running::change(act).flatten().ok_or_else(|| Error::failed("the call of this bucket is over"))
    }

    fn note(&self, key: &str, adds: bool) {
        running::change(|call| {
            let adds_only = call.keys_changed.entry((self.0.clone(), key.to_owned())).or_insert(adds);
            *adds_only &= adds;
        });
    }

    pub(crate) fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Error> {
        self.with(|keys| keys.get(key).cloned())
    }

    pub(crate) fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        self.note(key, false);
        self.with(|keys| keys.insert(key.to_owned(), value.to_vec())).map(drop)
    }

    pub(crate) fn delete(&self, key: &str) -> Result<(), Error> {
        self.note(key, false);
        self.with(|keys| keys.remove(key)).map(drop)
    }

    pub(crate) fn exists(&self, key: &str) -> Result<bool, Error> {
        self.with(|keys| keys.contains_key(key))
    }

    pub(crate) fn add(&self, key: &str, delta: i64) -> Result<i64, Error> {
        self.note(key, true);
        self.with(|keys| {
            let before = match keys.get(key) {
                None => Some(0),
                Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()),
            };
            let before: i64 = before.ok_or_else(|| Error::invalid_input(format!("`{key}` is no decimal number")))?;
            let sum = before.checked_add(delta).ok_or_else(|| Error::invalid_input("the sum does not fit 64 bits"))?;
            keys.insert(key.to_owned(), sum.to_string().into_bytes());
            Ok(sum)
        })?
    }

    pub(crate) fn list(&self) -> Result<Vec<String>, Error> {
        self.with(|keys| keys.keys().cloned().collect())
    }
}
