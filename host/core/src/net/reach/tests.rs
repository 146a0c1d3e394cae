//! The registries at the edges of every network (T-N2).

use super::*;

fn at(text: &str) -> Reach {
    reach(text.parse().expect(text)).reach
}

#[test]
fn t_n2_every_network_ends_where_the_registry_ends_it() {
    use Reach::{Global, Link, Loopback, Never, Private};
    for (first, last, inside, before, after) in [
        ("0.0.0.0", "0.255.255.255", Never, None, Some(("1.0.0.0", Global))),
        ("10.0.0.0", "10.255.255.255", Private, Some(("9.255.255.255", Global)), Some(("11.0.0.0", Global))),
        ("100.64.0.0", "100.127.255.255", Private, Some(("100.63.255.255", Global)), Some(("100.128.0.0", Global))),
        ("127.0.0.0", "127.255.255.255", Loopback, Some(("126.255.255.255", Global)), Some(("128.0.0.0", Global))),
        ("169.254.0.0", "169.254.255.255", Link, Some(("169.253.255.255", Global)), Some(("169.255.0.0", Global))),
        ("172.16.0.0", "172.31.255.255", Private, Some(("172.15.255.255", Global)), Some(("172.32.0.0", Global))),
        ("192.0.0.0", "192.0.0.255", Never, Some(("191.255.255.255", Global)), Some(("192.0.1.0", Global))),
        ("192.0.2.0", "192.0.2.255", Never, Some(("192.0.1.255", Global)), Some(("192.0.3.0", Global))),
        ("192.31.196.0", "192.31.196.255", Never, Some(("192.31.195.255", Global)), Some(("192.31.197.0", Global))),
        ("192.52.193.0", "192.52.193.255", Never, Some(("192.52.192.255", Global)), Some(("192.52.194.0", Global))),
        ("192.88.99.0", "192.88.99.255", Never, Some(("192.88.98.255", Global)), Some(("192.88.100.0", Global))),
        ("192.168.0.0", "192.168.255.255", Private, Some(("192.167.255.255", Global)), Some(("192.169.0.0", Global))),
        ("192.175.48.0", "192.175.48.255", Never, Some(("192.175.47.255", Global)), Some(("192.175.49.0", Global))),
        ("198.18.0.0", "198.19.255.255", Never, Some(("198.17.255.255", Global)), Some(("198.20.0.0", Global))),
        ("198.51.100.0", "198.51.100.255", Never, Some(("198.51.99.255", Global)), Some(("198.51.101.0", Global))),
        ("203.0.113.0", "203.0.113.255", Never, Some(("203.0.112.255", Global)), Some(("203.0.114.0", Global))),
        ("224.0.0.0", "255.255.255.255", Never, Some(("223.255.255.255", Global)), None),
        ("::", "::", Never, None, Some(("::1", Loopback))),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", Never, None, Some(("64:ff9b:2::", Never))),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", Never, None, Some(("2001:200::", Global))),
        (
            "2001:db8::",
            "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff",
            Never,
            Some(("2001:db7::", Global)),
            Some(("2001:db9::", Global)),
        ),
        (
            "2002::",
            "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Never,
            Some(("2001:ffff::", Global)),
            Some(("2003::", Global)),
        ),
        (
            "2620:4f:8000::",
            "2620:4f:8000:ffff:ffff:ffff:ffff:ffff",
            Never,
            Some(("2620:4f:7fff::", Global)),
            Some(("2620:4f:8001::", Global)),
        ),
        (
            "3fff::",
            "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff",
            Never,
            Some(("3ffe:ffff::", Global)),
            Some(("3fff:1000::", Global)),
        ),
        (
            "4000::",
            "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
            Never,
            Some(("3fff:1000::", Global)),
            Some(("fc00::", Private)),
        ),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Private, None, Some(("fe00::", Never))),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Link, Some(("fe7f::", Never)), Some(("fec0::", Never))),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Never, Some(("feff::", Never)), None),
        ("100::", "100::ffff:ffff:ffff:ffff", Never, None, None),
        ("5f00::", "5f00:ffff::", Never, None, None),
    ] {
        assert_eq!((at(first), at(last)), (inside, inside), "{first} to {last}");
        for (neighbour, wanted) in before.into_iter().chain(after) {
            assert_eq!(at(neighbour), wanted, "{neighbour}");
        }
    }
}

#[test]
fn t_n2_metadata_addresses_are_on_the_link_wherever_they_lie() {
    for text in [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "100.100.100.200",
        "192.0.0.192",
        "168.63.129.16",
        "fd00:ec2::254",
        "fd00:ec2::23",
        "fd20:ce::254",
        "fd00:42::42",
        "fe80::a9fe:a9fe",
        "::ffff:169.254.169.254",
        "64:ff9b::169.254.169.254",
    ] {
        assert_eq!(at(text), Reach::Link, "{text}");
    }
}

/// Every way to carry an IPv4 address in an IPv6 address.
fn carriers(inner: Ipv4Addr) -> Vec<(&'static str, Ipv6Addr)> {
    let bits = u128::from(u32::from(inner));
    let [a, b, c, d] = inner.octets().map(u128::from);
    let of = |high: u128, low: u128| Ipv6Addr::from(high << 64 | low);
    vec![
        ("mapped", of(0, 0xffff << 32 | bits)),
        ("compatible", of(0, bits)),
        ("translated", of(0, 0xffff << 48 | bits)),
        ("NAT64", of(0x0064_ff9b_0000_0000, bits)),
        ("local NAT64, 96", of(0x0064_ff9b_0001_0000, bits)),
        ("local NAT64, 48", of(0x0064_ff9b_0001_0000 | a << 8 | b, c << 48 | d << 40)),
        ("6to4", of(0x2002_0000_0000_0000 | bits << 16, 1)),
        ("Teredo client", of(0x2001_0000_0808_0808, u128::from(!u32::from(inner)))),
        ("Teredo server", of(0x2001_0000_0000_0000 | bits, 0)),
        ("ISATAP, local", of(0x2600_0000_0000_0000, 0x0000_5efe << 32 | bits)),
        ("ISATAP, global", of(0x2600_0000_0000_0000, 0x0200_5efe << 32 | bits)),
    ]
}

#[test]
fn t_n2_an_address_inside_of_another_is_found_and_the_worse_of_both_counts() {
    for inner in ["127.0.0.1", "10.1.2.3", "169.254.169.254", "192.168.0.1", "0.0.0.0", "224.0.0.1", "100.64.0.1"] {
        let inner: Ipv4Addr = inner.parse().expect(inner);
        for (how, carrier) in carriers(inner) {
            let (outside, inside) = (reach(carrier.into()).reach, reach(inner.into()).reach);
            assert!(outside >= inside, "{how} {carrier}: {outside:?} hides {inside:?}");
            let named = HostName::Domain("a.example".to_owned());
            assert!(admit(&named, carrier.into(), Network::Global).is_err(), "{how} {carrier}");
        }
    }
    let public: Ipv4Addr = "8.8.8.8".parse().expect("address");
    let open: Vec<&str> = carriers(public)
        .into_iter()
        .filter(|(_, c)| reach((*c).into()).reach == Reach::Global)
        .map(|(how, _)| how)
        .collect();
    assert_eq!(open, ["mapped", "NAT64", "ISATAP, local", "ISATAP, global"]);
}

#[test]
fn a_grant_opens_what_it_names_and_nothing_worse() {
    let name = HostName::Domain("a.example".to_owned());
    let address = |text: &str| text.parse::<IpAddr>().expect(text);
    let literal = |text: &str| HostName::Address(address(text));
    for (host, to, global, private) in [
        (name.clone(), "8.8.8.8", true, true),
        (name.clone(), "127.0.0.1", false, true),
        (name.clone(), "::1", false, true),
        (name.clone(), "10.0.0.1", false, true),
        (name.clone(), "fd00::1", false, true),
        (name.clone(), "169.254.169.254", false, false),
        (name.clone(), "fd00:ec2::254", false, false),
        (name.clone(), "224.0.0.1", false, false),
        (name.clone(), "::ffff:127.0.0.1", false, true),
        (literal("127.0.0.1"), "127.0.0.1", false, true),
        (literal("::ffff:127.0.0.1"), "127.0.0.1", false, true),
        (literal("169.254.169.254"), "169.254.169.254", false, true),
        (literal("fe80::1"), "fe80::1", false, true),
        (literal("0.0.0.0"), "0.0.0.0", false, false),
        (literal("8.8.8.8"), "8.8.8.8", true, true),
        (literal("8.8.8.8"), "8.8.4.4", false, false),
        (literal("169.254.169.254"), "169.254.170.2", false, false),
    ] {
        let open = |network| admit(&host, address(to), network).is_ok();
        assert_eq!((open(Network::Global), open(Network::Private)), (global, private), "{host} at {to}");
    }
    assert_eq!(admit(&name, address("::ffff:8.8.8.8"), Network::Global), Ok(address("8.8.8.8")));
}

#[test]
fn a_refusal_names_the_network_and_never_the_address() {
    let name = HostName::Domain("intranet.example".to_owned());
    let refused = admit(&name, "10.1.2.3".parse().expect("address"), Network::Global).expect_err("private");
    assert_eq!(
        refused.to_string(),
        "`intranet.example` leads to an address that is not reached (private); a grant of this host can say `allow_private`"
    );
    let refused = admit(&name, "169.254.1.1".parse().expect("address"), Network::Private).expect_err("link");
    assert_eq!(refused.to_string(), "`intranet.example` leads to an address that is not reached (link-local)");
}

proptest::proptest! {
    #[test]
    fn t_n2_no_carrier_hides_where_it_leads(bits: u32) {
        let inner = Ipv4Addr::from(bits);
        for (how, carrier) in carriers(inner) {
            proptest::prop_assert!(reach(carrier.into()).reach >= reach(inner.into()).reach, "{} {}", how, carrier);
        }
    }
}
