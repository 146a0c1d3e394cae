//! What a certificate is worth to those who connect: until when it is good, and for which names.
//!
//! The library that checks certificates tells their dates only by what it complains about, so it is asked about the first and
//! the last second there is. Nothing is parsed here, and no chain is believed or not: who connects does that.

use std::fmt;
use std::time::Duration;

use http::uri::Authority;
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, Error, RootCertStore};

/// How long before its end a certificate is spoken of, in seconds: two weeks, when a renewal is late.
const SOON_S: u64 = 14 * 24 * 3600;
/// The last second that a certificate can name (RFC 5280, 4.1.2.5): the end of the year 9999.
const LAST_S: u64 = 253_402_300_799;

/// How a chain of certificates stands at some time. Times are in seconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Good until then.
    Good(u64),
    /// Good, but not for long: until then.
    Ending(u64),
    /// One of them ended then.
    Ended(u64),
    /// One of them begins then.
    NotYet(u64),
    /// One of them cannot be read.
    Unreadable,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Good(until) | Self::Ending(until) => write!(f, "is good until {}", day(until)),
            Self::Ended(at) => write!(f, "ended on {}", day(at)),
            Self::NotYet(from) => write!(f, "is not good before {}", day(from)),
            Self::Unreadable => f.write_str("cannot be read"),
        }
    }
}

/// A time as people and machines read it.
fn day(at_s: u64) -> String {
    let at = i64::try_from(at_s).ok().and_then(|at| jiff::Timestamp::from_second(at).ok());
    at.map_or_else(|| "an unknown day".to_owned(), |at| at.to_string())
}

/// How `chain` stands at `now_s`: as the worst of its certificates.
pub(crate) fn standing(chain: &[CertificateDer<'_>], now_s: u64) -> Standing {
    let mut end = LAST_S;
    for certificate in chain {
        let Ok(parsed) = ParsedCertificate::try_from(certificate) else { return Standing::Unreadable };
        if let Some(begins) = begin(&parsed)
            && begins > now_s
        {
            return Standing::NotYet(begins);
        }
        end = end.min(last(&parsed).unwrap_or(LAST_S));
    }
    match end {
        ended if ended < now_s => Standing::Ended(ended),
        ending if ending - now_s < SOON_S => Standing::Ending(ending),
        good => Standing::Good(good),
    }
}

/// When it begins; nothing where it always did.
fn begin(certificate: &ParsedCertificate<'_>) -> Option<u64> {
    match complaint(certificate, 0) {
        Some(CertificateError::NotValidYetContext { not_before, .. }) => Some(not_before.as_secs()),
        _ => None,
    }
}

/// When it ends; nothing where it never does.
fn last(certificate: &ParsedCertificate<'_>) -> Option<u64> {
    match complaint(certificate, LAST_S + 1) {
        Some(CertificateError::ExpiredContext { not_after, .. }) => Some(not_after.as_secs()),
        _ => None,
    }
}

/// What the library says of it first at this time: it looks at the dates before anything else.
fn complaint(certificate: &ParsedCertificate<'_>, at_s: u64) -> Option<CertificateError> {
    let at = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
    match verify_server_cert_signed_by_trust_anchor(certificate, &RootCertStore::empty(), &[], at, &[]) {
        Err(Error::InvalidCertificate(complaint)) => Some(complaint),
        _ => None,
    }
}

/// Which of these names the first certificate of `chain` is not for.
pub(crate) fn uncovered<'a>(
    chain: &[CertificateDer<'_>],
    names: impl IntoIterator<Item = &'a Authority>,
) -> Vec<&'a str> {
    let parsed = chain.first().and_then(|own| ParsedCertificate::try_from(own).ok());
    let covers = |name: &Authority| {
        let host = name.host().trim_start_matches('[').trim_end_matches(']');
        let wanted = ServerName::try_from(host);
        parsed.as_ref().zip(wanted.ok()).is_some_and(|(own, wanted)| verify_server_name(own, &wanted).is_ok())
    };
    names.into_iter().filter(|name| !covers(name)).map(Authority::host).collect()
}
