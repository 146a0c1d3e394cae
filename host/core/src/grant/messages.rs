//! Grants of channels: which messages a tool may send, to whom, and how many.

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

use super::{MESSAGES_PER_CALL, PATTERNS_MAX};
use crate::id::ChannelName;
use crate::manifest::BadManifest;

/// `[[message]]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MessageText {
    /// A channel of the daemon's configuration.
    pub channel: ChannelName,
    /// Patterns of receivers, for example `["*@example.com"]`; left out where the channel has one receiver of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub to: Vec<String>,
    /// Messages of one call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages: Option<u64>,
}

/// A checked entry of `[[message]]`.
#[derive(Debug, Clone)]
pub struct MessageGrant {
    /// The channel.
    pub channel: ChannelName,
    /// The patterns of receivers, as written.
    pub to: Vec<String>,
    /// Messages of one call, at most.
    pub messages: u64,
    matchers: Vec<GlobMatcher>,
}

impl MessageGrant {
    /// Whether the receiver is granted. Patterns match without regard to ASCII case.
    #[must_use]
    pub fn allows(&self, receiver: &str) -> bool {
        let receiver = receiver.to_ascii_lowercase();
        self.matchers.iter().any(|matcher| matcher.is_match(&receiver))
    }
}

impl MessageText {
    /// What the entry means.
    ///
    /// # Errors
    /// The first key that is wrong, and why.
    pub fn check(&self) -> Result<MessageGrant, BadManifest> {
        let key = |part: &str| format!("message.{}.{part}", self.channel);
        if self.to.len() > PATTERNS_MAX {
            return Err(BadManifest::new(key("to"), format!("{} patterns; at most {PATTERNS_MAX}", self.to.len())));
        }
        let compile = |pattern: &String| {
            let glob = GlobBuilder::new(&pattern.to_ascii_lowercase()).backslash_escape(false).build();
            glob.map(|glob| glob.compile_matcher())
                .map_err(|error| BadManifest::new(key("to"), format!("`{pattern}`: {}", error.kind())))
        };
        Ok(MessageGrant {
            channel: self.channel.clone(),
            to: self.to.clone(),
            messages: MESSAGES_PER_CALL.pick(|| key("messages"), self.messages)?,
            matchers: self.to.iter().map(compile).collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn receivers_are_matched_by_their_patterns() {
        let text: MessageText =
            serde_json::from_value(json!({"channel": "mail", "to": ["*@Example.com"]})).expect("text");
        let grant = text.check().expect("valid");
        assert!(grant.allows("ann@example.COM") && !grant.allows("ann@example.com.evil.org"));
    }
}
