//! Whether a request fits a grant, and what it is called once it does.
//!
//! A guest hands over pieces: method, scheme, authority, path with query, fields. They are read once, by the rules of
//! [`toolkeep_core::net`], and only the result is compared, shown and sent. The first grant whose origin, method and path
//! fit decides about everything else; a request that exceeds it is refused, never sent under a later one. Nothing here
//! looks at addresses: whoever connects does.

use bytes::Bytes;
use toolkeep_core::effect::Header;
use toolkeep_core::grant::HttpGrant;
use toolkeep_core::net::field::{AllowedFields, FieldProblem, FieldRule, value_text};
use toolkeep_core::net::method::Method;
use toolkeep_core::net::origin::{Origin, Scheme};
use toolkeep_core::net::target::{Target, TargetProblem};
use wasmtime_wasi_http::p2::bindings::http::types::{ErrorCode, FieldSizePayload};

use crate::port::HttpCall;

/// The one field of the connection that guests may name: libraries do, and it has to be right.
const CONTENT_LENGTH: &str = "content-length";

/// What a guest asks for, in pieces.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pieces {
    /// As the guest wrote it.
    pub(crate) method: String,
    /// `https` if the guest did not say.
    pub(crate) scheme: String,
    /// Host, and port where it is not the scheme's own.
    pub(crate) authority: String,
    /// Starts with `/`.
    pub(crate) target: String,
    /// Names in lower case.
    pub(crate) fields: Vec<(String, Vec<u8>)>,
}

impl Pieces {
    /// For breaches and the operator's log.
    pub(crate) fn shown(&self) -> String {
        format!("{} {}://{}{}", self.method, self.scheme, self.authority, self.target)
    }
}

/// Why a request is refused: the code for the guest, the reason for its author and the audit.
#[derive(Debug, Clone)]
pub(crate) struct Refused {
    pub(crate) code: ErrorCode,
    pub(crate) why: String,
}

impl Refused {
    pub(crate) fn denied(why: impl Into<String>) -> Self {
        Self { code: ErrorCode::HttpRequestDenied, why: why.into() }
    }

    fn invalid(why: &impl ToString) -> Self {
        Self { code: ErrorCode::HttpRequestUriInvalid, why: why.to_string() }
    }
}

impl From<FieldProblem> for Refused {
    /// The code names the field where the interface has a place for it, and otherwise in its text.
    fn from(problem: FieldProblem) -> Self {
        let why = problem.to_string();
        let code = if problem.rule == FieldRule::TooMany {
            ErrorCode::HttpRequestHeaderSize(Some(FieldSizePayload {
                field_name: Some(problem.name),
                field_size: None,
            }))
        } else {
            ErrorCode::InternalError(Some(why.clone()))
        };
        Self { code, why }
    }
}

/// A request that fits a grant, before its body is complete.
#[derive(Debug, Clone)]
pub(crate) struct Fitting {
    pub(crate) grant: HttpGrant,
    pub(crate) method: Method,
    pub(crate) url: String,
    pub(crate) headers: Vec<Header>,
    /// What the guest said its body would have.
    pub(crate) content_length: Option<u64>,
}

impl Fitting {
    /// The whole request.
    pub(crate) fn call(&self, body: Bytes) -> Result<HttpCall, Refused> {
        let size = body.len() as u64;
        let wrong_size = |why: String| Refused { code: ErrorCode::HttpRequestBodySize(Some(size)), why };
        if self.method.is_read() && size > 0 {
            return Err(Refused::denied(format!("a {} request carries no body", self.method)));
        }
        if size > self.grant.request_bytes {
            let limit = self.grant.request_bytes;
            return Err(wrong_size(format!("the body has {size} bytes; `request_bytes` allows {limit}")));
        }
        if self.content_length.is_some_and(|said| said != size) {
            return Err(wrong_size(format!("the body has {size} bytes, and `{CONTENT_LENGTH}` says otherwise")));
        }
        Ok(HttpCall {
            grant: self.grant.name.clone(),
            method: self.method.to_string(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body,
        })
    }
}

/// Find the grant of a request.
pub(crate) fn fit(grants: &[HttpGrant], pieces: &Pieces) -> Result<Fitting, Refused> {
    let method: Method = pieces.method.parse().map_err(|error| Refused::denied(format!("{error}")))?;
    let (origin, target) = address(pieces)?;
    let here = || grants.iter().filter(|grant| grant.origin.parse().is_ok_and(|granted: Origin| granted == origin));
    if here().next().is_none() {
        return Err(Refused::denied("no grant names this origin"));
    }
    let fitting = || here().filter(|grant| grant.allows_method(method.as_str()));
    if fitting().next().is_none() {
        return Err(Refused::denied(format!("no grant of this origin allows the method `{method}`")));
    }
    let Some(grant) = fitting().find(|grant| grant.allows_path(target.path())) else {
        return Err(Refused::denied("no grant of this origin and method allows this path"));
    };
    let query = target.query().len() as u64;
    if query > grant.query_bytes {
        let limit = grant.query_bytes;
        let why = format!("the query has {query} bytes; `query_bytes` allows {limit}");
        return Err(Refused { code: ErrorCode::HttpRequestUriTooLong, why });
    }
    let (headers, content_length) = fields(grant, &pieces.fields)?;
    Ok(Fitting { grant: grant.clone(), method, url: format!("{origin}{target}"), headers, content_length })
}

fn address(pieces: &Pieces) -> Result<(Origin, Target), Refused> {
    let scheme = match pieces.scheme.as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => return Err(Refused::denied(format!("the scheme `{other}` is not offered; use https or http"))),
    };
    let origin = Origin::from_authority(scheme, &pieces.authority).map_err(|error| Refused::invalid(&error))?;
    let target = pieces.target.parse().map_err(|error: toolkeep_core::net::target::TargetError| {
        let too_long = error.problem == TargetProblem::TooLong;
        let code = if too_long { ErrorCode::HttpRequestUriTooLong } else { ErrorCode::HttpRequestUriInvalid };
        Refused { code, why: error.to_string() }
    })?;
    Ok((origin, target))
}

/// The fields in their normal form, and the length that the guest said.
fn fields(grant: &HttpGrant, fields: &[(String, Vec<u8>)]) -> Result<(Vec<Header>, Option<u64>), Refused> {
    let allowed = AllowedFields::new(grant.headers.iter().map(String::as_str))?;
    let (lengths, others): (Vec<_>, Vec<_>) = fields.iter().partition(|(name, _)| name == CONTENT_LENGTH);
    let mut content_length = None;
    for (name, value) in lengths {
        let digits = value_text(value).filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let said = digits.and_then(|text| text.parse().ok()).filter(|_| content_length.is_none());
        content_length = Some(said.ok_or_else(|| FieldProblem::new(name, FieldRule::Framing))?);
    }
    let checked = allowed.check(others.into_iter().map(|(name, value)| (name.as_str(), value.as_slice())))?;
    Ok((checked, content_length))
}
