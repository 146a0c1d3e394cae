//! What a client says that it can ask its user.
//!
//! Said in `initialize` or with each request, by whoever writes the client: it decides what is asked and how, and never what an
//! answer is worth.

use serde_json::{Map, Value};

/// Ways in which a client can ask somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Capable {
    /// It shows a form and returns what was written into it.
    pub(super) form: bool,
    /// It opens an address for its user, and learns nothing of what happens there.
    pub(super) page: bool,
}

impl Capable {
    /// What the capabilities of a client say, in a revision that knows of both.
    pub(super) fn of(capabilities: Option<&Value>) -> Self {
        let Some(Value::Object(said)) = capabilities.and_then(|all| all.get("elicitation")) else {
            return Self::default();
        };
        let has = |mode: &str| said.get(mode).is_some_and(Value::is_object);
        // The revision before there were modes.
        Self { form: said.is_empty() || has("form"), page: has("url") }
    }

    /// What `initialize` says in a revision: the older one knows of forms only.
    pub(super) fn greeted(params: &Map<String, Value>, version: &str) -> Self {
        let capabilities = params.get("capabilities");
        if version == super::era::BEFORE_MODES {
            let form = capabilities.and_then(|all| all.get("elicitation")).is_some_and(Value::is_object);
            return Self { form, page: false };
        }
        Self::of(capabilities)
    }

    /// Whether it can ask anybody.
    pub(super) const fn any(self) -> bool {
        self.form || self.page
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn r51_what_a_client_can_ask_is_what_it_says_in_the_words_of_its_revision() {
        let (form, page) = (Capable { form: true, page: false }, Capable { form: false, page: true });
        let (both, none) = (Capable { form: true, page: true }, Capable::default());
        for (said, newer, older) in [
            (json!({}), none, none),
            (json!({"elicitation": {}}), form, form),
            (json!({"elicitation": {"form": {}}}), form, form),
            (json!({"elicitation": {"url": {}}}), page, form),
            (json!({"elicitation": {"form": {}, "url": {}}}), both, form),
            (json!({"elicitation": {"url": true}}), none, form),
            (json!({"elicitation": {"other": {}}}), none, form),
            (json!({"elicitation": true}), none, none),
            (json!({"elicitation": null}), none, none),
            (json!([]), none, none),
        ] {
            assert_eq!(Capable::of(Some(&said)), newer, "{said}");
            let params = Map::from_iter([("capabilities".to_owned(), said.clone())]);
            assert_eq!(Capable::greeted(&params, "2025-11-25"), newer, "{said}");
            assert_eq!(Capable::greeted(&params, "2025-06-18"), older, "{said}");
        }
        assert_eq!(Capable::of(None), none);
        assert!(form.any() && page.any() && !none.any());
    }
}
