//! What a client carries from a question to its answer: `requestState` of the newer era.
//!
//! The daemon remembers nothing between the two, so the client carries it, and what it brings back is believed as far as the
//! MAC under it says that it was written here, for this caller, this call of this tool and this plan, a short time ago. That it
//! counts once is not its business: the ledger takes the first answer to a plan. The key lives as long as the process;
//! after a restart a question is asked again, and the plan waits as before.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::Sha256;
use toolkeep_core::digest::Digest;
use toolkeep_core::id::ApprovalId;
use toolkeep_core::json::canonical;

use crate::ambient::Ambient;
use crate::authenticate::Caller;

/// How long an answer may take, in milliseconds: a quarter of an hour, after which nobody remembers the question.
pub(super) const STATE_TTL_MS: u64 = 15 * 60 * 1_000;
/// Longest state that is looked at, in bytes; ours have some three hundred.
const STATE_MAX_BYTES: usize = 2_048;
/// Bytes of the key: those of the digest.
const KEY_BYTES: usize = 32;
/// What the MAC is over before anything else, so that it means nothing anywhere else.
const DOMAIN: &[u8] = b"toolkeep mcp request-state 1\0";

/// How something was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Manner {
    /// With a form, whose answer may be enough.
    Form,
    /// With an address, where people decide.
    Page,
}

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Posed {
    /// The approval that the plan waits for.
    pub(super) approval: ApprovalId,
    /// The seal of the plan.
    pub(super) seal: Digest,
    /// How it was asked.
    pub(super) manner: Manner,
    /// Until when an answer is taken, in milliseconds since the Unix epoch.
    pub(super) until_ms: u64,
}

/// What travels under the MAC: who called what, and what was asked.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Claims {
    caller: Digest,
    call: Digest,
    asked: Posed,
}

/// Writes and reads states. Cheap to clone.
#[derive(Clone)]
pub(super) struct States(Arc<[u8; KEY_BYTES]>);

impl fmt::Debug for States {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("States")
    }
}

/// What names a call of a tool: the same for the request that is repeated with an answer, and for no other. Nothing where the
/// arguments have no canonical text: they are refused elsewhere.
pub(super) fn name_of_call(name: &str, arguments: &Value) -> Option<Digest> {
    let text = canonical(&json!({"method": "tools/call", "name": name, "arguments": arguments})).ok()?;
    Some(Digest::of(text.as_bytes()))
}

/// What names a caller: the principal and how it was authenticated.
fn name_of_caller(caller: &Caller) -> Digest {
    let (principal, origin) = caller.who();
    let text = json!({"principal": principal, "credential": origin.credential.to_string(), "session": origin.session});
    Digest::of(text.to_string().as_bytes())
}

impl States {
    /// With a fresh key.
    pub(super) fn new(ambient: &Ambient) -> Self {
        Self(Arc::new(ambient.random()))
    }

    /// The state that a caller carries until its call is answered.
    pub(super) fn write(&self, caller: &Caller, call: Digest, asked: &Posed) -> Option<String> {
        self.seal(&Claims { caller: name_of_caller(caller), call, asked: asked.clone() })
    }

    /// What was asked of this caller about this call, if it was and the answer is still taken.
    pub(super) fn read(&self, state: &str, caller: &Caller, call: Digest, now_ms: u64) -> Option<Posed> {
        let claims = self.open(state)?;
        let fits = claims.caller == name_of_caller(caller) && claims.call == call && now_ms < claims.asked.until_ms;
        fits.then_some(claims.asked)
    }

    fn seal(&self, claims: &Claims) -> Option<String> {
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).ok()?);
        let mac = URL_SAFE_NO_PAD.encode(self.mac(body.as_bytes())?.finalize().into_bytes());
        Some(format!("{body}.{mac}"))
    }

    fn open(&self, state: &str) -> Option<Claims> {
        let (body, mac) = state.split_once('.').filter(|_| state.len() <= STATE_MAX_BYTES)?;
        self.mac(body.as_bytes())?.verify_slice(&URL_SAFE_NO_PAD.decode(mac).ok()?).ok()?;
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).ok()?).ok()
    }

    fn mac(&self, body: &[u8]) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&*self.0).ok()?;
        mac.update(DOMAIN);
        mac.update(body);
        Some(mac)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use toolkeep_core::principal::{Credential, Origin, Principal};

    use super::*;

    fn states(seed: u64) -> States {
        States::new(&Ambient::fixed(0, seed, BTreeMap::new()))
    }

    fn asked() -> Posed {
        let approval = ApprovalId::new(uuid::Uuid::from_u128(7));
        Posed { approval, seal: Digest::of(b"plan"), manner: Manner::Form, until_ms: 100 }
    }

    #[test]
    fn t_p4_a_state_is_what_was_written_here_to_the_last_bit() {
        let (caller, call) = (Digest::of(b"who"), Digest::of(b"what"));
        let (states, whole) = (states(1), Claims { caller, call, asked: asked() });
        let text = states.seal(&whole).expect("a state");
        assert!(text.len() < STATE_MAX_BYTES / 2, "{}", text.len());
        assert_eq!(states.open(&text), Some(whole));
        for at in 0..text.len() {
            let mut forged = text.clone().into_bytes();
            forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
            assert!(states.open(std::str::from_utf8(&forged).expect("ASCII")).is_none(), "byte {at}");
        }
        let (body, mac) = text.split_once('.').expect("two parts");
        let longer = format!("{text}{}", "A".repeat(STATE_MAX_BYTES));
        for wrong in ["", ".", body, mac, &format!("{body}."), &format!(".{mac}"), &format!("{text}="), &longer] {
            assert!(states.open(wrong).is_none(), "{wrong}");
        }
        assert!(self::states(2).open(&text).is_none(), "another process has another key");
    }

    fn caller(user: &str, uid: u32) -> Caller {
        let name = |text: &str| text.parse().expect("a name");
        let principal =
            Principal { tenant: "t".parse().expect("a name"), user: name(user), agent: "a".parse().expect("a name") };
        Caller::resumed((&principal, &Origin::of(Credential::AgentUid(uid))), None)
    }

    #[test]
    fn t_p4_a_state_is_taken_from_its_caller_for_its_call_until_its_time_is_over() {
        let (states, mine, call) = (states(1), caller("ann", 1), Digest::of(b"what"));
        let text = states.write(&mine, call, &asked()).expect("a state");
        let until = asked().until_ms;
        assert_eq!(states.read(&text, &mine, call, 0), Some(asked()));
        assert_eq!(states.read(&text, &mine, call, until - 1), Some(asked()), "the last moment");
        for now_ms in [until, until + 1, u64::MAX] {
            assert_eq!(states.read(&text, &mine, call, now_ms), None, "{now_ms}");
        }
        for other in [caller("bob", 1), caller("ann", 2)] {
            assert_eq!(states.read(&text, &other, call, 0), None, "{other:?}");
        }
        assert_eq!(states.read(&text, &mine, Digest::of(b"something else"), 0), None);
    }

    #[test]
    fn a_call_is_named_by_its_tool_and_its_arguments_however_they_are_written() {
        let named = |name: &str, arguments: Value| name_of_call(name, &arguments).expect("canonical");
        let one = named("notes.add", json!({"a": 1, "b": [2]}));
        assert_eq!(one, named("notes.add", serde_json::from_str("{\"b\": [2], \"a\": 1}").expect("JSON")));
        for other in [
            named("notes.add", json!({"a": 1, "b": [3]})),
            named("notes.add.preview", json!({"a": 1, "b": [2]})),
            named("notes.add", json!({})),
        ] {
            assert_ne!(one, other);
        }
    }
}
