//! Whether clients will believe the certificate of the HTTP door, and who can reach the door at all.

use http::uri::Authority;

use super::Finding;
use crate::ambient::Ambient;
use crate::config::Config;
use crate::daemon::http::config::{HttpConfig, Listen, TlsConfig};
use crate::daemon::http::tls::{self, DoorTls, Standing};

const CHECK: &str = "certificate";
/// Milliseconds of a second.
const MS_PER_S: u64 = 1_000;

/// Check the door, where there is one with TLS.
pub(super) fn check(config: &Config, ambient: &Ambient) -> Vec<Finding> {
    let Some(http) = &config.http else { return Vec::new() };
    let Some(files) = &http.tls else { return Vec::new() };
    match DoorTls::read(files.clone()) {
        Ok(door) => {
            let mut findings = vec![dates(door.standing(ambient.now_ms() / MS_PER_S), files)];
            findings.extend(names(http, files));
            findings
        }
        Err(error) => vec![Finding::problem(CHECK, error.to_string(), "the daemon does not start until that is right")],
    }
}

fn dates(standing: Standing, files: &TlsConfig) -> Finding {
    let found = format!("`{}` {standing}", files.certificate.display());
    match standing {
        Standing::Good(_) => Finding::well(CHECK, found),
        Standing::Ending(_) => Finding::warning(CHECK, found, "renew it; the daemon takes the new one by itself"),
        Standing::Ended(_) | Standing::NotYet(_) | Standing::Unreadable => {
            Finding::problem(CHECK, found, "no client believes it: renew it; the daemon takes the new one by itself")
        }
    }
}

/// Names of the door that its certificate is not for.
fn names(http: &HttpConfig, files: &TlsConfig) -> Option<Finding> {
    let chain = tls::chain(files).ok()?;
    let own: Vec<Authority> = match &http.listen {
        _ if !http.hosts.is_empty() => http.hosts.clone(),
        Listen::Tcp(address) => vec![address.to_string().parse().ok()?],
        Listen::Unix(_) => Vec::new(),
    };
    let missing = tls::uncovered(&chain, &own);
    if missing.is_empty() {
        return None;
    }
    let hint = "clients that write such a name refuse the door: have a certificate made for it, or name in `http.hosts` what \
                the certificate is for";
    Some(Finding::warning(CHECK, format!("it is not for {}", missing.join(", ")), hint))
}

#[cfg(test)]
mod tests {
    use super::super::Grade;
    use super::*;
    use crate::daemon::http::tls::tests::Files;

    /// 2030-01-01, within the life of the fixtures.
    const NOW_MS: u64 = 1_893_456_000_000;

    fn grades(files: &Files, listen: &str, hosts: &[&str]) -> Vec<(Grade, String)> {
        let hosts = hosts.iter().map(|host| host.parse().expect("host")).collect();
        let config = HttpConfig {
            listen: Listen::Tcp(listen.parse().expect("address")),
            hosts,
            origins: Vec::new(),
            metrics_token: true,
            group: None,
            tls: Some(files.config()),
        };
        let home = [("HOME".to_owned(), "/home/someone".to_owned())].into_iter().collect();
        let ambient = Ambient::fixed(NOW_MS, 0, home);
        let whole = crate::config::check(&crate::config::text::ConfigText::default(), None, &ambient);
        let whole = Config { http: Some(config), ..whole.expect("config") };
        check(&whole, &ambient).into_iter().map(|finding| (finding.grade, finding.found)).collect()
    }

    #[test]
    fn an_expired_certificate_and_a_name_that_it_is_not_for_are_told() {
        let good = Files::good();
        let found = grades(&good, "127.0.0.1:1", &[]);
        assert!(matches!(found.as_slice(), [(Grade::Well, text)] if text.contains("2120")), "{found:?}");
        let found = grades(&good, "127.0.0.1:1", &["api.test", "one.wild.test:8443", "127.0.0.1"]);
        assert_eq!(found.len(), 1, "{found:?}");
        let found = grades(&good, "127.0.0.1:1", &["api.test", "other.test", "a.b.wild.test"]);
        assert!(
            matches!(found.as_slice(), [_, (Grade::Warning, text)] if text.ends_with("for other.test, a.b.wild.test")),
            "{found:?}"
        );
        let found = grades(&good, "192.0.2.1:1", &[]);
        assert!(matches!(found.as_slice(), [_, (Grade::Warning, text)] if text.contains("192.0.2.1")), "{found:?}");
        let found = grades(&Files::of("expired.pem"), "127.0.0.1:1", &[]);
        assert!(matches!(found.as_slice(), [(Grade::Problem, text)] if text.contains("ended on 2020")), "{found:?}");
        let open = Files::good();
        open.mode("server.key", 0o640);
        let found = grades(&open, "127.0.0.1:1", &[]);
        assert!(matches!(found.as_slice(), [(Grade::Problem, text)] if text.contains("chmod 0600")), "{found:?}");
    }
}
