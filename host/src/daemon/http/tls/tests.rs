//! TLS of the door from outside: what is spoken, what is closed at its limit, and what is refused before anything listens.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use tokio::io::AsyncWriteExt as _;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::{CHAIN_MAX, DoorTls, FILE_MAX_BYTES, News, Standing};
use crate::daemon::http::bounds::HttpBounds;
use crate::daemon::http::config::TlsConfig;
use crate::daemon::http::tests::{PATIENT, Running, SOON, rest, status};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A folder with copies of the fixtures, the keys for their owner alone.
pub(crate) struct Files {
    folder: PathBuf,
    certificate: &'static str,
}

impl Files {
    /// A certificate for `api.test`, `*.wild.test` and 127.0.0.1, and its key.
    pub(crate) fn good() -> Self {
        Self::of("server.pem")
    }

    /// Another certificate with the same key.
    pub(crate) fn of(certificate: &'static str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("toolkeep-tls-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("folder");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/egress/testdata");
        for entry in std::fs::read_dir(fixtures).expect("fixtures").flatten() {
            std::fs::copy(entry.path(), folder.join(entry.file_name())).expect("copied");
        }
        let files = Self { folder, certificate };
        files.mode("server.key", 0o600);
        files.mode("client.key", 0o600);
        files
    }

    pub(crate) fn mode(&self, name: &str, mode: u32) {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(self.path(name), mode).expect("mode");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).expect("written");
    }

    fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("text")
    }

    pub(crate) fn config(&self) -> TlsConfig {
        TlsConfig { certificate: self.path(self.certificate), key: self.path("server.key"), client_ca: None }
    }

    async fn open(&self, bounds: HttpBounds) -> (Running, Arc<DoorTls>) {
        self.open_as(self.config(), bounds).await
    }

    async fn open_as(&self, config: TlsConfig, bounds: HttpBounds) -> (Running, Arc<DoorTls>) {
        let tls = Arc::new(DoorTls::read(config.clone()).expect("TLS"));
        (Running::protected(bounds, Some((config, Arc::clone(&tls)))).await, tls)
    }

    /// A client that believes the test authority, of these versions, with a certificate of its own or without.
    fn client(&self, versions: &[&'static SupportedProtocolVersion], own: Option<(&str, &str)>) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.path("authority.pem")).expect("authority");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).expect("versions");
        let builder = builder.with_root_certificates(roots);
        match own {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let chain = vec![CertificateDer::from_pem_file(self.path(certificate)).expect("certificate")];
                let key = PrivateKeyDer::from_pem_file(self.path(key)).expect("key");
                builder.with_client_auth_cert(chain, key).expect("a certificate with its key")
            }
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.folder);
    }
}

async fn shake(door: &Running, client: ClientConfig) -> std::io::Result<TlsStream<tokio::net::TcpStream>> {
    let name = ServerName::try_from("127.0.0.1").expect("a name");
    TlsConnector::from(Arc::new(client)).connect(name, door.connect().await).await
}

/// One request under the door's own name, as a page of `origin`, and what comes back; nothing where the connection breaks.
async fn ask(door: &Running, client: ClientConfig, origin: &str) -> Option<String> {
    let mut stream = shake(door, client).await.ok()?;
    let head = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1:{}\r\norigin: {origin}\r\n", door.address.port());
    stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).await.ok()?;
    Some(rest(&mut stream).await).filter(|answer| !answer.is_empty())
}

#[tokio::test]
async fn t_i7_only_the_newest_version_is_spoken_and_the_door_is_its_own_origin() {
    let files = Files::good();
    let (door, _) = files.open(PATIENT).await;
    let own = format!("https://127.0.0.1:{}", door.address.port());
    let newest = || files.client(&[&version::TLS13], None);
    let answer = ask(&door, newest(), &own).await.expect("an answer");
    assert_eq!(status(&answer), 200, "{answer}");
    let plain = own.replace("https", "http");
    assert_eq!(ask(&door, newest(), &plain).await.map(|answer| status(&answer)), Some(403), "another origin");
    let older = shake(&door, files.client(&[&version::TLS12], None)).await.expect_err("refused");
    assert!(older.to_string().contains("ProtocolVersion"), "{older}");
    let mut packed = newest();
    packed.alpn_protocols = vec![b"h2".to_vec()];
    let other = shake(&door, packed).await.expect_err("refused");
    assert!(other.to_string().contains("NoApplicationProtocol"), "{other}");
    let mut named = newest();
    named.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let spoken = shake(&door, named).await.expect("a handshake");
    assert_eq!(spoken.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
}

#[tokio::test]
async fn what_is_no_handshake_is_answered_or_closed_and_never_waited_for() {
    let files = Files::good();
    let (door, _) = files.open(PATIENT).await;
    let port = door.address.port();
    let answer =
        door.say(&format!("POST /mcp HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-length: 5\r\n\r\nhello")).await;
    assert!(status(&answer) == 400 && answer.ends_with("write https:// before it.\n"), "{answer}");
    for noise in ["\u{16}\u{1}nonsense, and then some more of it", "\0\0\0\0\0\0\0\0", "get / http/1.1\r\n\r\n"] {
        let answer = door.say(noise).await;
        assert!(!answer.contains("HTTP"), "{noise:?}: {answer:?}");
    }
    assert!(ask(&door, files.client(&[&version::TLS13], None), &format!("https://127.0.0.1:{port}")).await.is_some());
}

#[tokio::test]
async fn t_n7_a_handshake_that_does_not_end_is_closed_at_its_time() {
    let files = Files::good();
    let (door, _) = files.open(HttpBounds { handshake: SOON, ..PATIENT }).await;
    assert_eq!(rest(&mut door.connect().await).await, "", "one that says nothing");
    let mut half = door.connect().await;
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.expect("sent");
    assert_eq!(rest(&mut half).await, "", "one that begins and does not go on");
    let mut plain = door.connect().await;
    plain.write_all(b"G").await.expect("sent");
    assert_eq!(status(&rest(&mut plain).await), 400, "one without TLS that does not go on");
}

#[tokio::test]
async fn t_n7_n_handshakes_are_under_way_and_the_next_is_closed_while_open_connections_go_on() {
    let files = Files::good();
    let (door, _) = files.open(HttpBounds { handshakes: 2, ..PATIENT }).await;
    let client = || files.client(&[&version::TLS13], None);
    let own = format!("https://127.0.0.1:{}", door.address.port());
    let mut open = shake(&door, client()).await.expect("a handshake");
    let first = door.connect().await;
    let second = door.connect().await;
    assert_eq!(rest(&mut door.connect().await).await, "", "the third is closed");
    let head = format!("GET / HTTP/1.1\r\nhost: 127.0.0.1:{}\r\nconnection: close\r\n\r\n", door.address.port());
    open.write_all(head.as_bytes()).await.expect("sent");
    assert_eq!(status(&rest(&mut open).await), 200);
    drop(first);
    // The end of it is noticed in its own time.
    while ask(&door, client(), &own).await.is_none() {
        tokio::time::sleep(SOON).await;
    }
    drop(second);
}

#[tokio::test]
async fn t_n7_a_handshake_does_not_keep_the_daemon_from_stopping() {
    let files = Files::good();
    let (door, _) = files.open(PATIENT).await;
    let mut half = door.connect().await;
    half.write_all(&[22, 3, 1]).await.expect("sent");
    // The one after it was answered, so it was taken.
    let own = format!("https://127.0.0.1:{}", door.address.port());
    assert!(ask(&door, files.client(&[&version::TLS13], None), &own).await.is_some());
    door.stop.send_replace(true);
    assert_eq!(rest(&mut half).await, "");
    door.task.await.expect("ended");
}

#[tokio::test]
async fn t_i7_where_clients_have_to_prove_themselves_no_other_is_heard() {
    let files = Files::good();
    let config = TlsConfig { client_ca: Some(files.path("clients.pem")), ..files.config() };
    let (door, _) = files.open_as(config, PATIENT).await;
    let own = format!("https://127.0.0.1:{}", door.address.port());
    let with = |own| files.client(&[&version::TLS13], own);
    let answer = ask(&door, with(Some(("client.pem", "client.key"))), &own).await.expect("an answer");
    assert_eq!(status(&answer), 200, "{answer}");
    assert_eq!(ask(&door, with(None), &own).await, None, "without a certificate");
    assert_eq!(ask(&door, with(Some(("server.pem", "server.key"))), &own).await, None, "of another authority");
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_to_the_next_connection_and_a_broken_one_to_nobody() {
    let files = Files::good();
    let (door, tls) = files.open(PATIENT).await;
    let shown = async || {
        let own = format!("https://127.0.0.1:{}", door.address.port());
        ask(&door, files.client(&[&version::TLS13], None), &own).await.is_some()
    };
    assert!(shown().await);
    assert!(!tls.reload().expect("nothing changed"));
    files.put("server.pem", b"no certificate");
    let refused = tls.reload().expect_err("it is none");
    assert!(refused.to_string().contains("`http.tls.certificate`"), "{refused}");
    assert!(shown().await, "the one before stays");
    files.put("server.pem", files.text("alone.pem").as_bytes());
    assert!(tls.reload().expect("a certificate"));
    assert!(!shown().await, "this one is believed by nobody");
}

#[test]
fn a_certificate_behind_a_link_to_another_folder_is_taken_and_its_end_is_told_once() {
    const NOW_S: u64 = 1_893_456_000;
    let (files, live) = (Files::good(), Files::good());
    std::os::unix::fs::symlink(live.path("server.pem"), files.path("door.pem")).expect("link");
    let linked = TlsConfig { certificate: files.path("door.pem"), ..files.config() };
    let tls = DoorTls::read(linked).expect("TLS");
    assert_eq!(tls.look(NOW_S), []);
    live.put("server.pem", files.text("expired.pem").as_bytes());
    let found = tls.look(NOW_S);
    assert!(matches!(found.as_slice(), [News::Renewed, News::Stands(Standing::Ended(_))]), "{found:?}");
    assert_eq!(tls.look(NOW_S), [], "it was said");
    live.put("server.pem", b"no certificate");
    let found = tls.look(NOW_S);
    assert!(matches!(found.as_slice(), [News::Stays(_), News::Stands(_)]), "{found:?}");
    assert_eq!(tls.look(NOW_S), []);
    live.put("server.pem", files.text("server.pem").as_bytes());
    assert_eq!(tls.look(NOW_S), [News::Renewed]);
    assert!(matches!(tls.look(u64::MAX).as_slice(), [News::Stands(Standing::Ended(_))]), "it ends without a change");
}

#[test]
fn t_n7_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for() {
    let files = Files::good();
    rustix::fs::mkfifoat(rustix::fs::CWD, files.path("pipe"), rustix::fs::Mode::RUSR).expect("a pipe");
    for pipe in [
        TlsConfig { certificate: files.path("pipe"), ..files.config() },
        TlsConfig { client_ca: Some(files.path("pipe")), ..files.config() },
        TlsConfig { key: files.path("pipe"), ..files.config() },
    ] {
        let refused = DoorTls::read(pipe).expect_err("no file").to_string();
        assert!(refused.contains("is not a regular file; name one"), "{refused}");
    }
}

#[test]
fn what_cannot_be_used_names_its_key_and_what_to_do() {
    let files = Files::good();
    let pem = files.text("server.pem");
    files.put("empty.pem", b"");
    files.put("broken.pem", b"-----BEGIN CERTIFICATE-----\nAA=A\n-----END CERTIFICATE-----\n");
    files.put("chain.pem", pem.repeat(CHAIN_MAX).as_bytes());
    files.put("long.pem", pem.repeat(CHAIN_MAX + 1).as_bytes());
    files.put("fits.pem", &[pem.as_bytes(), &vec![b'\n'; FILE_MAX_BYTES - pem.len()]].concat());
    files.put("large.pem", &[pem.as_bytes(), &vec![b'\n'; FILE_MAX_BYTES + 1 - pem.len()]].concat());
    for private in ["empty.pem", "broken.pem", "server.pem", "large.pem"] {
        files.mode(private, 0o600);
    }
    let read = |certificate: &str, key: &str, clients: Option<&str>| {
        let (certificate, key) = (files.path(certificate), files.path(key));
        DoorTls::read(TlsConfig { certificate, key, client_ca: clients.map(|name| files.path(name)) })
            .map_err(|error| error.to_string())
    };
    for fine in ["server.pem", "chain.pem", "fits.pem", "expired.pem"] {
        assert!(read(fine, "server.key", None).is_ok(), "{fine}");
    }
    for (certificate, says) in [
        ("missing.pem", "; name what is there"),
        ("empty.pem", "has no certificate"),
        ("server.key", "has no certificate"),
        ("broken.pem", "; write certificates in PEM"),
        ("long.pem", "has 11 certificates; 10 are the most: leave out"),
        ("large.pem", "is larger than"),
    ] {
        let refused = read(certificate, "server.key", None).expect_err(certificate);
        assert!(refused.starts_with("`http.tls.certificate`: ") && refused.contains(says), "{refused}");
        let refused = read("server.pem", "server.key", Some(certificate)).expect_err(certificate);
        assert!(refused.starts_with("`http.tls.client_ca`: ") && refused.contains(says), "{refused}");
    }
    for (key, says) in [
        ("missing.key", "; name what is there"),
        ("empty.pem", "not encrypted"),
        ("server.pem", "not encrypted"),
        ("large.pem", "too large"),
        ("client.key", "is not the key of the first certificate"),
    ] {
        let refused = read("server.pem", key, None).expect_err(key);
        assert!(refused.starts_with("`http.tls.key`: ") && refused.contains(says), "{refused}");
    }
}

#[test]
fn t_i6_a_key_that_others_can_read_is_refused_and_a_link_to_one_that_they_cannot_is_not() {
    let files = Files::good();
    for open in [0o640, 0o604, 0o620, 0o666] {
        files.mode("server.key", open);
        let refused = DoorTls::read(files.config()).expect_err("others can use it").to_string();
        assert!(refused.starts_with("`http.tls.key`: ") && refused.contains("chmod 0600"), "{refused}");
    }
    files.mode("server.key", 0o400);
    std::os::unix::fs::symlink("server.key", files.path("link.key")).expect("link");
    let linked = TlsConfig { key: files.path("link.key"), ..files.config() };
    assert!(DoorTls::read(linked).is_ok());
    let folder = TlsConfig { key: files.folder.clone(), ..files.config() };
    assert!(DoorTls::read(folder).is_err_and(|error| error.to_string().contains("regular file")));
}
