//! Messages through the channels that the manifest grants. Staged: they leave after the plan was committed.

use crate::error::Error;
use crate::host;

/// A message.
///
/// ```
/// use toolkeep_sdk::messages::Message;
/// use toolkeep_sdk::testing::Harness;
///
/// let harness = Harness::new().channel("mail");
/// harness.inside(|| Message::text("mail", ["ann@example.com"], "Report", "All is well.").send())?;
/// # Ok::<_, toolkeep_sdk::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a message does nothing before it is sent"]
pub struct Message {
    /// The channel.
    pub channel: String,
    /// Who gets it, at most 100; empty where the channel has a receiver of its own.
    pub to: Vec<String>,
    /// Its subject, one line of at most 900 bytes; may be empty.
    pub subject: String,
    /// Its media type.
    pub media_type: String,
    /// Its body, at most 256 KiB.
    pub body: Vec<u8>,
}

impl Message {
    /// A plain text.
    pub fn text<R: Into<String>>(
        channel: impl Into<String>,
        to: impl IntoIterator<Item = R>,
        subject: impl Into<String>,
        text: impl Into<String>,
    ) -> Self {
        Self {
            channel: channel.into(),
            to: to.into_iter().map(Into::into).collect(),
            subject: subject.into(),
            media_type: "text/plain; charset=utf-8".to_owned(),
            body: text.into().into_bytes(),
        }
    }

    /// Stage it.
    ///
    /// # Errors
    /// Denied if no grant allows the channel or a receiver, or the call has sent as many as it may; invalid-input if a part
    /// is too long or malformed.
    pub fn send(self) -> Result<(), Error> {
        host::send_message(self)
    }
}
