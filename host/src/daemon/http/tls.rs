//! TLS of the HTTP door: rustls with ring, version 1.3 and nothing older, one certificate, clients' certificates where wanted.
//!
//! What the configuration names is read at the start, on SIGHUP, when one of the files changes and every minute, because a link
//! may lead to a file elsewhere; what cannot be used then is told once and the certificate before stays. Sessions are not resumed, so that a renewed authority of clients is in force at once,
//! and nothing is taken before a handshake ends. Keys are never logged.

mod certificate;
mod handshake;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
pub(super) use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, VerifierBuilderError, WebPkiClientVerifier};
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, version};
pub(super) use tokio_rustls::server::TlsStream;

use super::config::TlsConfig;
use crate::secrets::{SourceError, private_file, public_file};

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
    #[error("`http.tls.{field}`: {source}")]
    Unreadable {
        /// Which key of the configuration.
        field: &'static str,
        /// Why, and which file.
        source: SourceError,
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
    #[error("`http.tls`: {0}; have certificate and key made again, for TLS 1.3 and together")]
    Library(#[from] rustls::Error),
    /// The library refuses the authority of clients.
    #[error("`http.tls.client_ca`: {0}; name the certificates of authorities that sign those of clients")]
    ClientCa(#[from] VerifierBuilderError),
}

/// What connections are protected with, now.
pub(crate) struct DoorTls {
    config: TlsConfig,
    now: ArcSwap<Loaded>,
    /// What was said of it last, so that a look every minute says what is new.
    said: Mutex<Vec<News>>,
}

/// What there is to say of the door's certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum News {
    /// There is another one now.
    Renewed,
    /// What lies there cannot be used, and why; the one before stays.
    Stays(String),
    /// Where it is not, or not for long, what clients believe.
    Stands(Standing),
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
        Ok(Self { config, now: ArcSwap::from_pointee(loaded), said: Mutex::default() })
    }

    /// Read it again, and find what there is to say at `now_s`, seconds since the epoch, and was not said the last time.
    pub(crate) fn look(&self, now_s: u64) -> Vec<News> {
        let read = self.reload();
        let mut news = Vec::new();
        if let Err(error) = &read {
            news.push(News::Stays(error.to_string()));
        }
        let standing = self.standing(now_s);
        if !matches!(standing, Standing::Good(_)) {
            news.push(News::Stands(standing));
        }
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if *said == news {
            news.clear();
        } else {
            said.clone_from(&news);
        }
        if matches!(read, Ok(true)) {
            news.insert(0, News::Renewed);
        }
        news
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
    let text = public_file(path, FILE_MAX_BYTES).map_err(|source| TlsError::Unreadable { field, source })?;
    if text.len() > FILE_MAX_BYTES {
        return Err(wrong(format!("is larger than {FILE_MAX_BYTES} bytes; name a file with certificates only")));
    }
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let read =
        read.map_err(|error| wrong(format!("is not PEM: {error}; write certificates in PEM and nothing else")))?;
    match read.len() {
        0 => Err(wrong(
            "has no certificate; write the door's own first, then those between it and its authority, \
                        in PEM"
                .to_owned(),
        )),
        1..=CHAIN_MAX => Ok(read),
        count => Err(wrong(format!("has {count} certificates; {CHAIN_MAX} are the most: leave out what clients have"))),
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
