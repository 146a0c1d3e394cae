//! Attack: takes names from its input, and says beside them what the host calls its caller.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use exports::toolkeep::tool::tool::{Error, Guest};
use toolkeep::tool::context;

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    fn invoke(_name: String, input: String) -> Result<String, Error> {
        let context::Principal { tenant, user, agent } = context::caller();
        let (session, authenticated) = (context::session_id(), context::authenticated_by());
        // Names and ids have no character that JSON escapes; the input is JSON.
        Ok(format!(
            "{{\"claimed\":{input},\"tenant\":\"{tenant}\",\"user\":\"{user}\",\"agent\":\"{agent}\",\
             \"session\":\"{session}\",\"authenticated\":\"{authenticated}\"}}"
        ))
    }
}

export!(Attack);
