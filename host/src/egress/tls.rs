//! TLS towards servers: rustls with ring, the public authorities and the operator's own, and nothing else.
//!
//! Sessions are not resumed, because a ticket ties two connections together, and two connections may be for two tenants.
//! Keys are never logged, whatever the environment says.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{self, ClientConfig, RootCertStore};
use toolkeep_core::net::origin::HostName;

use super::Reason;

/// Largest file of certificates, in bytes: the public list has a fifth of it.
const CA_FILE_MAX_BYTES: u64 = 1024 * 1024;

/// Why the operator's certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file cannot be read.
    #[error("`egress.ca_file`: `{path}`: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It holds something else.
    #[error("`egress.ca_file`: `{path}`: {problem}; write certificates in PEM")]
    NotCertificates {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// The library refuses its own defaults.
    #[error("TLS cannot be set up: {0}")]
    Library(#[from] rustls::Error),
}

/// How connections are protected.
#[derive(Debug)]
pub(super) struct Tls {
    http: Arc<ClientConfig>,
    plain: Arc<ClientConfig>,
}

impl Tls {
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, TlsError> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(path) = ca_file {
            add(&mut roots, path)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut plain = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        plain.resumption = Resumption::disabled();
        let mut http = plain.clone();
        http.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { http: Arc::new(http), plain: Arc::new(plain) })
    }

    /// For HTTP/1.1.
    pub(super) const fn http(&self) -> &Arc<ClientConfig> {
        &self.http
    }

    /// For protocols that negotiate nothing.
    pub(super) const fn plain(&self) -> &Arc<ClientConfig> {
        &self.plain
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TlsError> {
    let wrong = |problem: String| TlsError::NotCertificates { path: path.to_path_buf(), problem };
    let unreadable = |source| TlsError::Unreadable { path: path.to_path_buf(), source };
    let size = std::fs::metadata(path).map_err(unreadable)?.len();
    if size > CA_FILE_MAX_BYTES {
        return Err(wrong(format!("it is larger than {CA_FILE_MAX_BYTES} bytes")));
    }
    let text = std::fs::read(path).map_err(unreadable)?;
    let mut count = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| wrong(error.to_string()))?;
        roots.add(certificate).map_err(|error| wrong(error.to_string()))?;
        count += 1;
    }
    if count == 0 { Err(wrong("it has no certificate".to_owned())) } else { Ok(()) }
}

/// What the certificate must be valid for; a name is also sent in the clear (SNI), an address is not.
pub(super) fn server_name(host: &HostName) -> Result<ServerName<'static>, Reason> {
    match host {
        HostName::Domain(name) => {
            ServerName::try_from(name.clone()).map_err(|_| Reason::Tls("the host cannot have a certificate".to_owned()))
        }
        HostName::Address(address) => Ok(ServerName::from(*address)),
    }
}

/// What the handshake failed of. The texts are the library's and name the certificate's problem, nothing of ours.
pub(super) fn reason(error: &std::io::Error) -> Reason {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(inner) => Reason::Tls(inner.to_string()),
        None => Reason::Connect(error.kind()),
    }
}
