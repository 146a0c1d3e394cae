//! Reads the input of a call into the tool's argument type.
//!
//! The host has validated the input against the schema already; what fails here is what a schema
//! cannot say, such as a date of its own form. The answer still names the place as a JSON Pointer.

use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

use crate::error::{Error, FieldProblem};

/// Read `input`, or say where it does not fit.
pub(crate) fn read<T: DeserializeOwned>(input: &str) -> Result<T, Error> {
    let mut json = serde_json::Deserializer::from_str(input);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| refusal(&error))?;
    json.end().map_err(|error| Error::invalid_input(format!("the input is not one JSON value: {error}")))?;
    Ok(value)
}

fn refusal(error: &serde_path_to_error::Error<serde_json::Error>) -> Error {
    let whole = error.inner().to_string();
    let text = whole.rsplit_once(" at line ").map_or(whole.as_str(), |(text, _)| text);
    let (problem, expected) = text.split_once(", expected ").unwrap_or((text, ""));
    let mut pointer = pointer(error.path());
    if let Some(field) = problem.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        push(&mut pointer, field);
    }
    let place = if pointer.is_empty() { "the input" } else { pointer.as_str() };
    let message = format!("{place}: {text}");
    Error::invalid_input(message).with_field(FieldProblem {
        pointer,
        problem: problem.to_owned(),
        expected: expected.to_owned(),
    })
}

fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => push(&mut pointer, &index.to_string()),
            Segment::Map { key } => push(&mut pointer, key),
            Segment::Enum { variant } => push(&mut pointer, variant),
            Segment::Unknown => {}
        }
    }
    pointer
}

/// RFC 6901: `~` and `/` inside of a key are escaped.
fn push(pointer: &mut String, key: &str) {
    pointer.push('/');
    pointer.push_str(&key.replace('~', "~0").replace('/', "~1"));
}

#[cfg(test)]
mod tests {
    use super::read;
    use crate::error::{Error, ErrorKind};
    use serde::Deserialize;
    use std::collections::BTreeMap;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Line {
        amount: u32,
    }

    #[derive(Debug, Deserialize, PartialEq)]
    struct Input {
        lines: Vec<Line>,
        #[serde(default)]
        rates: BTreeMap<String, u8>,
    }

    fn problem(input: &str) -> (String, String, String) {
        let error: Error = read::<Input>(input).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        let field = error.fields().first().cloned().unwrap();
        (field.pointer, field.problem, field.expected)
    }

    fn triple(pointer: &str, problem: &str, expected: &str) -> (String, String, String) {
        (pointer.to_owned(), problem.to_owned(), expected.to_owned())
    }

    #[test]
    fn a_wrong_type_is_placed_by_its_pointer() {
        assert_eq!(
            problem(r#"{"lines": [{"amount": 1}, {"amount": "x"}]}"#),
            triple("/lines/1/amount", "invalid type: string \"x\"", "u32")
        );
    }

    #[test]
    fn a_missing_field_is_placed_where_it_belongs() {
        assert_eq!(problem(r#"{"lines": [{}]}"#), triple("/lines/0/amount", "missing field `amount`", ""));
        assert_eq!(problem("{}"), triple("/lines", "missing field `lines`", ""));
    }

    #[test]
    fn an_unknown_field_is_placed_and_the_known_ones_are_named() {
        assert_eq!(
            problem(r#"{"lines": [{"amout": 1}]}"#),
            triple("/lines/0/amout", "unknown field `amout`", "`amount`")
        );
    }

    #[test]
    fn keys_are_escaped_in_pointers() {
        assert_eq!(problem(r#"{"lines": [], "rates": {"a/b~c": 300}}"#).0, "/rates/a~1b~0c");
    }

    #[test]
    fn text_after_the_value_is_refused() {
        let error = read::<Input>(r#"{"lines": []} {}"#).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert_eq!(read::<Input>(r#"{"lines": []}"#).map(|input| input.lines), Ok(vec![]));
    }
}
