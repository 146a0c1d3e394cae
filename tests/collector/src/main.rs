//! A receiver of OTLP over HTTP for the tests: it reads what it is sent with the official types and writes each request as
//! one line of JSON to standard output. The first line is where it listens. With an argument it answers so many requests
//! with 503 before it takes one.

use std::error::Error;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde_json::{Map, Value, json};

/// Bytes of a request that are read.
const REQUEST_MAX_BYTES: usize = 64 * 1024 * 1024;

fn main() -> Result<(), Box<dyn Error>> {
    let mut failures: u32 = std::env::args().nth(1).map_or(Ok(0), |text| text.parse())?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    tell(&json!(format!("http://{}", listener.local_addr()?)))?;
    for stream in listener.incoming() {
        let (said, status) = match read(&stream?) {
            Ok((mut request, stream)) => {
                let status = if failures > 0 { 503 } else { 200 };
                failures = failures.saturating_sub(1);
                request.insert("status".to_owned(), json!(status));
                (Value::Object(request), Some((status, stream)))
            }
            Err(error) => (json!({"error": error.to_string()}), None),
        };
        tell(&said)?;
        if let Some((status, mut stream)) = status {
            let head = format!("HTTP/1.1 {status} x\r\nretry-after: 0\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
            stream.write_all(head.as_bytes())?;
        }
    }
    Ok(())
}

fn tell(line: &Value) -> Result<(), Box<dyn Error>> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

fn read(stream: &TcpStream) -> Result<(Map<String, Value>, TcpStream), Box<dyn Error>> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut fields = Map::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(": ") else { break };
        fields.insert(name.to_ascii_lowercase(), json!(value));
    }
    let length: usize = fields.get("content-length").and_then(Value::as_str).ok_or("no length")?.parse()?;
    if length > REQUEST_MAX_BYTES {
        return Err("too long".into());
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    let request = ExportTraceServiceRequest::decode(body.as_slice())?;
    // What the types do not know would be written again by nobody.
    if request.encode_to_vec() != body {
        return Err("the request holds what the official types do not know, or in another form".into());
    }
    let told = json!({"line": first.trim_end(), "fields": fields, "request": serde_json::to_value(&request)?});
    Ok((told.as_object().cloned().unwrap_or_default(), stream.try_clone()?))
}
