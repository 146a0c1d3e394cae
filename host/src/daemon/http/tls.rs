//! TLS of the HTTP door: rustls with ring, version 1.3 and nothing older, one certificate, clients' certificates where wanted.
//!
//! What the configuration names is read at the start, on SIGHUP and when one of the files changes; what cannot be used then is
//! told and the certificate before stays. Sessions are not resumed, so that a renewed authority of clients is in force at once,
//! and nothing is taken before a handshake ends. Keys are never logged.

mod certificate;
mod handshake;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
pub(super) use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};
pub(super) use tokio_rustls::server::TlsStream;

use super::config::TlsConfig;
use crate::secrets::{SourceError, private_file};

pub(crate) use certificate::{Standing, standing, uncovered};
pub(super) use handshake::{Greeted, greet};

/// Largest file of certificates or of a key, in bytes: a chain of four large certificates has a fifth of it.
const FILE_MAX_BYTES: usize = 64 * 1024;
/// Certificates of one chain: clients give up on longer ones.
const CHAIN_MAX: usize = 10;
/// What is spoken inside.
const HTTP_1_1: &[u8] = b"http/1.1";

/// Why TLS cannot be used as it is configured.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file of certificates cannot be read.
    #[error("`http.tls.{field}`: `{path}`: {source}")]
    Unreadable {
        /// Which key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file holds something else than it should.
    #[error("`http.tls.{field}`: `{path}` {problem}")]
    Content {
        /// Which key of the configuration.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// The key cannot be read, or others can read it too.
    #[error("`http.tls.key`: {0}")]
    Key(#[from] SourceError),
    /// The library refuses what it was given.
    #[error("`http.tls`: {0}")]
    Library(#[from] rustls::Error),
    /// The library refuses the authority of clients.
    #[error("`http.tls.client_ca`: {0}")]
    ClientCa(#[from] VerifierBuilderError),
}

/// What connections are protected with, now.
pub(crate) struct DoorTls {
    config: TlsConfig,
    now: ArcSwap<Loaded>,
}

/// One reading of the files.
struct Loaded {
    server: Arc<ServerConfig>,
    chain: Vec<CertificateDer<'static>>,
    clients: Vec<CertificateDer<'static>>,
}

impl fmt::Debug for DoorTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DoorTls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl DoorTls {
    /// Read what the configuration names.
    ///
    /// # Errors
    /// A file cannot be read, others can read the key, a file holds something else, or certificate and key do not belong together.
    pub(crate) fn read(config: TlsConfig) -> Result<Self, TlsError> {
        let loaded = load(&config)?;
        Ok(Self { config, now: ArcSwap::from_pointee(loaded) })
    }

    /// Read it again; whether there is another certificate or another authority of clients now. Connections that are open
    /// keep what they have.
    ///
    /// # Errors
    /// As [`Self::read`]; what was there before stays.
    pub(crate) fn reload(&self) -> Result<bool, TlsError> {
        let loaded = load(&self.config)?;
        let before = self.now.load();
        if before.chain == loaded.chain && before.clients == loaded.clients {
            return Ok(false);
        }
        self.now.store(Arc::new(loaded));
        Ok(true)
    }

    /// What the next connection is greeted with.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.now.load().server))
    }

    /// How the certificate stands at `now_s`, in seconds since the epoch.
    pub(crate) fn standing(&self, now_s: u64) -> Standing {
        standing(&self.now.load().chain, now_s)
    }
}

fn load(config: &TlsConfig) -> Result<Loaded, TlsError> {
    let chain = chain(config)?;
    let key = key(&config.key)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_protocol_versions(&[&version::TLS13])?;
    let (builder, clients) = match &config.client_ca {
        None => (builder.with_no_client_auth(), Vec::new()),
        Some(path) => {
            let authorities = certificates("client_ca", path)?;
            let mut roots = RootCertStore::empty();
            for authority in &authorities {
                roots.add(authority.clone()).map_err(|error| TlsError::Content {
                    field: "client_ca",
                    path: path.clone(),
                    problem: format!("has a certificate that is no authority: {error}"),
                })?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            (builder.with_client_cert_verifier(verifier), authorities)
        }
    };
    let mut server = builder.with_single_cert(chain.clone(), key).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => TlsError::Content {
            field: "key",
            path: config.key.clone(),
            problem: "is not the key of the first certificate of `http.tls.certificate`; name the two that were made \
                      together"
                .to_owned(),
        },
        other => TlsError::Library(other),
    })?;
    server.alpn_protocols = vec![HTTP_1_1.to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(Loaded { server: Arc::new(server), chain, clients })
}

/// The chain that is shown to clients, the door's own certificate first.
///
/// # Errors
/// There is none in the file, or too many.
pub(crate) fn chain(config: &TlsConfig) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    certificates("certificate", &config.certificate)
}

fn certificates(field: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |problem: String| TlsError::Content { field, path: path.to_path_buf(), problem };
    let unreadable = |source| TlsError::Unreadable { field, path: path.to_path_buf(), source };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(FILE_MAX_BYTES as u64 + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() > FILE_MAX_BYTES {
        return Err(wrong(format!("is larger than {FILE_MAX_BYTES} bytes; name a file with certificates only")));
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read = read.map_err(|error| wrong(format!("is not PEM: {error}")))?;
    match read.len() {
        0 => Err(wrong(
            "has no certificate; write the door's own first, then those between it and its authority, \
                        in PEM"
                .to_owned(),
        )),
        1..=CHAIN_MAX => Ok(read),
        count => Err(wrong(format!("has {count} certificates; {CHAIN_MAX} are the most"))),
    }
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let wrong =
        |problem: &str| TlsError::Content { field: "key", path: path.to_path_buf(), problem: problem.to_owned() };
    let text = private_file(path, FILE_MAX_BYTES)?;
    if text.len() > FILE_MAX_BYTES {
        return Err(wrong("is too large for a key; name a file with the key only"));
    }
    // What the reader complains about could be the key itself: it is not repeated.
    PrivateKeyDer::from_pem_slice(&text)
        .map_err(|_| wrong("has no private key in PEM; write one that is not encrypted, of PKCS #8, SEC 1 or PKCS #1"))
}
