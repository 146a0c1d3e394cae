//! Attack: asks for sockets and names, which it does not get.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;
use wasip2::sockets::network::{ErrorCode, IpAddressFamily};
use wasip2::sockets::tcp_create_socket::create_tcp_socket;
use wasip2::sockets::udp_create_socket::create_udp_socket;

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

fn said(answer: Result<(), ErrorCode>) -> String {
    answer.map_or_else(|code| format!("{code:?}"), |()| "done".to_owned())
}

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        let tcp = create_tcp_socket(IpAddressFamily::Ipv4).map(drop);
        let udp = create_udp_socket(IpAddressFamily::Ipv4).map(drop);
        let name = resolve_addresses(&instance_network(), "localhost").and_then(|answers| {
            answers.subscribe().block();
            answers.resolve_next_address().map(drop)
        });
        Ok(format!("[{:?},{:?},{:?}]", said(tcp), said(udp), said(name)))
    }
}

export!(Attack);
