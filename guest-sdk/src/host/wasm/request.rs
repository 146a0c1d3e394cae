//! Requests over `wasi:http`: the body first, then the request, then the answer as a whole.

use crate::bindings::wasi::http::outgoing_handler::handle;
use crate::bindings::wasi::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme,
};
use crate::bindings::wasi::io::streams::StreamError;
use crate::http::{Error, Request, Response, split};

/// Bytes that are moved at one time.
const CHUNK_BYTES: usize = 64 * 1024;

pub(crate) fn send_request(request: Request) -> Result<Response, Error> {
    let (scheme, authority, target) = split(&request.url)?;
    let fields: Vec<(String, Vec<u8>)> =
        request.headers.iter().map(|(name, value)| (name.clone(), value.clone().into_bytes())).collect();
    let fields = Fields::from_list(&fields).map_err(|error| match error {
        HeaderError::Forbidden => Error::Denied("a header field belongs to the host".to_owned()),
        HeaderError::InvalidSyntax | HeaderError::Immutable => Error::Invalid("a header field is malformed".to_owned()),
    })?;
    let outgoing = OutgoingRequest::new(fields);
    let invalid = |what: &str| Error::Invalid(format!("`{}` cannot be {what}", request.url));
    outgoing.set_method(&method(&request.method)).map_err(|()| Error::Invalid("the method is malformed".to_owned()))?;
    let scheme = match scheme {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        other => Scheme::Other(other.to_owned()),
    };
    outgoing.set_scheme(Some(&scheme)).map_err(|()| invalid("a scheme"))?;
    outgoing.set_authority(Some(authority)).map_err(|()| invalid("a host"))?;
    outgoing.set_path_with_query(Some(target)).map_err(|()| invalid("a path"))?;
    if !request.body.is_empty() {
        let body = outgoing.body().map_err(|()| invalid("given a body"))?;
        write(&body, &request.body)?;
        OutgoingBody::finish(body, None).map_err(failure)?;
    }
    let future = handle(outgoing, None).map_err(failure)?;
    future.subscribe().block();
    match future.get() {
        Some(Ok(Ok(response))) => read(&response),
        Some(Ok(Err(code))) => Err(failure(code)),
        Some(Err(())) | None => Err(Error::Broken("there is no answer".to_owned())),
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn write(body: &OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let broken = |_: StreamError| Error::Invalid("the body is too large".to_owned());
    let stream = body.write().map_err(|()| Error::Broken("there is no body to write".to_owned()))?;
    let mut rest = bytes;
    while !rest.is_empty() {
        let permit = usize::try_from(stream.check_write().map_err(broken)?).unwrap_or(CHUNK_BYTES);
        if permit == 0 {
            stream.subscribe().block();
            continue;
        }
        let (chunk, more) = rest.split_at(permit.min(CHUNK_BYTES).min(rest.len()));
        stream.write(chunk).map_err(broken)?;
        rest = more;
    }
    Ok(())
}

fn read(response: &IncomingResponse) -> Result<Response, Error> {
    let text = |value: Vec<u8>| String::from_utf8_lossy(&value).into_owned();
    let headers = response.headers().entries().into_iter().map(|(name, value)| (name, text(value))).collect();
    let incoming: IncomingBody = response.consume().map_err(|()| Error::Broken("there is no body".to_owned()))?;
    let stream = incoming.stream().map_err(|()| Error::Broken("there is no body to read".to_owned()))?;
    let mut body = Vec::new();
    loop {
        match stream.blocking_read(CHUNK_BYTES as u64) {
            Ok(bytes) => body.extend(bytes),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return Err(Error::Broken("the body ended early".to_owned())),
        }
    }
    Ok(Response { status: response.status(), headers, body })
}

fn failure(code: ErrorCode) -> Error {
    match code {
        ErrorCode::HttpRequestDenied => Error::Denied("no grant covers it".to_owned()),
        ErrorCode::DestinationIpProhibited => Error::Denied("its address may not be reached".to_owned()),
        ErrorCode::InternalError(Some(why)) => Error::Denied(why),
        ErrorCode::HttpRequestUriInvalid => Error::Invalid("the URL".to_owned()),
        ErrorCode::HttpRequestUriTooLong => Error::Invalid("the URL or its query is too long".to_owned()),
        ErrorCode::HttpRequestBodySize(_) => Error::Invalid("the body is too large".to_owned()),
        ErrorCode::HttpRequestHeaderSize(_) => Error::Invalid("the header fields are too large".to_owned()),
        ErrorCode::HttpResponseTimeout | ErrorCode::ConnectionTimeout | ErrorCode::ConnectionReadTimeout => {
            Error::Timeout
        }
        ErrorCode::HttpResponseBodySize(_) => Error::TooLarge,
        ErrorCode::DnsError(_) => Error::Unreachable("the name has no address".to_owned()),
        ErrorCode::ConnectionRefused => Error::Unreachable("no connection".to_owned()),
        ErrorCode::TlsProtocolError | ErrorCode::TlsCertificateError => {
            Error::Unreachable("no secure connection".to_owned())
        }
        _ => Error::Broken("the exchange broke off".to_owned()),
    }
}
