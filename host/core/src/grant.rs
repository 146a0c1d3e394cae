//! Grants beyond files: origins that requests may go to, channels for messages, buckets of keys.
//!
//! As everywhere, the text that the operator wrote is one type and what it means another; the second exists only
//! where the first was checked. No grant, no connection: a request is allowed by exactly one entry of `[[http]]`, the first
//! whose origin, method and path it fits. Redirects are requests of their own.

mod keys;
mod messages;

use std::collections::BTreeMap;

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use crate::effect::{Delivery, Header, Reversal};
use crate::id::{GrantName, SecretName};
use crate::manifest::BadManifest;
use crate::net::origin::Origin;
use crate::price::{NoAmount, Usd};

pub use keys::{KEY_BYTES_MAX, KeysGrant, KeysText, VALUE_BYTES_MAX, key_problem};
pub use messages::{MessageGrant, MessageText};

/// Most entries of each kind in one manifest.
pub const GRANTS_MAX: usize = 32;
/// Most patterns in one list of a grant.
pub const PATTERNS_MAX: usize = 64;
/// Methods that only read (RFC 9110, section 9.2.1), and that a grant may name as such.
pub const SAFE_METHODS: [&str; 3] = ["GET", "HEAD", "OPTIONS"];
/// Methods that change something.
pub const WRITE_METHODS: [&str; 4] = ["POST", "PUT", "PATCH", "DELETE"];
/// Bytes of a query if the grant does not say: enough for filters, too little to carry a file away.
pub const QUERY_BYTES_DEFAULT: u64 = 1024;
/// Bytes of a request body if the grant does not say, and the most that it may say.
pub const REQUEST_BYTES: Bound = Bound { default: 256 * 1024, most: 32 * 1024 * 1024 };
/// Bytes of a response body if the grant does not say, and the most that it may say.
pub const RESPONSE_BYTES: Bound = Bound { default: 1024 * 1024, most: 32 * 1024 * 1024 };
/// Requests of one call if the grant does not say, and the most that it may say.
pub const REQUESTS_PER_CALL: Bound = Bound { default: 20, most: 1_000 };
/// Messages of one call if the grant does not say, and the most that it may say.
pub const MESSAGES_PER_CALL: Bound = Bound { default: 10, most: 1_000 };
/// Milliseconds to connect.
pub const CONNECT_MS: Bound = Bound { default: 5_000, most: 60_000 };
/// Milliseconds from the end of the request to the first byte of the answer.
pub const FIRST_BYTE_MS: Bound = Bound { default: 15_000, most: 300_000 };
/// Milliseconds between two bytes of the answer.
pub const IDLE_MS: Bound = Bound { default: 10_000, most: 300_000 };
/// Milliseconds for the whole exchange.
pub const TOTAL_MS: Bound = Bound { default: 30_000, most: 600_000 };

/// A default and a ceiling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// What holds if nothing is said.
    pub default: u64,
    /// The most that may be said.
    pub most: u64,
}

impl Bound {
    fn pick(self, key: impl Fn() -> String, wanted: Option<u64>) -> Result<u64, BadManifest> {
        match wanted {
            None => Ok(self.default),
            Some(0) => Err(BadManifest::new(key(), "is 0; write at least 1")),
            Some(value) if value > self.most => {
                Err(BadManifest::new(key(), format!("{value} is over the ceiling of {}", self.most)))
            }
            Some(value) => Ok(value),
        }
    }
}

/// `[[http]]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpText {
    /// What plans call it.
    pub name: GrantName,
    /// Scheme, host and port, for example `https://api.example.com`.
    pub origin: String,
    /// Methods; default `["GET", "HEAD"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub methods: Option<Vec<String>>,
    /// Path patterns (`*` stays within a segment, `**` crosses them); default `["/**"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paths: Option<Vec<String>>,
    /// Header fields that the tool may set besides `accept` and `content-type`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<String>,
    /// Bytes of the query.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub query_bytes: Option<u64>,
    /// Bytes of a request's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_bytes: Option<u64>,
    /// Bytes of an answer's body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_bytes: Option<u64>,
    /// Requests of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requests: Option<u64>,
    /// Milliseconds to connect.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect_ms: Option<u64>,
    /// Milliseconds to the first byte of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte_ms: Option<u64>,
    /// Milliseconds between two bytes of the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_ms: Option<u64>,
    /// Milliseconds for the whole exchange.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub total_ms: Option<u64>,
    /// What one request costs, in US dollars, for example `"0.002"`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub price_usd: Option<String>,
    /// A repeated request with the same `Idempotency-Key` has no further effect.
    #[serde(default)]
    pub idempotent: bool,
    /// A request that was sent does no harm if it is left.
    #[serde(default)]
    pub reversible: bool,
    /// `staged` (default) or `live`.
    #[serde(default)]
    pub delivery: Delivery,
    /// What the tool gets as answer to a staged request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<PreviewText>,
    /// The request that undoes one which was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<CompensationText>,
    /// The credential that the host adds; bound to the origin in the daemon's configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential: Option<SecretName>,
    /// The host may be a loopback or private address.
    #[serde(default)]
    pub allow_private: bool,
    /// Its answers may have been written by strangers.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// Its answers must not leave.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

/// `[http.preview]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PreviewText {
    /// Its status; default 202.
    #[serde(default = "accepted")]
    pub status: u16,
    /// Its fields.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
    /// Its body.
    #[serde(default)]
    pub body: String,
}

const fn accepted() -> u16 {
    202
}

/// `[http.compensation]`. `{response:/id}` stands for a value of the answer, `{request:/id}` for one of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompensationText {
    /// Its method.
    pub method: String,
    /// Its path and query, for example `/charges/{response:/id}/refund`.
    pub path: String,
    /// Its JSON body; empty for none.
    #[serde(default)]
    pub body: String,
}

/// A checked entry of `[[http]]`.
#[derive(Debug, Clone)]
pub struct HttpGrant {
    /// What plans call it.
    pub name: GrantName,
    /// Scheme, host and port, as written; whoever connects normalises it.
    pub origin: String,
    /// Methods in upper case.
    pub methods: Vec<String>,
    /// The path patterns, as written.
    pub paths: Vec<String>,
    /// Header fields in lower case that the tool may set.
    pub headers: Vec<String>,
    /// Bytes of the query, at most.
    pub query_bytes: u64,
    /// Bytes of a request's body, at most.
    pub request_bytes: u64,
    /// Bytes of an answer's body, at most.
    pub response_bytes: u64,
    /// Requests of one call, at most.
    pub requests: u64,
    /// How long each part of an exchange may take.
    pub times: HttpTimes,
    /// What one request costs.
    pub price: Usd,
    /// Whether a repetition with the same `Idempotency-Key` has no further effect.
    pub idempotent: bool,
    /// What undoes a request.
    pub reversal: Reversal,
    /// When a request that writes leaves.
    pub delivery: Delivery,
    /// The answer to a staged request, if the manifest declares one.
    pub preview: Option<PreviewText>,
    /// The request that undoes another.
    pub compensation: Option<CompensationText>,
    /// The credential that the host adds.
    pub credential: Option<SecretName>,
    /// Whether the host may be a loopback or private address.
    pub allow_private: bool,
    matchers: Vec<GlobMatcher>,
}

/// How long each part of an exchange may take, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpTimes {
    /// To connect.
    pub connect_ms: u64,
    /// To the first byte of the answer.
    pub first_byte_ms: u64,
    /// Between two bytes of the answer.
    pub idle_ms: u64,
    /// All together.
    pub total_ms: u64,
}

impl HttpGrant {
    /// Whether a path (without query, starting with `/`) is granted.
    #[must_use]
    pub fn allows_path(&self, path: &str) -> bool {
        self.matchers.iter().any(|matcher| matcher.is_match(path))
    }

    /// Whether a method is granted.
    #[must_use]
    pub fn allows_method(&self, method: &str) -> bool {
        self.methods.iter().any(|allowed| allowed == method)
    }

    /// Whether a method of this grant only reads.
    #[must_use]
    pub fn reads(method: &str) -> bool {
        SAFE_METHODS.contains(&method)
    }

    /// What a tool gets as answer to a staged request: what the manifest declares, else 202 without a body.
    #[must_use]
    pub fn staged_answer(&self) -> PreviewText {
        let nothing = || PreviewText { status: accepted(), headers: BTreeMap::new(), body: String::new() };
        self.preview.clone().unwrap_or_else(nothing)
    }

    /// Whether any method of the grant changes something.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.methods.iter().any(|method| !Self::reads(method))
    }
}

impl HttpText {
    /// What the entry means.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self) -> Result<HttpGrant, BadManifest> {
        let key = |part: &str| format!("http.{}.{part}", self.name);
        if let Err(error) = self.origin.parse::<Origin>() {
            let problem = format!("{error}; write one scheme, host and port, without wildcards");
            return Err(BadManifest::new(key("origin"), problem));
        }
        let methods = self.methods()?;
        let written = self.paths.clone().unwrap_or_else(|| vec!["/**".to_owned()]);
        let writes = methods.iter().any(|method| !HttpGrant::reads(method));
        if !writes && (self.delivery == Delivery::Live || self.compensation.is_some() || self.preview.is_some()) {
            return Err(BadManifest::new(
                key("methods"),
                "names no method that writes, but `delivery`, `preview` or `compensation` are about writes; remove them",
            ));
        }
        if let Some(compensation) = &self.compensation {
            compensation.check(&key)?;
        }
        let pick = |name: &'static str, wanted, bound: Bound| bound.pick(|| key(name), wanted);
        let query = Bound { default: QUERY_BYTES_DEFAULT, most: 16 * 1024 };
        Ok(HttpGrant {
            name: self.name.clone(),
            origin: self.origin.clone(),
            headers: self.header_names()?,
            matchers: matchers(&written).map_err(|problem| BadManifest::new(key("paths"), problem))?,
            paths: written,
            methods,
            query_bytes: pick("query_bytes", self.query_bytes, query)?,
            request_bytes: pick("request_bytes", self.request_bytes, REQUEST_BYTES)?,
            response_bytes: pick("response_bytes", self.response_bytes, RESPONSE_BYTES)?,
            requests: pick("requests", self.requests, REQUESTS_PER_CALL)?,
            times: HttpTimes {
                connect_ms: pick("connect_ms", self.connect_ms, CONNECT_MS)?,
                first_byte_ms: pick("first_byte_ms", self.first_byte_ms, FIRST_BYTE_MS)?,
                idle_ms: pick("idle_ms", self.idle_ms, IDLE_MS)?,
                total_ms: pick("total_ms", self.total_ms, TOTAL_MS)?,
            },
            price: self.price_usd.as_deref().map_or(Ok(Usd::default()), |text| {
                text.parse().map_err(|error: NoAmount| BadManifest::new(key("price_usd"), error.to_string()))
            })?,
            idempotent: self.idempotent,
            reversal: match (&self.compensation, self.reversible) {
                (Some(_), _) => Reversal::Compensated,
                (None, true) => Reversal::Reversible,
                (None, false) => Reversal::None,
            },
            delivery: self.delivery,
            preview: self.preview.clone(),
            compensation: self.compensation.clone(),
            credential: self.credential.clone(),
            allow_private: self.allow_private,
        })
    }

    fn methods(&self) -> Result<Vec<String>, BadManifest> {
        let wanted = self.methods.clone().unwrap_or_else(|| vec!["GET".to_owned(), "HEAD".to_owned()]);
        if wanted.is_empty() {
            return Err(BadManifest::new(format!("http.{}.methods", self.name), "is empty; name at least one method"));
        }
        match wanted.iter().find(|m| !SAFE_METHODS.contains(&m.as_str()) && !WRITE_METHODS.contains(&m.as_str())) {
            None => Ok(wanted),
            Some(unknown) => Err(BadManifest::new(
                format!("http.{}.methods", self.name),
                format!("`{unknown}` is not offered; use GET, HEAD, OPTIONS, POST, PUT, PATCH or DELETE"),
            )),
        }
    }

    fn header_names(&self) -> Result<Vec<String>, BadManifest> {
        let key = || format!("http.{}.headers", self.name);
        if self.headers.len() > PATTERNS_MAX {
            return Err(BadManifest::new(key(), format!("{} names; at most {PATTERNS_MAX}", self.headers.len())));
        }
        let names: Vec<String> = self.headers.iter().map(|name| name.to_ascii_lowercase()).collect();
        let token =
            |name: &str| !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
        match names.iter().find(|name| !token(name)) {
            None => Ok(names),
            Some(wrong) => Err(BadManifest::new(key(), format!("`{wrong}` is not the name of a header field"))),
        }
    }
}

impl CompensationText {
    fn check(&self, key: &impl Fn(&str) -> String) -> Result<(), BadManifest> {
        if !WRITE_METHODS.contains(&self.method.as_str()) {
            return Err(BadManifest::new(key("compensation.method"), "use POST, PUT, PATCH or DELETE"));
        }
        if !self.path.starts_with('/') {
            return Err(BadManifest::new(key("compensation.path"), "start it with `/`"));
        }
        for (part, text) in [("compensation.path", &self.path), ("compensation.body", &self.body)] {
            if let Some(problem) = template_problem(text) {
                return Err(BadManifest::new(key(part), problem));
            }
        }
        Ok(())
    }
}

/// What is wrong with the places of a template, if anything is: `{response:/pointer}` and `{request:/pointer}` are known.
fn template_problem(text: &str) -> Option<String> {
    let places = text.split('{').skip(1).filter(|rest| rest.starts_with("response:") || rest.starts_with("request:"));
    let mut pointers = places.map(|rest| rest.split_once('}').map(|(place, _)| place));
    pointers.find_map(|place| match place {
        None => Some("a place is not closed with `}`".to_owned()),
        Some(place) => {
            let pointer = place.split_once(':').map_or("", |(_, pointer)| pointer);
            (!pointer.starts_with('/')).then(|| format!("`{{{place}}}`: write a JSON pointer, for example `/id`"))
        }
    })
}

fn matchers(patterns: &[String]) -> Result<Vec<GlobMatcher>, String> {
    if patterns.len() > PATTERNS_MAX {
        return Err(format!("{} patterns; at most {PATTERNS_MAX}", patterns.len()));
    }
    let compile = |pattern: &String| {
        if !pattern.starts_with('/') {
            return Err(format!("`{pattern}`: start it with `/`"));
        }
        let glob = GlobBuilder::new(pattern).literal_separator(true).backslash_escape(false).build();
        glob.map(|glob| glob.compile_matcher()).map_err(|error| format!("`{pattern}`: {}", error.kind()))
    };
    patterns.iter().map(compile).collect()
}

/// The fields that a preview's answer has: those that the manifest declares, and the mark that says what it is.
#[must_use]
pub fn preview_headers(preview: &PreviewText) -> Vec<Header> {
    let declared =
        preview.headers.iter().map(|(name, value)| Header { name: name.to_ascii_lowercase(), value: value.clone() });
    declared.chain([Header { name: "x-toolkeep-staged".to_owned(), value: "1".to_owned() }]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn http(edit: impl FnOnce(&mut Value)) -> Result<HttpGrant, String> {
        let mut value = json!({"name": "tickets", "origin": "https://api.example.com", "methods": ["GET", "POST"],
            "paths": ["/v1/tickets/**"]});
        edit(&mut value);
        let text: HttpText = serde_json::from_value(value).map_err(|e| e.to_string())?;
        text.check().map_err(|e| e.to_string())
    }

    #[test]
    fn r49_a_grant_covers_its_methods_and_paths_and_nothing_else() {
        let grant = http(|_| ()).expect("valid");
        assert!(grant.allows_method("POST") && !grant.allows_method("DELETE") && !grant.allows_method("post"));
        assert!(
            grant.allows_path("/v1/tickets/7/comments") && !grant.allows_path("/v1/users") && !grant.allows_path("/")
        );
        let one = http(|v| v["paths"] = json!(["/a/*"])).expect("valid");
        assert!(one.allows_path("/a/b") && !one.allows_path("/a/b/c"));
        let reads = http(|v| {
            v.as_object_mut().expect("object").remove("methods");
        });
        assert!(!reads.expect("valid").writes());
    }

    #[test]
    fn contradictions_are_refused_with_the_key() {
        for (edit, says) in [
            ((|v| v["methods"] = json!(["BREW"])) as fn(&mut Value), "`BREW` is not offered"),
            (|v| v["methods"] = json!([]), "`http.tickets.methods`: is empty"),
            (|v| v["paths"] = json!(["v1"]), "start it with `/`"),
            (|v| v["headers"] = json!(["a b"]), "is not the name of a header field"),
            (|v| v["total_ms"] = json!(0), "`http.tickets.total_ms`: is 0"),
            (|v| v["price_usd"] = json!("1.0000001"), "is not an amount"),
            (|v| v["compensation"] = json!({"method": "GET", "path": "/"}), "compensation.method"),
            (|v| v["compensation"] = json!({"method": "POST", "path": "/{response:id}"}), "JSON pointer"),
            (|v| v["compensation"] = json!({"method": "POST", "path": "/{response:/id"}), "not closed"),
            (|v| v["proxy"] = json!("x"), "unknown field `proxy`"),
        ] {
            let message = http(edit).map(|_| ()).expect_err(says);
            assert!(message.contains(says), "{message} should contain {says}");
        }
        let live_read = http(|v| {
            v["methods"] = json!(["GET"]);
            v["delivery"] = json!("live");
        });
        assert!(live_read.expect_err("refused").contains("names no method that writes"));
    }

    #[test]
    fn every_bound_of_a_grant_holds_at_its_ceiling_and_one_above() {
        for (key, bound) in [
            ("request_bytes", REQUEST_BYTES),
            ("response_bytes", RESPONSE_BYTES),
            ("requests", REQUESTS_PER_CALL),
            ("connect_ms", CONNECT_MS),
            ("first_byte_ms", FIRST_BYTE_MS),
            ("idle_ms", IDLE_MS),
            ("total_ms", TOTAL_MS),
        ] {
            assert!(http(|v| v[key] = json!(bound.most)).is_ok(), "{key}");
            assert!(http(|v| v[key] = json!(bound.most + 1)).is_err(), "{key}");
        }
    }
}
