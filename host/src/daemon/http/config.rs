//! `[http]`: where the HTTP door listens, and under which names and from which pages it may be asked.
//!
//! Without the section nothing listens, and without `tls` nothing that others can reach. Names are lists of what is meant; `*` is refused, because a list that means
//! everybody protects nobody (R20).

use std::collections::BTreeSet;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use http::uri::Authority;
use serde::Deserialize;
use toolkeep_core::net::origin::Origin;

use super::bounds::NAMES_MAX;
use crate::config::{ConfigError, absolute};

/// What a Unix socket is written with.
const UNIX: &str = "unix:";

/// `[http]`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpText {
    /// `ADDRESS:PORT`, on a loopback address where there is no `tls`, or `unix:PATH`.
    pub listen: Option<String>,
    /// See [`HttpConfig::hosts`].
    #[serde(default)]
    pub hosts: Vec<String>,
    /// See [`HttpConfig::origins`].
    #[serde(default)]
    pub origins: Vec<String>,
    /// See [`HttpConfig::metrics_token`].
    pub metrics_token: Option<bool>,
    /// See [`HttpConfig::group`].
    pub gid: Option<u32>,
    /// See [`TlsConfig`].
    pub tls: Option<TlsText>,
}

/// `http.tls`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsText {
    /// See [`TlsConfig::certificate`].
    pub certificate: PathBuf,
    /// See [`TlsConfig::key`].
    pub key: PathBuf,
    /// See [`TlsConfig::client_ca`].
    pub client_ca: Option<PathBuf>,
}

/// What the door is protected with: absolute paths of files in PEM, which are read at the start and whenever they change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The door's certificate, then those between it and its authority.
    pub certificate: PathBuf,
    /// Its private key, which nobody but the daemon's user and root can read.
    pub key: PathBuf,
    /// Authorities whose certificates clients have to show; nobody shows one if absent.
    pub client_ca: Option<PathBuf>,
}

impl TlsText {
    fn check(&self, base: Option<&Path>) -> Result<TlsConfig, ConfigError> {
        Ok(TlsConfig {
            certificate: absolute("http.tls.certificate", &self.certificate, base)?,
            key: absolute("http.tls.key", &self.key, base)?,
            client_ca: self.client_ca.as_deref().map(|path| absolute("http.tls.client_ca", path, base)).transpose()?,
        })
    }
}

impl TlsConfig {
    /// The folders of its files: who renews a certificate replaces what lies there.
    #[must_use]
    pub fn folders(&self) -> BTreeSet<&Path> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .filter_map(|p| p.parent())
            .collect()
    }
}

/// Where the door listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// An address.
    Tcp(SocketAddr),
    /// A socket, in a folder of its own or with others.
    Unix(PathBuf),
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
        }
    }
}

/// A checked `[http]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpConfig {
    /// Where it listens.
    pub listen: Listen,
    /// Names besides those of the loopback under which it may be asked: those that a proxy in front of it has.
    pub hosts: Vec<Authority>,
    /// Pages of other origins that may ask it from a browser.
    pub origins: Vec<Origin>,
    /// Whether `/metrics` wants a token even where it is asked under a name of the loopback. Always where there are `hosts`, and
    /// where others can reach the address: whoever they are can write the loopback's name too.
    pub metrics_token: bool,
    /// Group that may reach a Unix socket; the daemon's own if absent.
    pub group: Option<u32>,
    /// What an address is protected with, if it is.
    pub tls: Option<TlsConfig>,
}

impl Listen {
    /// Whether somebody on another machine can reach it.
    const fn is_open(&self) -> bool {
        match self {
            Self::Tcp(SocketAddr::V4(address)) => !address.ip().is_loopback(),
            Self::Tcp(SocketAddr::V6(address)) => !address.ip().is_loopback(),
            Self::Unix(_) => false,
        }
    }
}

impl HttpText {
    /// What it means beside the state and the runtime directory of the daemon.
    ///
    /// # Errors
    /// As [`Self::check`]; a socket in a folder that the daemon has for something else.
    pub(crate) fn check_beside(
        &self,
        base: Option<&Path>,
        folders: [&Path; 2],
    ) -> Result<Option<HttpConfig>, ConfigError> {
        let config = self.check(base)?;
        config.iter().try_for_each(|config| config.refuse_own_folders(folders))?;
        Ok(config)
    }

    /// What it means; nothing where it says nowhere to listen.
    ///
    /// # Errors
    /// An address that others can reach, a name that is none, or a wildcard.
    fn check(&self, base: Option<&Path>) -> Result<Option<HttpConfig>, ConfigError> {
        let Some(listen) = &self.listen else {
            let lists = self.hosts.is_empty() && self.origins.is_empty();
            if lists && self.metrics_token.is_none() && self.gid.is_none() && self.tls.is_none() {
                return Ok(None);
            }
            return Err(ConfigError::value("http.listen", "is missing; write `listen = \"127.0.0.1:9464\"`"));
        };
        let listen = self.listen(listen, base)?;
        let tls = self.tls.as_ref().map(|tls| tls.check(base)).transpose()?;
        self.check_reach(&listen)?;
        let token = !self.hosts.is_empty() || listen.is_open();
        if self.metrics_token == Some(false) && token {
            let problem = "cannot be false beside `http.hosts` or where others can reach the address: they may write any \
                           name in `Host`";
            return Err(ConfigError::value("http.metrics_token", problem));
        }
        for (key, names) in [("http.hosts", &self.hosts), ("http.origins", &self.origins)] {
            if names.len() > NAMES_MAX {
                return Err(ConfigError::value(
                    key,
                    format!("names {} entries; {NAMES_MAX} are the most", names.len()),
                ));
            }
            if let Some(wild) = names.iter().find(|name| name.contains('*')) {
                let problem = format!("`{wild}` would let everybody in; name each one that is meant");
                return Err(ConfigError::value(key, problem));
            }
        }
        Ok(Some(HttpConfig {
            listen,
            hosts: self.hosts.iter().map(|name| host(name)).collect::<Result<_, _>>()?,
            origins: self.origins.iter().map(|name| origin(name)).collect::<Result<_, _>>()?,
            metrics_token: self.metrics_token.unwrap_or(token),
            group: self.gid,
            tls,
        }))
    }

    /// Refuse an address that others can reach without TLS or under no name, and TLS where nothing is to be hidden.
    fn check_reach(&self, listen: &Listen) -> Result<(), ConfigError> {
        if matches!(listen, Listen::Unix(_)) && self.tls.is_some() {
            let problem = "is for an address; nobody reads along on a Unix socket";
            return Err(ConfigError::value("http.tls", problem));
        }
        if listen.is_open() && self.tls.is_none() {
            let problem = format!(
                "`{listen}` can be reached by others, and there is no TLS; add `tls = {{ certificate = \"PATH\", key = \
                 \"PATH\" }}`, or listen on 127.0.0.1 or a Unix socket and put a proxy with TLS in front of it"
            );
            return Err(ConfigError::value("http.listen", problem));
        }
        let everywhere = matches!(listen, Listen::Tcp(address) if address.ip().is_unspecified());
        if everywhere && self.hosts.is_empty() {
            let problem = format!(
                "is missing: `{listen}` has no name of its own; name what clients write, such as \
                 `hosts = [\"keep.example.com\"]`"
            );
            return Err(ConfigError::value("http.hosts", problem));
        }
        Ok(())
    }

    fn listen(&self, text: &str, base: Option<&Path>) -> Result<Listen, ConfigError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return absolute("http.listen", Path::new(path), base).map(Listen::Unix);
        }
        if self.gid.is_some() {
            return Err(ConfigError::value("http.gid", "is for a Unix socket; an address has no group"));
        }
        text.parse().map(Listen::Tcp).map_err(|_| {
            let problem = format!("`{text}` is no address; write `127.0.0.1:9464`, `[::1]:9464` or `unix:PATH`");
            ConfigError::value("http.listen", problem)
        })
    }
}

impl HttpConfig {
    /// Refuse a socket in a folder that the daemon has for something else, with other permissions.
    ///
    /// # Errors
    /// It is in one.
    fn refuse_own_folders(&self, [state_dir, runtime_dir]: [&Path; 2]) -> Result<(), ConfigError> {
        let Listen::Unix(path) = &self.listen else { return Ok(()) };
        let parent = path.parent().unwrap_or(path);
        let within = [runtime_dir.join("agent"), runtime_dir.join("admin")];
        if [state_dir, runtime_dir].contains(&parent) || within.iter().any(|own| own == parent) {
            let problem = format!(
                "`{}` is a folder that the daemon has for something else; listen in one of its own, such as `unix:{}`",
                parent.display(),
                runtime_dir.join("http/http.sock").display()
            );
            return Err(ConfigError::value("http.listen", problem));
        }
        Ok(())
    }
}

/// A name of a host, with a port or without.
fn host(text: &str) -> Result<Authority, ConfigError> {
    let parsed: Option<Authority> = text.parse().ok();
    let fits = |authority: &Authority| !authority.as_str().contains('@') && !authority.host().is_empty();
    parsed.filter(fits).ok_or_else(|| {
        let problem = format!("`{text}` is not the name of a host; write it as `Host` has it: `keep.example.com`");
        ConfigError::value("http.hosts", problem)
    })
}

/// An origin of pages.
fn origin(text: &str) -> Result<Origin, ConfigError> {
    text.parse().map_err(|error| {
        let problem = format!("`{text}` is not an origin ({error}); write `https://console.example.com`");
        ConfigError::value("http.origins", problem)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(lines: &str) -> Result<Option<HttpConfig>, String> {
        let text: HttpText = toml::from_str(lines).expect("shape");
        text.check(Some(Path::new("/etc/toolkeep"))).map_err(|error| error.to_string())
    }

    #[test]
    fn without_an_address_nothing_listens_and_nothing_else_makes_sense() {
        assert_eq!(checked(""), Ok(None));
        let tls = "tls = { certificate = \"a\", key = \"b\" }";
        let names = ["hosts = [\"a.example\"]", "origins = [\"https://a.example\"]"];
        for alone in names.into_iter().chain(["metrics_token = true", "gid = 1", tls]) {
            assert!(checked(alone).is_err_and(|error| error.contains("http.listen")), "{alone}");
        }
    }

    #[test]
    fn t_i7_an_address_that_others_can_reach_is_refused_at_start() {
        for local in ["127.0.0.1:1", "127.9.9.9:65535", "[::1]:9464", "unix:/run/keep/http.sock"] {
            assert!(checked(&format!("listen = {local:?}")).expect(local).is_some());
        }
        for open in ["0.0.0.0:1", "[::]:1", "10.0.0.1:80", "192.0.2.1:80", "[::ffff:127.0.0.1]:80", "[2001:db8::1]:80"]
        {
            let refused = checked(&format!("listen = {open:?}")).expect_err(open);
            assert!(refused.contains("http.listen") && refused.contains("TLS"), "{refused}");
        }
        for wrong in ["localhost:80", "127.0.0.1", "80", "", "unix:../x"] {
            assert!(checked(&format!("listen = {wrong:?}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn t_i7_an_address_that_others_can_reach_wants_tls_a_name_and_a_token_for_metrics() {
        const TLS: &str = "tls = { certificate = \"door.pem\", key = \"/keys/door.key\" }\n";
        let with = |lines: &str| checked(&format!("{TLS}{lines}"));
        let open = with("listen = \"192.0.2.1:443\"").expect("with TLS").expect("it listens");
        let tls = open.tls.as_ref().expect("TLS");
        assert_eq!(tls.certificate, Path::new("/etc/toolkeep/door.pem"), "beside the configuration");
        assert_eq!((tls.key.as_path(), &tls.client_ca), (Path::new("/keys/door.key"), &None));
        assert_eq!(tls.folders().into_iter().collect::<Vec<_>>(), ["/etc/toolkeep", "/keys"].map(Path::new));
        assert!(open.metrics_token, "whoever asks shows a token");
        for nameless in ["0.0.0.0:443", "[::]:443"] {
            let refused = with(&format!("listen = {nameless:?}")).expect_err(nameless);
            assert!(refused.contains("http.hosts"), "{refused}");
            assert!(with(&format!("listen = {nameless:?}\nhosts = [\"keep.example.com\"]")).is_ok(), "{nameless}");
        }
        let bare = with("listen = \"192.0.2.1:443\"\nmetrics_token = false").expect_err("it would protect nothing");
        assert!(bare.contains("http.metrics_token"), "{bare}");
        let local = with("listen = \"127.0.0.1:443\"").expect("loopback").expect("it listens");
        assert!(!local.metrics_token && local.tls.is_some());
        assert!(with("listen = \"unix:/run/keep/http.sock\"").is_err_and(|error| error.contains("http.tls")));
        for (wrong, names) in [
            ("tls = { certificate = \"a\" }", "key"),
            ("tls = { certificate = \"a\", key = \"b\", versions = [\"1.2\"] }", "versions"),
        ] {
            let text = format!("listen = \"127.0.0.1:1\"\n{wrong}");
            let refused = toml::from_str::<HttpText>(&text).expect_err(wrong).to_string();
            assert!(refused.contains(names), "{refused}");
        }
        let up = with("listen = \"127.0.0.1:1\"").map(|_| ()).and_then(|()| {
            checked("listen = \"127.0.0.1:1\"\ntls = { certificate = \"../a\", key = \"b\" }").map(|_| ())
        });
        assert!(up.is_err_and(|error| error.contains("http.tls.certificate")));
    }

    #[test]
    fn r20_wildcards_and_what_is_no_name_are_refused() {
        let with = |line: &str| checked(&format!("listen = \"127.0.0.1:1\"\n{line}"));
        for wild in ["hosts = [\"*\"]", "origins = [\"*\"]", "origins = [\"https://*.example.com\"]"] {
            assert!(with(wild).is_err_and(|error| error.contains("everybody")), "{wild}");
        }
        for wrong in
            ["hosts = [\"a b\"]", "hosts = [\"u@h\"]", "hosts = [\"\"]", "origins = [\"null\"]", "origins = [\"a\"]"]
        {
            assert!(with(wrong).is_err(), "{wrong}");
        }
        assert!(with("hosts = [\"keep.example.com\", \"keep.example.com:8443\"]").is_ok());
        assert!(with("gid = 1").is_err_and(|error| error.contains("Unix")));
    }

    #[test]
    fn t_i6_a_socket_among_the_daemons_own_folders_is_refused() {
        let refused = |path: &str| {
            let config = checked(&format!("listen = \"unix:{path}/http.sock\"")).expect(path).expect("it listens");
            config.refuse_own_folders(["/var/keep", "/run/keep"].map(Path::new)).is_err_and(|error| {
                assert!(error.to_string().contains("http.listen"), "{error}");
                true
            })
        };
        for own in ["/run/keep", "/run/keep/agent", "/run/keep/admin", "/var/keep"] {
            assert!(refused(own), "{own}");
        }
        for fine in ["/run/keep/http", "/var/keep/http", "/run"] {
            assert!(!refused(fine), "{fine}");
        }
    }

    #[test]
    fn t_i7_names_of_a_proxy_bring_the_token_with_them() {
        let token = |lines: &str| {
            checked(&format!("listen = \"127.0.0.1:1\"\n{lines}")).map(|config| config.is_some_and(|c| c.metrics_token))
        };
        let hosts = "hosts = [\"keep.example.com\"]\n";
        assert_eq!((token(""), token("metrics_token = true"), token(hosts)), (Ok(false), Ok(true), Ok(true)));
        let refused = token(&format!("{hosts}metrics_token = false")).expect_err("it would protect nothing");
        assert!(refused.contains("http.metrics_token"), "{refused}");
    }

    #[test]
    fn names_are_counted() {
        let names = |n: usize| {
            let list: Vec<String> = (0..n).map(|k| format!("\"h{k}.example\"")).collect();
            checked(&format!("listen = \"127.0.0.1:1\"\nhosts = [{}]", list.join(",")))
        };
        assert!(names(NAMES_MAX).is_ok() && names(NAMES_MAX + 1).is_err());
    }
}
