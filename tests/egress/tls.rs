//! TLS: whose certificate is believed, for which host.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use toolkeep::egress::{Answer, Egress, EgressConfig, Endpoint, Limits, Protection, Reason, Script};
use toolkeep_core::net::origin::HostName;
use toolkeep_core::net::reach::Network;
use toolkeep_tests::support::scratch::Scratch;

use super::world::{get, not_sent, send, with};

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("egress/testdata").join(name)
}

/// A server with this certificate that answers every request; its port.
async fn server(certificate: &str) -> u16 {
    let certificates = CertificateDer::pem_file_iter(testdata(certificate)).expect("file").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(testdata("server.key")).expect("key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certificates.expect("certificates"), key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut stream = acceptor.accept(stream).await?;
                let name = stream.get_ref().1.server_name().unwrap_or("none").to_owned();
                let mut request = [0; 4096];
                let read = stream.read(&mut request).await?;
                let hello = if read == 0 { "" } else { &name };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{hello}", hello.len());
                stream.write_all(answer.as_bytes()).await?;
                stream.shutdown().await
            });
        }
    });
    port
}

/// An egress that knows these names, with or without the authority of the tests.
fn egress(ca_file: Option<PathBuf>) -> Egress {
    let here = Answer::Addresses(vec!["127.0.0.1".parse().expect("an address")]);
    let names = ["api.test", "other.test", "one.wild.test", "two.one.wild.test"];
    let script = Script::new(names.map(|name| (name.to_owned(), vec![here.clone()])));
    with(Arc::new(script), &EgressConfig { ca_file })
}

fn trusting() -> Egress {
    egress(Some(testdata("authority.pem")))
}

#[tokio::test]
async fn the_operators_authority_is_believed_for_the_hosts_of_its_certificates() {
    let port = server("server.pem").await;
    for (host, name) in [("api.test", "api.test"), ("one.wild.test", "one.wild.test"), ("127.0.0.1", "none")] {
        let answer = send(&trusting(), get(&format!("https://{host}:{port}"))).await.expect(host);
        assert_eq!(&answer.body[..], name.as_bytes(), "the name that is sent in the clear");
    }
}

#[tokio::test]
async fn what_is_not_certified_is_not_spoken_to() {
    let (good, expired, alone) = (server("server.pem").await, server("expired.pem").await, server("alone.pem").await);
    for (egress, host, port, why) in [
        (egress(None), "api.test", good, "UnknownIssuer"),
        (trusting(), "other.test", good, "not valid for name"),
        (trusting(), "two.one.wild.test", good, "not valid for name"),
        (trusting(), "api.test", expired, "expired"),
        (trusting(), "api.test", alone, "UnknownIssuer"),
    ] {
        let reason = not_sent(&egress, get(&format!("https://{host}:{port}")), Limits::default()).await;
        match &reason {
            Reason::Tls(text) => assert!(text.contains(why), "{host}: {text}"),
            other => panic!("{host}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_server_without_tls_is_not_spoken_to() {
    let plain = super::peer::Peer::connected(|stream, _| {
        use std::io::Write;
        let _gone = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let origin = format!("https://api.test:{}", plain.address().port());
    let reason = not_sent(&trusting(), get(&origin), Limits::default()).await;
    assert!(matches!(reason, Reason::Tls(_)), "{reason:?}");
}

#[tokio::test]
async fn a_stream_for_something_else_goes_through_the_same_guard() {
    let port = server("server.pem").await;
    let endpoint = |host: &str, network| {
        let host = HostName::parse(host).expect("a host");
        Endpoint { host, port, protection: Protection::Tls, network }
    };
    let mut stream =
        trusting().connect(&endpoint("api.test", Network::Private), &Limits::default()).await.expect("a stream");
    assert_eq!(stream.peer().port(), port);
    stream.write_all(b"EHLO x\r\n").await.expect("write");
    let mut greeting = String::new();
    stream.read_to_string(&mut greeting).await.expect("read");
    assert!(greeting.ends_with("api.test"), "{greeting}");
    let refused = trusting().connect(&endpoint("api.test", Network::Global), &Limits::default()).await;
    assert!(matches!(refused.expect_err("private").reason(), Reason::OutOfReach(_)));
    let wrong = trusting().connect(&endpoint("other.test", Network::Private), &Limits::default()).await;
    assert!(matches!(wrong.expect_err("another name").reason(), Reason::Tls(_)));
}

#[test]
fn a_file_of_certificates_that_has_none_stops_the_start() {
    let scratch = Scratch::new();
    scratch.put("empty.pem", b"");
    scratch.put("text.pem", b"hello");
    scratch.put("broken.pem", b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    scratch.put("large.pem", &vec![b'#'; 1024 * 1024 + 1]);
    for name in ["missing.pem", "empty.pem", "text.pem", "broken.pem", "large.pem"] {
        let config = EgressConfig { ca_file: Some(scratch.path().join(name)) };
        let secrets = toolkeep::secrets::Secrets::new(Default::default(), toolkeep::ambient::Ambient::real());
        let refused = Egress::new(&config, toolkeep::egress::Resolver::system(), secrets);
        assert!(refused.expect_err(name).to_string().contains("`egress.ca_file`"), "{name}");
    }
}
