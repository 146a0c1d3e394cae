//! `wasi:http/types`: fields, requests, responses and bodies.
//!
//! What only holds values (fields, options, a request in the making, a response with its body in memory) is the engine's
//! own implementation. What touches the world is in the other files: the body that the guest writes, which is kept whole
//! until it is complete, and the future, behind which nothing leaves before the request was checked. Incoming requests
//! and outgoing responses cannot come into being here, because no tool serves HTTP.

use wasmtime::component::Resource;
use wasmtime_wasi_http::p2::bindings::http::types::{
    self, Duration, ErrorCode, Fields, FutureTrailers, IncomingBody, IncomingRequest, IncomingResponse, IoError,
    Method, OutgoingBody, OutgoingRequest, OutgoingResponse, RequestOptions, ResponseOutparam, Scheme, Trailers,
};
use wasmtime_wasi_http::p2::{HeaderError, HeaderResult, HttpError, HttpResult};
use wasmtime_wasi_io::poll::DynPollable;
use wasmtime_wasi_io::streams::DynInputStream;

use crate::state::State;

type Answer<T> = wasmtime::Result<T>;
type Own<T> = Resource<T>;

/// Implements a trait of the interface by the engine's implementation of it.
macro_rules! by_the_engine {
    ($name:ident { $(fn $function:ident($($argument:ident: $type:ty),*) -> $answer:ty;)* }) => {
        impl types::$name for State {
            $(fn $function(&mut self, $($argument: $type),*) -> $answer {
                types::$name::$function(&mut self.http(), $($argument),*)
            })*
        }
    };
}

by_the_engine!(Host {
    fn convert_error_code(error: HttpError) -> Answer<ErrorCode>;
    fn convert_header_error(error: HeaderError) -> Answer<types::HeaderError>;
    fn http_error_code(error: Resource<IoError>) -> Answer<Option<ErrorCode>>;
});

by_the_engine!(HostFields {
    fn new() -> Answer<Own<Fields>>;
    fn from_list(entries: Vec<(String, Vec<u8>)>) -> HeaderResult<Own<Fields>>;
    fn get(fields: Resource<Fields>, name: String) -> Answer<Vec<Vec<u8>>>;
    fn has(fields: Resource<Fields>, name: String) -> Answer<bool>;
    fn set(fields: Resource<Fields>, name: String, values: Vec<Vec<u8>>) -> HeaderResult<()>;
    fn delete(fields: Resource<Fields>, name: String) -> HeaderResult<()>;
    fn append(fields: Resource<Fields>, name: String, value: Vec<u8>) -> HeaderResult<()>;
    fn entries(fields: Resource<Fields>) -> Answer<Vec<(String, Vec<u8>)>>;
    fn clone(fields: Resource<Fields>) -> Answer<Own<Fields>>;
    fn drop(fields: Resource<Fields>) -> Answer<()>;
});

by_the_engine!(HostIncomingRequest {
    fn method(request: Resource<IncomingRequest>) -> Answer<Method>;
    fn path_with_query(request: Resource<IncomingRequest>) -> Answer<Option<String>>;
    fn scheme(request: Resource<IncomingRequest>) -> Answer<Option<Scheme>>;
    fn authority(request: Resource<IncomingRequest>) -> Answer<Option<String>>;
    fn headers(request: Resource<IncomingRequest>) -> Answer<Own<Fields>>;
    fn consume(request: Resource<IncomingRequest>) -> Answer<Result<Own<IncomingBody>, ()>>;
    fn drop(request: Resource<IncomingRequest>) -> Answer<()>;
});

by_the_engine!(HostIncomingResponse {
    fn status(response: Resource<IncomingResponse>) -> Answer<u16>;
    fn headers(response: Resource<IncomingResponse>) -> Answer<Own<Fields>>;
    fn consume(response: Resource<IncomingResponse>) -> Answer<Result<Own<IncomingBody>, ()>>;
    fn drop(response: Resource<IncomingResponse>) -> Answer<()>;
});

by_the_engine!(HostIncomingBody {
    fn stream(body: Resource<IncomingBody>) -> Answer<Result<Own<DynInputStream>, ()>>;
    fn finish(body: Own<IncomingBody>) -> Answer<Own<FutureTrailers>>;
    fn drop(body: Resource<IncomingBody>) -> Answer<()>;
});

by_the_engine!(HostFutureTrailers {
    fn subscribe(trailers: Resource<FutureTrailers>) -> Answer<Own<DynPollable>>;
    fn get(
        trailers: Resource<FutureTrailers>
    ) -> Answer<Option<Result<Result<Option<Own<Trailers>>, ErrorCode>, ()>>>;
    fn drop(trailers: Resource<FutureTrailers>) -> Answer<()>;
});

by_the_engine!(HostRequestOptions {
    fn new() -> Answer<Own<RequestOptions>>;
    fn connect_timeout(options: Resource<RequestOptions>) -> Answer<Option<Duration>>;
    fn set_connect_timeout(options: Resource<RequestOptions>, time: Option<Duration>) -> Answer<Result<(), ()>>;
    fn first_byte_timeout(options: Resource<RequestOptions>) -> Answer<Option<Duration>>;
    fn set_first_byte_timeout(options: Resource<RequestOptions>, time: Option<Duration>) -> Answer<Result<(), ()>>;
    fn between_bytes_timeout(options: Resource<RequestOptions>) -> Answer<Option<Duration>>;
    fn set_between_bytes_timeout(options: Resource<RequestOptions>, time: Option<Duration>) -> Answer<Result<(), ()>>;
    fn drop(options: Resource<RequestOptions>) -> Answer<()>;
});

by_the_engine!(HostResponseOutparam {
    fn set(outparam: Own<ResponseOutparam>, response: Result<Own<OutgoingResponse>, ErrorCode>) -> Answer<()>;
    fn send_informational(
        outparam: Resource<ResponseOutparam>, status: u16, headers: Own<Fields>
    ) -> HttpResult<()>;
    fn drop(outparam: Resource<ResponseOutparam>) -> Answer<()>;
});

by_the_engine!(HostOutgoingResponse {
    fn new(headers: Own<Fields>) -> Answer<Own<OutgoingResponse>>;
    fn status_code(response: Resource<OutgoingResponse>) -> Answer<u16>;
    fn set_status_code(response: Resource<OutgoingResponse>, status: u16) -> Answer<Result<(), ()>>;
    fn headers(response: Resource<OutgoingResponse>) -> Answer<Own<Fields>>;
    fn body(response: Resource<OutgoingResponse>) -> Answer<Result<Own<OutgoingBody>, ()>>;
    fn drop(response: Resource<OutgoingResponse>) -> Answer<()>;
});

impl types::HostOutgoingRequest for State {
    fn new(&mut self, headers: Own<Fields>) -> Answer<Own<OutgoingRequest>> {
        types::HostOutgoingRequest::new(&mut self.http(), headers)
    }

    fn body(&mut self, request: Resource<OutgoingRequest>) -> Answer<Result<Own<OutgoingBody>, ()>> {
        self.draft_of(&request)
    }

    fn method(&mut self, request: Resource<OutgoingRequest>) -> Answer<Method> {
        types::HostOutgoingRequest::method(&mut self.http(), request)
    }

    fn set_method(&mut self, request: Resource<OutgoingRequest>, method: Method) -> Answer<Result<(), ()>> {
        types::HostOutgoingRequest::set_method(&mut self.http(), request, method)
    }

    fn path_with_query(&mut self, request: Resource<OutgoingRequest>) -> Answer<Option<String>> {
        types::HostOutgoingRequest::path_with_query(&mut self.http(), request)
    }

    fn set_path_with_query(
        &mut self,
        request: Resource<OutgoingRequest>,
        target: Option<String>,
    ) -> Answer<Result<(), ()>> {
        types::HostOutgoingRequest::set_path_with_query(&mut self.http(), request, target)
    }

    fn scheme(&mut self, request: Resource<OutgoingRequest>) -> Answer<Option<Scheme>> {
        types::HostOutgoingRequest::scheme(&mut self.http(), request)
    }

    fn set_scheme(&mut self, request: Resource<OutgoingRequest>, scheme: Option<Scheme>) -> Answer<Result<(), ()>> {
        types::HostOutgoingRequest::set_scheme(&mut self.http(), request, scheme)
    }

    fn authority(&mut self, request: Resource<OutgoingRequest>) -> Answer<Option<String>> {
        types::HostOutgoingRequest::authority(&mut self.http(), request)
    }

    fn set_authority(
        &mut self,
        request: Resource<OutgoingRequest>,
        authority: Option<String>,
    ) -> Answer<Result<(), ()>> {
        types::HostOutgoingRequest::set_authority(&mut self.http(), request, authority)
    }

    fn headers(&mut self, request: Resource<OutgoingRequest>) -> Answer<Own<Fields>> {
        types::HostOutgoingRequest::headers(&mut self.http(), request)
    }

    fn drop(&mut self, request: Resource<OutgoingRequest>) -> Answer<()> {
        self.outbound()?.drafts.remove(&request.rep());
        types::HostOutgoingRequest::drop(&mut self.http(), request)
    }
}
