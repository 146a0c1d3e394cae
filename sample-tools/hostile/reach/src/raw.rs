//! `wasi:http` as no library uses it: bodies after the request, bodies that are never finished, trailers, many requests at
//! one time, timers beside them.

use schemars::JsonSchema;
use serde::Deserialize;
use wasip2::clocks::monotonic_clock;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{ErrorCode, Fields, FutureIncomingResponse, Method, OutgoingBody, OutgoingRequest, Scheme};
use wasip2::io::poll::poll;

/// How.
#[derive(Debug, Clone, Copy, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// The request first, its body after it.
    HandleFirst,
    /// A body that is dropped.
    DropBody,
    /// A body that is never finished.
    NeverFinish,
    /// With trailers.
    Trailers,
    /// A body that is shorter than was said.
    ShortBody,
    /// All at one time; tells the order in which they were there.
    Together,
    /// The first one, but no longer than 50 ms; then a second time without a limit.
    Impatient,
    /// Look at it without waiting until it is there.
    Look,
    /// All, without waiting for any.
    Forget,
    /// A method, a scheme or a target of one's own: `METHOD scheme authority target`.
    Parts,
    /// Fields one by one, `name: value`, on a request to the first URL.
    Fields,
}

/// The monotonic time.
pub(crate) fn now() -> u64 {
    monotonic_clock::now()
}

fn request(url: &str, method: &Method, fields: Fields) -> OutgoingRequest {
    let request = OutgoingRequest::new(fields);
    let (scheme, rest) = url.split_once("://").unwrap_or(("https", url));
    let at = rest.find('/').unwrap_or(rest.len());
    let (authority, path) = rest.split_at(at);
    let scheme = if scheme == "http" { Scheme::Http } else { Scheme::Https };
    let _method = request.set_method(method);
    let _scheme = request.set_scheme(Some(&scheme));
    let _authority = request.set_authority(Some(authority));
    let _path = request.set_path_with_query(Some(path));
    request
}

fn code(code: &ErrorCode) -> String {
    format!("{code:?}")
}

fn get(url: &str) -> Result<FutureIncomingResponse, String> {
    handle(request(url, &Method::Get, Fields::new()), None).map_err(|error| code(&error))
}

fn taken(future: &FutureIncomingResponse) -> String {
    match future.get() {
        None => "pending".to_owned(),
        Some(Err(())) => "taken".to_owned(),
        Some(Ok(Err(error))) => code(&error),
        Some(Ok(Ok(response))) => {
            let Ok(body) = response.consume() else { return "no body".to_owned() };
            let bytes = body.stream().ok().and_then(|stream| stream.blocking_read(1_000).ok()).unwrap_or_default();
            format!("{} {}", response.status(), String::from_utf8_lossy(&bytes))
        }
    }
}

fn waited(future: &FutureIncomingResponse) -> String {
    future.subscribe().block();
    taken(future)
}

fn post(url: &str, way: Way) -> Vec<String> {
    let length = [("content-length".to_owned(), b"10".to_vec())];
    let fields = if matches!(way, Way::ShortBody) {
        Fields::from_list(&length).unwrap_or_else(|_| Fields::new())
    } else {
        Fields::new()
    };
    let request = request(url, &Method::Post, fields);
    let Ok(body) = request.body() else { return vec!["no body".to_owned()] };
    let future = match handle(request, None) {
        Ok(future) => future,
        Err(error) => return vec![code(&error)],
    };
    let early = taken(&future);
    if let Ok(stream) = body.write() {
        let _written = stream.blocking_write_and_flush(b"late");
    }
    let finished = match way {
        Way::DropBody => {
            drop(body);
            "dropped".to_owned()
        }
        Way::NeverFinish => {
            let answer = taken(&future);
            std::mem::forget(body);
            return vec![early, "never".to_owned(), answer];
        }
        Way::Trailers => {
            let trailers = Fields::from_list(&[("x-late".to_owned(), b"1".to_vec())]).ok();
            OutgoingBody::finish(body, trailers).map_or_else(|error| code(&error), |()| "finished".to_owned())
        }
        _ => OutgoingBody::finish(body, None).map_or_else(|error| code(&error), |()| "finished".to_owned()),
    };
    vec![early, finished, waited(&future)]
}

fn together(urls: &[String]) -> Vec<String> {
    let futures: Vec<_> = urls.iter().filter_map(|url| get(url).ok()).collect();
    let mut left: Vec<usize> = (0..futures.len()).collect();
    let mut order = Vec::new();
    while !left.is_empty() {
        let pollables: Vec<_> =
            left.iter().filter_map(|at| futures.get(*at)).map(|future| future.subscribe()).collect();
        let ready = poll(&pollables.iter().collect::<Vec<_>>());
        let done: Vec<usize> =
            ready.iter().filter_map(|at| left.get(usize::try_from(*at).unwrap_or_default()).copied()).collect();
        for at in &done {
            order.extend(futures.get(*at).map(|future| format!("{at}: {}", taken(future))));
        }
        left.retain(|at| !done.contains(at));
    }
    order
}

fn impatient(url: &str) -> Vec<String> {
    let future = match get(url) {
        Ok(future) => future,
        Err(error) => return vec![error],
    };
    let timer = monotonic_clock::subscribe_duration(50_000_000);
    let answer = future.subscribe();
    let ready = poll(&[&answer, &timer]);
    let first = format!("{ready:?} {}", taken(&future));
    vec![first, if ready.contains(&0) { String::new() } else { waited(&future) }]
}

fn parts(text: &str) -> String {
    let mut parts = text.splitn(4, ' ');
    let mut next = || parts.next().unwrap_or_default();
    let (method, scheme, authority, target) = (next(), next(), next(), next());
    let request = OutgoingRequest::new(Fields::new());
    let method = if method == "GET" { Method::Get } else { Method::Other(method.to_owned()) };
    let scheme = match scheme {
        "http" => Scheme::Http,
        "https" => Scheme::Https,
        other => Scheme::Other(other.to_owned()),
    };
    let set = request
        .set_method(&method)
        .and_then(|()| request.set_scheme(Some(&scheme)))
        .and_then(|()| request.set_authority(Some(authority)))
        .and_then(|()| request.set_path_with_query(Some(target)));
    match set.map_err(|()| "refused at once".to_owned()) {
        Err(refused) => refused,
        Ok(()) => handle(request, None).map_or_else(|error| code(&error), |future| waited(&future)),
    }
}

fn fields(urls: &[String]) -> Vec<String> {
    let Some((url, lines)) = urls.split_first() else { return Vec::new() };
    let try_line = |line: &String| {
        let (name, value) = line.split_once(": ").unwrap_or((line, ""));
        let fields = Fields::new();
        match fields.append(name, value.as_bytes()) {
            Err(error) => format!("{error:?}"),
            Ok(()) => {
                let sent = handle(request(url, &Method::Get, fields), None);
                sent.map_or_else(|error| code(&error), |future| waited(&future))
            }
        }
    };
    lines.iter().map(try_line).collect()
}

/// Do it.
pub(crate) fn run(way: Way, urls: &[String]) -> Vec<String> {
    let first = urls.first().map(String::as_str).unwrap_or_default();
    match way {
        Way::HandleFirst | Way::DropBody | Way::NeverFinish | Way::Trailers | Way::ShortBody => post(first, way),
        Way::Together => together(urls),
        Way::Impatient => impatient(first),
        Way::Look => match get(first) {
            Err(error) => vec![error],
            Ok(future) => {
                let pollable = future.subscribe();
                while !pollable.ready() {}
                drop(pollable);
                vec![taken(&future), taken(&future)]
            }
        },
        Way::Forget => {
            let futures: Vec<_> = urls.iter().map(|url| get(url).map(drop)).collect();
            futures.into_iter().map(|answer| answer.map_or_else(|error| error, |()| "sent".to_owned())).collect()
        }
        Way::Parts => urls.iter().map(|text| parts(text)).collect(),
        Way::Fields => fields(urls),
    }
}
