//! STARTTLS against a mail server with a certificate, and against one that somebody talks over.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ServerConfig, crypto::ring};
use toolkeep_core::delivery::DeliveryState;

use super::world::World;

fn testdata(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("egress/testdata").join(name)
}

fn acceptor() -> TlsAcceptor {
    let certificates = CertificateDer::pem_file_iter(testdata("server.pem")).expect("file").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(testdata("server.key")).expect("key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(certificates.expect("certificates"), key)
        .expect("a certificate");
    TlsAcceptor::from(Arc::new(config))
}

/// What was said to the server, without and with protection.
#[derive(Debug, Default)]
struct Said {
    plain: Vec<String>,
    protected: Vec<String>,
}

/// A server that offers STARTTLS, and says `slipped` in the same breath as its consent to it.
async fn server(slipped: &'static str) -> (u16, Arc<Mutex<Said>>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("bind");
    let port = listener.local_addr().expect("address").port();
    let said: Arc<Mutex<Said>> = Arc::default();
    let kept = Arc::clone(&said);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let kept = Arc::clone(&kept);
            tokio::spawn(async move {
                // A client that goes away ends its own conversation only.
                let _ended = serve(stream, slipped, &kept).await;
            });
        }
    });
    (port, said)
}

async fn serve(mut stream: TcpStream, slipped: &str, said: &Mutex<Said>) -> std::io::Result<()> {
    stream.write_all(b"220 mail.test ready\r\n").await?;
    let mut lines = BufReader::new(&mut stream);
    loop {
        let line = line(&mut lines).await?;
        said.lock().expect("said").plain.push(line.clone());
        match line.as_str() {
            "STARTTLS" => break,
            _ => lines.write_all(b"250-mail.test\r\n250 STARTTLS\r\n").await?,
        }
    }
    lines.write_all(format!("220 go ahead\r\n{slipped}").as_bytes()).await?;
    drop(lines);
    let mut protected = BufReader::new(acceptor().accept(stream).await?);
    let mut in_data = false;
    loop {
        let line = line(&mut protected).await?;
        said.lock().expect("said").protected.push(line.clone());
        let answer = match (in_data, line.as_str()) {
            (true, ".") => "250 2.0.0 queued",
            (true, _) => continue,
            (false, "DATA") => "354 go on",
            (false, _) => "250 ok",
        };
        in_data = answer.starts_with("354");
        protected.write_all(format!("{answer}\r\n").as_bytes()).await?;
        protected.flush().await?;
    }
}

async fn line(lines: &mut BufReader<impl AsyncRead + AsyncWrite + Unpin>) -> std::io::Result<String> {
    let mut line = String::new();
    match lines.read_line(&mut line).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(line.trim_end().to_owned()),
    }
}

fn mail(port: u16) -> World {
    let mut world = World::new(&format!(
        "[mail]\nkind = \"smtp\"\nhost = \"127.0.0.1\"\nport = {port}\ntls = \"starttls\"\nallow_private = true\n\
         from = \"toolkeep@example.com\""
    ));
    world.ca_file = Some(testdata("authority.pem"));
    world
}

#[tokio::test]
async fn everything_but_the_request_for_tls_is_said_under_its_protection() {
    let (port, said) = server("").await;
    let world = mail(port);
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    life.until(id, DeliveryState::Delivered).await;
    life.end().await;
    let said = said.lock().expect("said");
    assert_eq!(said.plain, ["EHLO example.com", "STARTTLS"]);
    assert!(said.protected.iter().any(|line| line == "RCPT TO:<ann@example.com>"), "{:?}", said.protected);
    assert!(said.protected.iter().any(|line| line == "The books are closed."));
}

#[tokio::test]
async fn t_n6_what_a_stranger_says_before_the_handshake_is_no_answer_after_it() {
    let (port, said) = server("250 ok\r\n250 ok\r\n250 ok\r\n354 go on\r\n250 2.0.0 queued\r\n").await;
    let world = mail(port);
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    let failed = life.until_failed(id, 1).await;
    assert!(failed.note.expect("why").contains("TLS"), "the handshake breaks");
    assert!(said.lock().expect("said").protected.is_empty());
    life.end().await;
}

#[tokio::test]
async fn a_server_whose_certificate_is_not_believed_gets_nothing() {
    let (port, said) = server("").await;
    let mut world = mail(port);
    world.ca_file = None;
    let life = world.live().await;
    let id = life.send(world.message("mail"));
    life.until_failed(id, 1).await;
    assert!(said.lock().expect("said").protected.is_empty());
    life.end().await;
}
