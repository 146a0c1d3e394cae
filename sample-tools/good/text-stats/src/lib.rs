//! `text-stats`: how long is this text, and which words does it use most?
//!
//! The smallest useful tool: it reads its input, computes and answers. No workspace, no effect, no
//! import beyond what every component has. Its input and output:
//!
//! ```json
//! {"text": "to be or not to be", "top": 2}
//! {"lines": 1, "words": 6, "chars": 18, "bytes": 18,
//!  "top": [{"word": "be", "count": 2}, {"word": "to", "count": 2}]}
//! ```

mod stats;

use toolkeep_sdk::{Result, tool};

pub use stats::{TextStatsArgs, TextStatsOutput, WordCount};

/// Counts lines, words, characters and bytes of a text and lists its most frequent words.
///
/// When: the user asks how long a text is or which words it uses most. The text is passed in the call;
/// for a file, read it first.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "Text statistics", deterministic)]
pub fn text_stats(args: TextStatsArgs) -> Result<TextStatsOutput> {
    Ok(stats::measure(&args.text, args.top, words_of(&args.text)))
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !(char.is_alphanumeric() || matches!(char, '\'' | '’')))
        .map(|word| word.trim_matches(['\'', '’']))
        .filter(|word| !word.is_empty())
}

toolkeep_sdk::export!(text_stats);

#[cfg(test)]
mod tests {
    use super::text_stats;
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::Harness;

    fn stats(input: Value) -> Value {
        Harness::new().call(text_stats, input).output().clone()
    }

    #[test]
    fn a_text_is_measured_and_its_words_are_ranked() {
        assert_eq!(
            stats(json!({"text": "To be, or not to be:\nthat's the question.\n", "top": 3})),
            json!({
                "lines": 2, "words": 9, "chars": 42, "bytes": 42,
                "top": [
                    {"word": "be", "count": 2}, {"word": "to", "count": 2}, {"word": "not", "count": 1}
                ]
            })
        );
    }

    #[test]
    fn an_empty_text_has_nothing() {
        let empty = json!({"lines": 0, "words": 0, "chars": 0, "bytes": 0, "top": []});
        assert_eq!(stats(json!({"text": ""})), empty);
    }

    #[test]
    fn characters_are_not_bytes_and_quotes_are_not_words() {
        let stats = stats(json!({"text": "'Größe' '' größe", "top": 1}));
        assert_eq!(stats["chars"], 16);
        assert_eq!(stats["bytes"], 20);
        assert_eq!(stats["words"], 2);
        assert_eq!(stats["top"], json!([{"word": "größe", "count": 2}]));
    }

    #[test]
    fn the_list_of_words_is_bounded() {
        assert_eq!(stats(json!({"text": "a b c d e f g"}))["top"].as_array().map(Vec::len), Some(5));
        assert_eq!(stats(json!({"text": "a b", "top": 0}))["top"], json!([]));
        assert_eq!(stats(json!({"text": "a b", "top": 100}))["words"], 2);
        let refused = Harness::new().call(text_stats, json!({"text": "a", "top": 101}));
        assert_eq!(refused.error().kind(), ErrorKind::InvalidInput);
    }
}
