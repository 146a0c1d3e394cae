//! G10: generated ways to an address that must not be reached, against listeners that would notice.
//!
//! On loopback a listener on every local address is the canary. Where the kernel lets us make a network of our own, the same
//! cases run again inside of it, and there every address of the world is local, so that any connection anywhere is noticed.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use toolkeep::egress::{Answer, Egress, EgressConfig, Limits, Outgoing, Reason, Script, SendError};
use toolkeep_core::net::origin::Origin;
use toolkeep_core::net::reach::Network;
use toolkeep_tests::support::proof::told;

use super::world::{get, with};

/// What G10 promises at least.
const CASES_MIN: usize = 1_500;
/// Says that this process is the one inside of the network of its own.
const INSIDE: &str = "TOOLKEEP_TEST_NETWORK";
/// Makes every address local, then runs this test again.
const ENTER: &str = "ip link set lo up && ip route add local 0.0.0.0/0 dev lo && ip -6 route add local ::/0 dev lo && exec \"$0\" \"$@\"";

/// Networks that are never reached without a grant, written down apart from the table that is tested.
const V4: &[(&str, &str)] = &[
    ("0.0.0.0", "0.255.255.255"),
    ("10.0.0.0", "10.255.255.255"),
    ("100.64.0.0", "100.127.255.255"),
    ("127.0.0.0", "127.255.255.255"),
    ("169.254.0.0", "169.254.255.255"),
    ("172.16.0.0", "172.31.255.255"),
    ("192.0.0.0", "192.0.0.255"),
    ("192.0.2.0", "192.0.2.255"),
    ("192.88.99.0", "192.88.99.255"),
    ("192.168.0.0", "192.168.255.255"),
    ("198.18.0.0", "198.19.255.255"),
    ("198.51.100.0", "198.51.100.255"),
    ("203.0.113.0", "203.0.113.255"),
    ("224.0.0.0", "239.255.255.255"),
    ("240.0.0.0", "255.255.255.255"),
];
/// Single addresses that matter.
const SINGLE: &[&str] = &[
    "127.0.0.1",
    "127.1.2.3",
    "169.254.169.254",
    "169.254.170.2",
    "100.100.100.200",
    "168.63.129.16",
    "192.0.0.192",
    "10.96.0.1",
    "172.17.0.1",
    "192.168.1.1",
];
/// The same for IPv6.
const V6: &[&str] = &[
    "::",
    "::1",
    "::2",
    "64:ff9b:1::1",
    "100::1",
    "2001::1",
    "2001:10::1",
    "2001:20::1",
    "2001:db8::1",
    "2002::1",
    "2002:7f00:1::",
    "3fff::1",
    "5f00::1",
    "fc00::1",
    "fd00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::a9fe:a9fe",
    "fec0::1",
    "ff02::1",
    "ff05::2",
    "4000::1",
    "::ffff:0:127.0.0.1",
    "2620:4f:8000::1",
];

/// IPv4 addresses: the ends and the middle of each network, and the single ones.
fn forbidden() -> Vec<Ipv4Addr> {
    let number = |text: &str| u32::from(text.parse::<Ipv4Addr>().expect(text));
    let ends = V4.iter().flat_map(|(first, last)| {
        let (first, last) = (number(first), number(last));
        [first, first + 1, first + (last - first) / 2, last - 1, last]
    });
    ends.chain(SINGLE.iter().map(|text| number(text))).map(Ipv4Addr::from).collect()
}

/// Spellings of an IPv4 address as the host of a URL.
fn spellings(address: Ipv4Addr) -> Vec<String> {
    let number = u32::from(address);
    let [a, b, c, d] = address.octets();
    let dotted = address.to_string();
    let wide = |text: &str, zero: u32| -> String {
        text.chars().map(|c| c.to_digit(10).and_then(|n| char::from_u32(zero + n)).unwrap_or(c)).collect()
    };
    vec![
        dotted.clone(),
        format!("{dotted}."),
        number.to_string(),
        format!("{number:#x}"),
        format!("0{number:o}"),
        format!("{a:#x}.{b:#x}.{c:#x}.{d:#x}"),
        format!("0{a:o}.0{b:o}.0{c:o}.0{d:o}"),
        format!("000000{a:o}.{b}.{c:#X}.{d}"),
        format!("{a}.{}", number & 0x00ff_ffff),
        format!("{a}.{b}.{}", number & 0xffff),
        dotted.bytes().map(|byte| format!("%{byte:02x}")).collect(),
        dotted.replace('.', "%2E"),
        wide(&dotted, 0xff10),
        dotted.replace('.', "\u{3002}"),
        wide(&dotted, 0xff10).replace('.', "\u{ff0e}"),
        dotted.replacen('1', "\u{2460}", 1),
        format!("[::ffff:{dotted}]"),
        format!("[::ffff:{:x}:{:x}]", number >> 16, number & 0xffff),
        format!("[0:0:0:0:0:FFFF:{:x}:{:x}]", number >> 16, number & 0xffff),
        format!("[::{dotted}]"),
        format!("user@{dotted}"),
        format!("8.8.8.8@{dotted}"),
        format!("{dotted}%00.example.com"),
        format!("[fe80::1%25lo]"),
    ]
}

/// Addresses that a resolver may give for an IPv4 address: itself, and every IPv6 form that carries it.
fn answers(address: Ipv4Addr) -> Vec<IpAddr> {
    let bits = u128::from(u32::from(address));
    let [a, b, c, d] = address.octets().map(u128::from);
    let of = |high: u128, low: u128| IpAddr::V6(Ipv6Addr::from(high << 64 | low));
    vec![
        address.into(),
        of(0, 0xffff << 32 | bits),
        of(0, bits),
        of(0, 0xffff << 48 | bits),
        of(0x0064_ff9b_0000_0000, bits),
        of(0x0064_ff9b_0001_0000, bits),
        of(0x0064_ff9b_0001_0000 | a << 8 | b, c << 48 | d << 40),
        of(0x2002_0000_0000_0000 | bits << 16, 1),
        of(0x2001_0000_0808_0808, u128::from(!u32::from(address))),
        of(0x2600_0000_0000_0000, 0x0000_5efe << 32 | bits),
        of(0x2600_0000_0000_0000, 0x0200_5efe << 32 | bits),
    ]
}

/// Listeners on every local address, over both families where the machine has them.
struct Canary {
    port: u16,
    heard: Arc<AtomicUsize>,
}

impl Canary {
    fn new() -> Self {
        let four = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("bind");
        let port = four.local_addr().expect("address").port();
        let heard = Arc::new(AtomicUsize::new(0));
        // One socket of both families would collide with the first; without IPv6 there is nothing to hear over it.
        let six = TcpListener::bind((Ipv6Addr::LOCALHOST, port)).ok();
        for listener in [Some(four), six].into_iter().flatten() {
            let heard = Arc::clone(&heard);
            std::thread::spawn(move || {
                for stream in listener.incoming() {
                    heard.fetch_add(1, Ordering::SeqCst);
                    drop(stream);
                }
            });
        }
        Self { port, heard }
    }

    fn heard(&self) -> usize {
        self.heard.load(Ordering::SeqCst)
    }
}

/// An egress where `name.test` has the answers of one case after the other.
fn scripted(answers: Vec<Vec<IpAddr>>) -> Egress {
    let answers = answers.into_iter().map(Answer::Addresses).collect();
    with(Arc::new(Script::new([("name.test".to_owned(), answers)])), &EgressConfig::default())
}

/// Send; it must be refused by the guard.
async fn refused(egress: &Egress, origin: Origin, network: Network, what: &str) {
    let limits = Limits { connect: Duration::from_secs(2), ..Limits::default() };
    let request = Outgoing { origin, network, ..get("http://name.test") };
    match egress.send(request, limits).await {
        Err(SendError::NotSent(Reason::OutOfReach(_))) => {}
        other => panic!("{what}: {other:?}"),
    }
}

/// Every case; gives their number, and how many were texts that name no host.
async fn run(port: u16) -> (usize, usize) {
    let (mut cases, mut texts) = (0, 0);
    let everything = scripted(Vec::new());
    for host in forbidden().into_iter().flat_map(spellings).chain(V6.iter().map(|text| format!("[{text}]"))) {
        for scheme in ["http", "https"] {
            // Refused as a text, or as an address; never anything else.
            match format!("{scheme}://{host}:{port}").parse::<Origin>() {
                Ok(origin) => refused(&everything, origin, Network::Global, &host).await,
                Err(_) => texts += 1,
            }
            cases += 1;
        }
    }
    let named: Origin = format!("http://name.test:{port}").parse().expect("an origin");
    let global: IpAddr = "8.8.8.8".parse().expect("an address");
    let six = V6.iter().map(|text| text.parse::<IpAddr>().expect(text));
    for answer in forbidden().into_iter().flat_map(answers).chain(six) {
        // Alone, before and after a good one, and after another bad one for the same name.
        let script = vec![vec![answer], vec![answer, global], vec![global, answer], vec![answer]];
        let rebound = scripted(script);
        for _ in 0..4 {
            refused(&rebound, named.clone(), Network::Global, &answer.to_string()).await;
            cases += 1;
        }
    }
    // What not even a grant of private networks opens to a name.
    for answer in
        ["169.254.169.254", "169.254.170.2", "fd00:ec2::254", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "2002:7f00:1::"]
    {
        refused(&scripted(vec![vec![answer.parse().expect(answer)]]), named.clone(), Network::Private, answer).await;
        cases += 1;
    }
    (cases, texts)
}

/// In a network where every address is local: a control that the canary hears what the guard lets through.
async fn rebind_from_global_to_loopback(canary: &Canary) {
    let named: Origin = format!("http://name.test:{}", canary.port).parse().expect("an origin");
    let global: IpAddr = "8.8.8.8".parse().expect("an address");
    let egress = scripted(vec![vec![global], vec!["127.0.0.1".parse().expect("an address")]]);
    let request = Outgoing { origin: named.clone(), network: Network::Global, ..get("http://name.test") };
    let answer = egress.send(request, Limits::default()).await;
    let hung_up = matches!(answer, Err(SendError::Unknown(_) | SendError::NotSent(Reason::Closed)));
    assert!(hung_up, "the canary hangs up, before or after it was written to: {answer:?}");
    assert_eq!(canary.heard(), 1, "the canary hears what is let through");
    refused(&egress, named, Network::Global, "rebound").await;
    assert_eq!(canary.heard(), 1);
}

#[tokio::test]
async fn r49_t_n2_g10_no_generated_way_reaches_an_address_that_must_not_be_reached() {
    let canary = Canary::new();
    let (cases, texts) = run(canary.port).await;
    told("G10 addresses", cases, "connected to", &format!("{texts} of them refused as texts"));
    assert!(cases - texts >= CASES_MIN, "{cases} cases, {texts} texts");
    assert_eq!(canary.heard(), 0);
    if std::env::var_os(INSIDE).is_some() {
        rebind_from_global_to_loopback(&canary).await;
    }
}

#[test]
fn r49_t_n2_g10_the_same_holds_where_every_address_of_the_world_would_answer() {
    if std::env::var_os(INSIDE).is_some() {
        return;
    }
    let make_network = |arguments: &[&str]| {
        let mut command = Command::new("unshare");
        command.args(["-rn", "sh", "-c"]).args(arguments);
        command
    };
    let permitted = make_network(&[&ENTER.replace("exec \"$0\" \"$@\"", "true")]).output();
    if !permitted.is_ok_and(|output| output.status.success()) {
        println!("G10: no network of our own is permitted here; the cases ran on loopback only");
        return;
    }
    let program = std::env::current_exe().expect("this program");
    let name = "r49_t_n2_g10_no_generated_way_reaches_an_address_that_must_not_be_reached";
    let output =
        make_network(&[ENTER, program.to_str().expect("a path"), "--nocapture", name]).env(INSIDE, "1").output();
    let output = output.expect("run");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}{}", String::from_utf8_lossy(&output.stderr));
    println!("G10: the same again in a network where every address is local");
}
