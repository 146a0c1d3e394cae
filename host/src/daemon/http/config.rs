//! `[http]`: where the HTTP door listens, and under which names and from which pages it may be asked.
//!
//! Without the section nothing listens. Names are lists of what is meant; `*` is refused, because a list that means
//! everybody protects nobody (R20).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
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
    /// `ADDRESS:PORT` on a loopback address, or `unix:PATH`.
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
}

/// Where the door listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address.
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
    /// Whether `/metrics` wants a token even where it is asked under a name of the loopback. Always where there are `hosts`:
    /// whoever is behind the proxy that has them can write the loopback's name too.
    pub metrics_token: bool,
    /// Group that may reach a Unix socket; the daemon's own if absent.
    pub group: Option<u32>,
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
            if self.hosts.is_empty() && self.origins.is_empty() && self.metrics_token.is_none() && self.gid.is_none() {
                return Ok(None);
            }
            return Err(ConfigError::value("http.listen", "is missing; write `listen = \"127.0.0.1:9464\"`"));
        };
        let listen = self.listen(listen, base)?;
        if self.metrics_token == Some(false) && !self.hosts.is_empty() {
            let problem =
                "cannot be false beside `http.hosts`: who comes through the proxy may write any name in `Host`";
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
            metrics_token: self.metrics_token.unwrap_or(!self.hosts.is_empty()),
            group: self.gid,
        }))
    }

    fn listen(&self, text: &str, base: Option<&Path>) -> Result<Listen, ConfigError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return absolute("http.listen", Path::new(path), base).map(Listen::Unix);
        }
        if self.gid.is_some() {
            return Err(ConfigError::value("http.gid", "is for a Unix socket; an address has no group"));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            let problem = format!("`{text}` is no address; write `127.0.0.1:9464`, `[::1]:9464` or `unix:PATH`");
            ConfigError::value("http.listen", problem)
        })?;
        let loopback = match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        };
        if !loopback {
            let problem = format!(
                "`{address}` can be reached by others, and this door has no TLS; listen on 127.0.0.1 or a Unix socket, \
                 and put a proxy with TLS in front of it"
            );
            return Err(ConfigError::value("http.listen", problem));
        }
        Ok(Listen::Tcp(address))
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
        for alone in ["hosts = [\"a.example\"]", "origins = [\"https://a.example\"]", "metrics_token = true", "gid = 1"]
        {
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
            assert!(refused.contains("TLS"), "{refused}");
        }
        for wrong in ["localhost:80", "127.0.0.1", "80", "", "unix:../x"] {
            assert!(checked(&format!("listen = {wrong:?}")).is_err(), "{wrong}");
        }
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
