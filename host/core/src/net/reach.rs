//! Which addresses a request may reach: the special-purpose registries of IANA as one pure function.
//!
//! Only global addresses are reached. Loopback and private ones are for hosts that a grant names and marks, link-local
//! ones (where clouds keep the credentials of a machine) only where the grant spells the very address, the rest never.
//! An IPv6 form that carries an IPv4 address is as bad as the worse of the two. Newer assignments that the
//! registries call global but that no web server has (relays, anycast of protocols) are refused as well.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::origin::HostName;

/// How far away an address is; later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reach {
    /// The public network.
    Global,
    /// This machine.
    Loopback,
    /// A private network: RFC 1918, RFC 6598, unique local addresses, local NAT64.
    Private,
    /// The link, where metadata services answer without asking who calls, and the metadata addresses elsewhere.
    Link,
    /// Nothing that a request can mean: multicast, reserved, documentation, tunnels, unassigned.
    Never,
}

/// What an address belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// How far away it is.
    pub reach: Reach,
    /// The network in the words of the registry.
    pub network: &'static str,
}

impl Place {
    const GLOBAL: Self = Self { reach: Reach::Global, network: "global" };

    fn worse(self, other: Self) -> Self {
        if other.reach > self.reach { other } else { self }
    }
}

/// Whether grants of private networks are in force for a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// Global addresses only.
    #[default]
    Global,
    /// Loopback and private addresses too: the grant of this host says `allow_private`.
    Private,
}

const fn v4(a: u8, b: u8, c: u8, d: u8) -> u32 {
    u32::from_be_bytes([a, b, c, d])
}

/// IANA IPv4 Special-Purpose Address Registry, multicast, and the metadata addresses of clouds; first match counts.
const V4: &[(u32, u32, Reach, &str)] = &[
    (v4(168, 63, 129, 16), 32, Reach::Link, "cloud metadata"),
    (v4(100, 100, 100, 200), 32, Reach::Link, "cloud metadata"),
    (v4(192, 0, 0, 192), 32, Reach::Link, "cloud metadata"),
    (v4(0, 0, 0, 0), 8, Reach::Never, "this network"),
    (v4(10, 0, 0, 0), 8, Reach::Private, "private"),
    (v4(100, 64, 0, 0), 10, Reach::Private, "shared address space"),
    (v4(127, 0, 0, 0), 8, Reach::Loopback, "loopback"),
    (v4(169, 254, 0, 0), 16, Reach::Link, "link-local"),
    (v4(172, 16, 0, 0), 12, Reach::Private, "private"),
    (v4(192, 0, 0, 0), 24, Reach::Never, "protocol assignments"),
    (v4(192, 0, 2, 0), 24, Reach::Never, "documentation"),
    (v4(192, 31, 196, 0), 24, Reach::Never, "AS112"),
    (v4(192, 52, 193, 0), 24, Reach::Never, "AMT"),
    (v4(192, 88, 99, 0), 24, Reach::Never, "6to4 relay anycast"),
    (v4(192, 168, 0, 0), 16, Reach::Private, "private"),
    (v4(192, 175, 48, 0), 24, Reach::Never, "AS112"),
    (v4(198, 18, 0, 0), 15, Reach::Never, "benchmarking"),
    (v4(198, 51, 100, 0), 24, Reach::Never, "documentation"),
    (v4(203, 0, 113, 0), 24, Reach::Never, "documentation"),
    (v4(224, 0, 0, 0), 4, Reach::Never, "multicast"),
    (v4(240, 0, 0, 0), 4, Reach::Never, "reserved"),
];

/// IANA IPv6 Special-Purpose Address Registry and the metadata addresses of clouds: first 64 bits, last 64 bits, length
/// of the prefix; first match counts.
const V6: &[(u64, u64, u32, Reach, &str)] = &[
    (0xfd00_0ec2_0000_0000, 0x0254, 128, Reach::Link, "cloud metadata"),
    (0xfd00_0ec2_0000_0000, 0x0023, 128, Reach::Link, "cloud metadata"),
    (0xfd20_00ce_0000_0000, 0x0254, 128, Reach::Link, "cloud metadata"),
    (0xfd00_0042_0000_0000, 0x0042, 128, Reach::Link, "cloud metadata"),
    (0, 1, 128, Reach::Loopback, "loopback"),
    (0x0064_ff9b_0001_0000, 0, 48, Reach::Private, "local NAT64"),
    (0x0064_ff9b_0000_0000, 0, 96, Reach::Global, "NAT64"),
    (0x2001_0000_0000_0000, 0, 23, Reach::Never, "protocol assignments"),
    (0x2001_0db8_0000_0000, 0, 32, Reach::Never, "documentation"),
    (0x2002_0000_0000_0000, 0, 16, Reach::Never, "6to4"),
    (0x2620_004f_8000_0000, 0, 48, Reach::Never, "AS112"),
    (0x3fff_0000_0000_0000, 0, 20, Reach::Never, "documentation"),
    (0x2000_0000_0000_0000, 0, 3, Reach::Global, "global"),
    (0xfc00_0000_0000_0000, 0, 7, Reach::Private, "unique local"),
    (0xfe80_0000_0000_0000, 0, 10, Reach::Link, "link-local"),
    (0xff00_0000_0000_0000, 0, 8, Reach::Never, "multicast"),
];

/// Where an address leads.
#[must_use]
pub fn reach(address: IpAddr) -> Place {
    match address {
        IpAddr::V4(address) => reach_v4(address),
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            // A connection to a mapped address is one over IPv4.
            Some(mapped) => reach_v4(mapped),
            None => embedded(address).into_iter().map(reach_v4).fold(reach_v6(address), Place::worse),
        },
    }
}

fn reach_v4(address: Ipv4Addr) -> Place {
    let bits = u32::from(address);
    let found = V4.iter().find(|(network, length, ..)| (bits ^ network) >> (32 - length) == 0);
    found.map_or(Place::GLOBAL, |(_, _, reach, network)| Place { reach: *reach, network })
}

fn reach_v6(address: Ipv6Addr) -> Place {
    let bits = u128::from(address);
    let found = V6.iter().find(|(high, low, length, ..)| {
        let network = u128::from(*high) << 64 | u128::from(*low);
        (bits ^ network) >> (128 - length) == 0
    });
    let unassigned = Place { reach: Reach::Never, network: "unassigned" };
    found.map_or(unassigned, |(_, _, _, reach, network)| Place { reach: *reach, network })
}

/// The IPv4 addresses that an IPv6 address carries by one of the transition mechanisms.
fn embedded(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let pair = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let mut found = Vec::new();
    match [a, b, c, d, e, f] {
        // IPv4-compatible (RFC 4291, 2.5.5.1), but for `::` and `::1`; translated (RFC 2765); NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0] if g != 0 || h > 1 => found.push(pair(g, h)),
        [0, 0, 0, 0, 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0] => found.push(pair(g, h)),
        // Local NAT64 (RFC 8215) with a prefix of 48 bits, around the reserved byte, and of 96.
        [0x64, 0xff9b, 1, _, _, _] => found.extend([pair(d, (e & 0xff) << 8 | f >> 8), pair(g, h)]),
        // 6to4 (RFC 3056).
        [0x2002, high, low, ..] => found.push(pair(high, low)),
        // Teredo (RFC 4380): the server, and the client with its bits inverted.
        [0x2001, 0, high, low, _, _] => found.extend([pair(high, low), pair(!g, !h)]),
        _ => {}
    }
    // ISATAP (RFC 5214): an interface identifier under any prefix.
    if e & !0x0200 == 0 && f == 0x5efe {
        found.push(pair(g, h));
    }
    found
}

/// Why an address is not reached.
///
/// The text names the network and not the address, because tools read it: where a name leads inside of a private network
/// is not theirs to know.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{host}` leads to an address that is not reached ({network}){}", if *.grantable { "; a grant of this host can say `allow_private`" } else { "" })]
pub struct OutOfReach {
    /// The host that was asked for.
    pub host: String,
    /// The network of the address.
    pub network: &'static str,
    /// Whether `allow_private` in the grant would change it.
    pub grantable: bool,
    /// The address, for the operator's log.
    pub address: IpAddr,
}

/// Whether a request for `host` may connect to `address`, one of the answers for it. Gives the address to connect to,
/// with mapped IPv4 addresses unwrapped.
///
/// # Errors
/// It may not; then no other answer for the host may be used either.
pub fn admit(host: &HostName, address: IpAddr, network: Network) -> Result<IpAddr, OutOfReach> {
    let place = reach(address);
    let literal = host.address().is_some_and(|literal| literal.to_canonical() == address.to_canonical());
    let marked = network == Network::Private;
    let (open, grantable) = match place.reach {
        Reach::Global => (true, false),
        Reach::Loopback | Reach::Private => (marked, true),
        Reach::Link => (marked && literal, literal),
        Reach::Never => (false, false),
    };
    if host.address().is_some() && !literal {
        let network = "not the address that the grant spells";
        return Err(OutOfReach { host: host.to_string(), network, grantable: false, address });
    }
    if open {
        Ok(address.to_canonical())
    } else {
        let grantable = grantable && !marked;
        Err(OutOfReach { host: host.to_string(), network: place.network, grantable, address })
    }
}

#[cfg(test)]
mod tests;
