//! Mail: one SMTP transaction for each attempt (RFC 5321), over a connection of the egress.
//!
//! `Message-ID` derives from the delivery's id, so that a mailbox shows a repetition as one. With `starttls` nothing that was
//! said before the handshake counts after it: what a stranger slipped in before breaks the handshake. The receivers of
//! one message are one transaction: the server takes all of them or the message goes to none.

mod compose;
mod upgrade;

use core::net::IpAddr;
use std::time::Duration;

use lettre::transport::smtp::authentication::{Credentials, Mechanism};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use serde::Deserialize;
use toolkeep_core::id::{ChannelName, SecretName};
use toolkeep_core::net::origin::HostName;
use toolkeep_core::net::reach::{Network, Reach, reach};

use super::{NotTaken, Parcel, shown};
use crate::egress::{Egress, Endpoint, GuardedStream, Limits, Protection, SendError};
use crate::secrets::{Redactor, Slot};

/// How long one attempt may take: a server may look at a message for a while (RFC 5321, section 4.5.3.2, less patience).
const TOTAL: Duration = Duration::from_secs(120);

/// How the connection is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SmtpTls {
    /// TLS from the first byte (RFC 8314).
    #[default]
    Implicit,
    /// TLS after `STARTTLS`, and nothing without (RFC 3207).
    StartTls,
    /// No TLS: only to this machine or a private network.
    None,
}

impl SmtpTls {
    /// The port where the configuration names none.
    pub(super) const fn port(self) -> u16 {
        match self {
            Self::Implicit => 465,
            Self::StartTls => 587,
            Self::None => 25,
        }
    }
}

/// A mail server.
#[derive(Debug, Clone)]
pub struct Smtp {
    pub(super) host: HostName,
    pub(super) port: u16,
    pub(super) tls: SmtpTls,
    pub(super) from: String,
    pub(super) to: Vec<String>,
    pub(super) login: Option<(String, SecretName)>,
    pub(super) network: Network,
}

impl Smtp {
    /// Whether the addresses are addresses.
    ///
    /// # Errors
    /// The key that is wrong, and why.
    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        compose::address(&self.from).map_err(|problem| ("from", problem))?;
        self.to.iter().try_for_each(|to| compose::address(to).map(|_address| ()).map_err(|problem| ("to", problem)))
    }

    pub(super) const fn has_receiver(&self) -> bool {
        !self.to.is_empty()
    }

    pub(super) async fn send(
        &self,
        channel: &ChannelName,
        parcel: &Parcel,
        egress: &Egress,
    ) -> Result<String, NotTaken> {
        let attempt = tokio::time::timeout(TOTAL, self.attempt(channel, parcel, egress));
        attempt.await.unwrap_or_else(|_| Err(NotTaken::later("the mail server took too long")))
    }

    /// What the server says is kept and shown, so the password that it was sent is taken out of it.
    async fn attempt(&self, channel: &ChannelName, parcel: &Parcel, egress: &Egress) -> Result<String, NotTaken> {
        let mut redactor = Redactor::default();
        let said = self.transaction(channel, parcel, egress, &mut redactor).await;
        let scrubbed = |text: String| match redactor.scrub(text.as_bytes(), true) {
            Some(text) => String::from_utf8_lossy(&text).into_owned(),
            None => text,
        };
        said.map(scrubbed).map_err(|error| match error {
            NotTaken::Later { why, wait_ms } => NotTaken::Later { why: scrubbed(why), wait_ms },
            NotTaken::Never(why) => NotTaken::Never(scrubbed(why)),
            NotTaken::Withheld => NotTaken::Withheld,
        })
    }

    async fn transaction(
        &self,
        channel: &ChannelName,
        parcel: &Parcel,
        egress: &Egress,
        redactor: &mut Redactor,
    ) -> Result<String, NotTaken> {
        let mail = compose::mail(self, parcel).map_err(NotTaken::Never)?;
        let stream = self.connect(egress).await?;
        let peer = stream.peer().ip();
        let hello = ClientId::Domain(self.domain().to_owned());
        let opened = match self.tls {
            SmtpTls::StartTls => {
                let stream = upgrade::start_tls(stream, self, egress).await?;
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await
            }
            SmtpTls::Implicit | SmtpTls::None => {
                AsyncSmtpConnection::connect_with_transport(Box::new(stream), &hello).await
            }
        };
        let mut server = opened.map_err(|error| passing(&error))?;
        if let Some(credentials) = self.credentials(channel, egress, peer, redactor).await? {
            // A wrong password is the operator's to mend: the message itself is not at fault.
            let login = server.auth(&[Mechanism::Plain, Mechanism::Login], &credentials).await;
            login.map_err(|_| NotTaken::later("the mail server refuses the login"))?;
        }
        let text = mail.formatted();
        // The line end before the last dot is the library's.
        let text = text.strip_suffix(b"\r\n").unwrap_or(&text);
        if !parcel.clearance.allows() {
            let _ended = server.quit().await;
            return Err(NotTaken::Withheld);
        }
        let answer = server.send(mail.envelope(), text).await.map_err(|error| judged(&error))?;
        // The message is the server's now; how the connection ends does not matter any more.
        let _ended = server.quit().await;
        Ok(shown(&format!("{}: {}", answer.code(), answer.first_line().unwrap_or_default())))
    }

    async fn connect(&self, egress: &Egress) -> Result<GuardedStream, NotTaken> {
        let protection = if self.tls == SmtpTls::Implicit { Protection::Tls } else { Protection::Plain };
        let endpoint = Endpoint { host: self.host.clone(), port: self.port, protection, network: self.network };
        let stream = egress.connect(&endpoint, &Limits::default()).await.map_err(|error| unreachable(&error))?;
        let private = matches!(reach(stream.peer().ip()).reach, Reach::Loopback | Reach::Private);
        if self.tls == SmtpTls::None && !private {
            return Err(NotTaken::Never("without TLS only a private server is spoken to; set `tls`".to_owned()));
        }
        Ok(stream)
    }

    async fn credentials(
        &self,
        channel: &ChannelName,
        egress: &Egress,
        peer: IpAddr,
        redactor: &mut Redactor,
    ) -> Result<Option<Credentials>, NotTaken> {
        let Some((user, secret)) = &self.login else { return Ok(None) };
        if self.tls == SmtpTls::None && reach(peer).reach != Reach::Loopback {
            return Err(NotTaken::Never("a password is not sent without TLS; set `tls`".to_owned()));
        }
        let password = egress.secrets().for_channel(channel, secret).await;
        let password = password.map_err(|error| NotTaken::later(error.to_string()))?;
        redactor.add(secret, &password, &Slot::Bearer);
        let password = String::from_utf8_lossy(password.bytes()).into_owned();
        Ok(Some(Credentials::new(user.clone(), password)))
    }

    /// What we call ourselves, and what message ids end in: the sender's domain.
    fn domain(&self) -> &str {
        self.from.rsplit_once('@').map_or("localhost", |(_, domain)| domain)
    }
}

fn unreachable(error: &SendError) -> NotTaken {
    let why = error.to_string();
    if error.reason().is_refusal() { NotTaken::Never(why) } else { NotTaken::later(why) }
}

/// A failure before the message was named: of the connection, never of the message.
fn passing(error: &lettre::transport::smtp::Error) -> NotTaken {
    NotTaken::later(shown(&error.to_string()))
}

/// What the server says of the message: 5yz refuses it for good, as does what cannot be said in SMTP at all.
fn judged(error: &lettre::transport::smtp::Error) -> NotTaken {
    if error.is_permanent() || error.is_client() {
        return NotTaken::Never(shown(&error.to_string()));
    }
    passing(error)
}
