//! Channels as the configuration writes them, and what that means.
//!
//! ```toml
//! [channel.ops]
//! kind = "webhook"
//! url = "https://hooks.example.com/toolkeep"
//! secret = ["ops-new", "ops-old"]
//! ```
//!
//! Manifests grant a channel by its name; where it leads, and with which secret, is for the operator alone.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toolkeep_core::delivery::{ATTEMPTS_DEFAULT, ATTEMPTS_MOST, RECEIVERS_MAX};
use toolkeep_core::id::{ChannelName, SecretName, TenantName};
use toolkeep_core::net::origin::{HostName, Origin, Scheme};
use toolkeep_core::net::reach::Network;

use super::file::FileChannel;
use super::smtp::{Smtp, SmtpTls};
use super::webhook::Webhook;
use crate::config::{ConfigError, absolute};

/// Signing keys of one webhook: the one in force and those that receivers may still check.
const SECRETS_MAX: usize = 4;

/// `[channel.NAME]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChannelText {
    /// What it is.
    pub kind: ChannelKind,
    /// Whose tools and alerts may use it; everybody's if absent.
    pub tenant: Option<TenantName>,
    /// Attempts before a delivery becomes a dead letter; 8 if absent.
    pub attempts: Option<u32>,
    /// `webhook`, `smtp`: the host may be a loopback or private address.
    #[serde(default)]
    pub allow_private: bool,
    /// `webhook`: where requests go.
    pub url: Option<String>,
    /// `webhook`: the keys that sign, newest first. `smtp`: the password of `user`.
    pub secret: Option<SecretNames>,
    /// `smtp`: the server.
    pub host: Option<String>,
    /// `smtp`: its port; 465 for `implicit`, 587 for `starttls`, 25 for `none`.
    pub port: Option<u16>,
    /// `smtp`: how the connection is protected; `implicit` if absent.
    pub tls: Option<SmtpTls>,
    /// `smtp`: the sender.
    pub from: Option<String>,
    /// `smtp`: receivers of messages that name none.
    #[serde(default)]
    pub to: Vec<String>,
    /// `smtp`: who logs in; nobody if absent.
    pub user: Option<String>,
    /// `file`: where it is.
    pub path: Option<PathBuf>,
}

/// One name or several.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum SecretNames {
    /// One.
    One(SecretName),
    /// Several.
    Many(Vec<SecretName>),
}

/// What a channel is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ChannelKind {
    /// Requests with a signature (Standard Webhooks).
    Webhook,
    /// Mail.
    Smtp,
    /// Lines of a file.
    File,
}

/// A checked `[channel.NAME]`.
#[derive(Debug, Clone)]
pub struct ChannelConfig {
    /// Whose it is; nobody's for a shared one.
    pub tenant: Option<TenantName>,
    /// Attempts before a delivery becomes a dead letter.
    pub attempts: u32,
    /// How it sends.
    pub way: Way,
}

/// How a channel sends.
#[derive(Debug, Clone)]
pub enum Way {
    /// Requests with a signature.
    Webhook(Webhook),
    /// Mail.
    Smtp(Box<Smtp>),
    /// Lines of a file.
    File(FileChannel),
}

impl Way {
    /// Attempts at one time: what a receiver bears, and one for a file.
    #[must_use]
    pub const fn at_once(&self) -> usize {
        match self {
            Self::Webhook(_) => 8,
            Self::Smtp(_) => 2,
            Self::File(_) => 1,
        }
    }

    /// Whether a message without receivers of its own can go this way.
    #[must_use]
    pub const fn has_receiver(&self) -> bool {
        match self {
            Self::Webhook(_) | Self::File(_) => true,
            Self::Smtp(smtp) => smtp.has_receiver(),
        }
    }
}

impl ChannelText {
    /// What the text means. Relative paths are relative to `base`.
    ///
    /// # Errors
    /// A key is missing, belongs to another kind, or has a value that makes no sense.
    pub fn check(&self, name: &ChannelName, base: Option<&Path>) -> Result<ChannelConfig, ConfigError> {
        let refuse = |key: &str, problem: &str| ConfigError::value(format!("channel.{name}.{key}"), problem);
        let (webhook, smtp, file) =
            (self.kind == ChannelKind::Webhook, self.kind == ChannelKind::Smtp, self.kind == ChannelKind::File);
        let foreign = [
            ("url", self.url.is_some() && !webhook),
            ("path", self.path.is_some() && !file),
            ("allow_private", self.allow_private && file),
            ("secret", self.secret.is_some() && file),
            ("host", self.host.is_some() && !smtp),
            ("port", self.port.is_some() && !smtp),
            ("tls", self.tls.is_some() && !smtp),
            ("from", self.from.is_some() && !smtp),
            ("to", !self.to.is_empty() && !smtp),
            ("user", self.user.is_some() && !smtp),
        ];
        if let Some((key, _)) = foreign.iter().find(|(_, foreign)| *foreign) {
            return Err(refuse(key, "the key belongs to another `kind`"));
        }
        let attempts = self.attempts.unwrap_or(ATTEMPTS_DEFAULT);
        if !(1..=ATTEMPTS_MOST).contains(&attempts) {
            return Err(refuse("attempts", "write 1 to 20"));
        }
        let way = match self.kind {
            ChannelKind::Webhook => Way::Webhook(self.webhook(&refuse)?),
            ChannelKind::Smtp => Way::Smtp(Box::new(self.smtp(&refuse)?)),
            ChannelKind::File => match &self.path {
                Some(path) => Way::File(FileChannel::new(absolute(&format!("channel.{name}.path"), path, base)?)),
                None => return Err(refuse("path", "is missing; write where the file is")),
            },
        };
        Ok(ChannelConfig { tenant: self.tenant.clone(), attempts, way })
    }

    const fn network(&self) -> Network {
        if self.allow_private { Network::Private } else { Network::Global }
    }

    fn secrets(&self) -> Vec<SecretName> {
        match &self.secret {
            None => Vec::new(),
            Some(SecretNames::One(name)) => vec![name.clone()],
            Some(SecretNames::Many(names)) => names.clone(),
        }
    }

    fn webhook(&self, refuse: &impl Fn(&str, &str) -> ConfigError) -> Result<Webhook, ConfigError> {
        let url = self.url.as_deref().ok_or_else(|| refuse("url", "is missing; write where requests go"))?;
        let (origin, target) = Origin::split_url(url).map_err(|error| refuse("url", &error.to_string()))?;
        if origin.scheme() == Scheme::Http && !self.allow_private {
            return Err(refuse("url", "without TLS everybody on the way reads it; write `https://`"));
        }
        let secrets = self.secrets();
        if secrets.is_empty() || secrets.len() > SECRETS_MAX {
            return Err(refuse("secret", "name the secrets that sign, 1 to 4, newest first"));
        }
        Ok(Webhook { origin, target, secrets, network: self.network() })
    }

    fn smtp(&self, refuse: &impl Fn(&str, &str) -> ConfigError) -> Result<Smtp, ConfigError> {
        let host = self.host.as_deref().ok_or_else(|| refuse("host", "is missing; write the mail server"))?;
        let host = HostName::parse(host).map_err(|error| refuse("host", &error.to_string()))?;
        let tls = self.tls.unwrap_or_default();
        if tls == SmtpTls::None && !self.allow_private {
            return Err(refuse("tls", "without TLS only a private server is spoken to; set `allow_private = true`"));
        }
        let from = self.from.as_deref().ok_or_else(|| refuse("from", "is missing; write the sender's address"))?;
        let (user, password) = match (self.user.clone(), self.secrets().as_slice()) {
            (None, []) => (None, None),
            (Some(user), [secret]) => (Some(user), Some(secret.clone())),
            _ => return Err(refuse("secret", "write `user` and one `secret` with the password, or neither")),
        };
        if self.to.len() > RECEIVERS_MAX {
            return Err(refuse("to", "has more than 100 receivers"));
        }
        if self.port == Some(0) {
            return Err(refuse("port", "write 1 to 65535"));
        }
        let smtp = Smtp {
            host,
            port: self.port.unwrap_or_else(|| tls.port()),
            tls,
            from: from.to_owned(),
            to: self.to.clone(),
            login: user.zip(password),
            network: self.network(),
        };
        smtp.check().map_err(|(key, problem)| refuse(key, &problem))?;
        Ok(smtp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<ChannelConfig, String> {
        let text: ChannelText = toml::from_str(text).map_err(|error| error.to_string())?;
        text.check(&"ops".parse().expect("name"), Some(Path::new("/etc/toolkeep"))).map_err(|error| error.to_string())
    }

    #[test]
    fn each_kind_takes_its_own_keys() {
        for (text, at_once, has_receiver) in [
            ("kind = \"webhook\"\nurl = \"https://hooks.example.com/x?y=z\"\nsecret = \"a\"", 8, true),
            (
                "kind = \"webhook\"\nurl = \"http://127.0.0.1:9/\"\nsecret = [\"a\", \"b\"]\nallow_private = true",
                8,
                true,
            ),
            ("kind = \"smtp\"\nhost = \"mail.example.com\"\nfrom = \"a@example.com\"", 2, false),
            (
                "kind = \"smtp\"\nhost = \"[::1]\"\ntls = \"none\"\nallow_private = true\nfrom = \"a@b.c\"\nto = [\"d@e.f\"]",
                2,
                true,
            ),
            ("kind = \"file\"\npath = \"out.jsonl\"\ntenant = \"acme\"\nattempts = 20", 1, true),
        ] {
            let channel = check(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((channel.way.at_once(), channel.way.has_receiver()), (at_once, has_receiver), "{text}");
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        let webhook = "kind = \"webhook\"\nurl = \"https://h.example\"\nsecret = \"a\"\n";
        let smtp = "kind = \"smtp\"\nhost = \"mail.example.com\"\nfrom = \"a@example.com\"\n";
        let file = "kind = \"file\"\npath = \"/x\"\n";
        for (text, key) in [
            ("kind = \"pigeon\"".to_owned(), "pigeon"),
            ("kind = \"webhook\"\nsecret = \"a\"".to_owned(), "channel.ops.url"),
            ("kind = \"webhook\"\nurl = \"https://h.example\"".to_owned(), "channel.ops.secret"),
            ("kind = \"webhook\"\nurl = \"http://h.example\"\nsecret = \"a\"".to_owned(), "channel.ops.url"),
            ("kind = \"webhook\"\nurl = \"https://u:p@h.example\"\nsecret = \"a\"".to_owned(), "channel.ops.url"),
            (
                "kind = \"webhook\"\nurl = \"https://h\"\nsecret = [\"a\",\"b\",\"c\",\"d\",\"e\"]".to_owned(),
                "channel.ops.secret",
            ),
            (format!("{webhook}attempts = 0"), "channel.ops.attempts"),
            (format!("{webhook}attempts = 21"), "channel.ops.attempts"),
            (format!("{webhook}path = \"/x\""), "channel.ops.path"),
            (format!("{webhook}user = \"u\""), "channel.ops.user"),
            (format!("{webhook}bcc = \"u\""), "bcc"),
            ("kind = \"smtp\"\nfrom = \"a@b.c\"".to_owned(), "channel.ops.host"),
            ("kind = \"smtp\"\nhost = \"h\"".to_owned(), "channel.ops.from"),
            ("kind = \"smtp\"\nhost = \"h\"\nfrom = \"Ann <a@b.c>\"".to_owned(), "channel.ops.from"),
            (format!("{smtp}to = [\"x\"]"), "channel.ops.to"),
            (format!("{smtp}tls = \"none\""), "channel.ops.tls"),
            (format!("{smtp}user = \"u\""), "channel.ops.secret"),
            (format!("{smtp}secret = \"s\""), "channel.ops.secret"),
            (format!("{smtp}port = 0"), "channel.ops.port"),
            (format!("{smtp}url = \"https://h\""), "channel.ops.url"),
            ("kind = \"file\"".to_owned(), "channel.ops.path"),
            ("kind = \"file\"\npath = \"../x\"".to_owned(), "channel.ops.path"),
            (format!("{file}allow_private = true"), "channel.ops.allow_private"),
            (format!("{file}secret = \"s\""), "channel.ops.secret"),
        ] {
            let error = check(&text).expect_err(&text);
            assert!(error.contains(key), "{text}: {error}");
        }
    }
}
