//! Attack: panics with a message.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "../../../wit",
    world: "guest",
});

use exports::toolkeep::tool::tool::{Error, Guest};

/// What `describe` answers.
const DESCRIPTION: &str = include_str!("description.json");

struct Attack;

impl Guest for Attack {
    fn describe() -> String {
        DESCRIPTION.to_owned()
    }

    #[expect(clippy::panic, reason = "this is the attack")]
    fn invoke(_name: String, _input: String) -> Result<String, Error> {
        panic!("the tool panics on purpose")
    }
}

export!(Attack);
