//! Where an MCP client finds the HTTP door.
//!
//! A client shows its token with every request, so an address by which it would cross a network in the clear is refused.

use toolkeep_core::net::origin::{HostName, Origin, Scheme};

use crate::cli::failure::Failure;
use crate::daemon::http::config::{HttpConfig, Listen};

/// The path of MCP on the door.
const PATH: &str = "/mcp";

/// The address of the door that the configuration opens: under its first name, where it has names.
///
/// # Errors
/// There is none, or it is no address that a client could write.
pub(super) fn of(http: Option<&HttpConfig>) -> Result<String, Failure> {
    const SAY: &str = "or say `--url URL`";
    let Some(http) = http else {
        return Err(Failure::usage("there is no `[http]`", format!("configure `http.listen`, {SAY}")));
    };
    let address = match http.listen {
        Listen::Tcp(address) => Some(address),
        Listen::Unix(_) => None,
    };
    if address.is_some_and(|address| address.port() == 0) {
        let hint = format!("write one into `http.listen`, {SAY} with the one in the daemon's log");
        return Err(Failure::usage("`http.listen` leaves the port to the system", hint));
    }
    match (http.hosts.first(), address) {
        // A port in the name is what clients write; without TLS here the name is that of a proxy, which has its own.
        (Some(name), Some(address)) if http.tls.is_some() && name.port_u16().is_none() => {
            Ok(format!("https://{}{}{PATH}", name.host(), port(address.port())))
        }
        (Some(name), _) => Ok(format!("https://{name}{PATH}")),
        (None, Some(address)) if http.tls.is_some() => Ok(format!("https://{address}{PATH}")),
        (None, Some(address)) => Ok(format!("http://{address}{PATH}")),
        (None, None) => Err(Failure::usage(
            "`http.listen` is a Unix socket, which these clients cannot reach",
            format!("name the proxy in `http.hosts`, {SAY}"),
        )),
    }
}

/// A port as a URL has it: nothing where it is that of the scheme.
fn port(port: u16) -> String {
    if port == Scheme::Https.default_port() { String::new() } else { format!(":{port}") }
}

/// An address that somebody wrote.
///
/// # Errors
/// It is no address, or a token would cross a network in the clear.
pub(super) fn checked(url: &str) -> Result<String, Failure> {
    const RIGHT: &str = "write `https://keep.example.com/mcp`";
    let (origin, _) =
        Origin::split_url(url).map_err(|error| Failure::usage(format!("`{url}` is no address: {error}"), RIGHT))?;
    let here = match origin.host() {
        HostName::Domain(name) => name == "localhost",
        HostName::Address(address) => address.is_loopback(),
    };
    if origin.scheme() == Scheme::Http && !here {
        let problem = format!("`{url}` is another machine, which would be shown the token in the clear");
        return Err(Failure::usage(problem, RIGHT));
    }
    Ok(url.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::http::config::TlsConfig;

    fn door(listen: &str, hosts: &[&str], tls: bool) -> HttpConfig {
        let listen = match listen.strip_prefix("unix:") {
            Some(path) => Listen::Unix(path.into()),
            None => Listen::Tcp(listen.parse().expect("address")),
        };
        let hosts = hosts.iter().map(|host| host.parse().expect("host")).collect();
        let files = TlsConfig { certificate: "/c".into(), key: "/k".into(), client_ca: None };
        let tls = tls.then_some(files);
        HttpConfig { listen, hosts, origins: Vec::new(), metrics_token: true, group: None, tls }
    }

    #[test]
    fn r51_the_address_is_the_one_that_clients_can_reach_and_believe() {
        for (listen, hosts, tls, expected) in [
            ("127.0.0.1:9464", &[][..], false, "http://127.0.0.1:9464/mcp"),
            ("[::1]:9464", &[], false, "http://[::1]:9464/mcp"),
            ("127.0.0.1:9464", &["keep.example.com"], false, "https://keep.example.com/mcp"),
            ("unix:/run/h", &["keep.example.com:8443"], false, "https://keep.example.com:8443/mcp"),
            ("192.0.2.1:9464", &[], true, "https://192.0.2.1:9464/mcp"),
            ("0.0.0.0:9464", &["keep.example.com", "b.example"], true, "https://keep.example.com:9464/mcp"),
            ("0.0.0.0:443", &["keep.example.com"], true, "https://keep.example.com/mcp"),
            ("0.0.0.0:9464", &["keep.example.com:8443"], true, "https://keep.example.com:8443/mcp"),
        ] {
            assert_eq!(of(Some(&door(listen, hosts, tls))).expect(listen), expected);
        }
        for unknown in [None, Some(door("127.0.0.1:0", &[], true)), Some(door("unix:/run/h", &[], false))] {
            let refused = of(unknown.as_ref()).expect_err("no address");
            assert!(refused.hint().is_some_and(|hint| hint.contains("--url")), "{refused}");
        }
    }

    #[test]
    fn no_token_is_sent_in_the_clear_to_another_machine() {
        for fine in
            ["https://keep.example.com/mcp", "http://127.0.0.1:1/mcp", "http://[::1]:1/mcp", "http://localhost/"]
        {
            assert_eq!(checked(fine).expect(fine), fine);
        }
        for wrong in
            ["http://keep.example.com/mcp", "http://192.0.2.1/", "keep.example.com", "ftp://a/", "", "https://"]
        {
            assert!(checked(wrong).is_err(), "{wrong}");
        }
    }
}
