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

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Result, tool};

/// Words that are listed unless the input says otherwise.
const DEFAULT_TOP: u8 = 5;

/// What to measure.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct TextStatsArgs {
    /// The text. Any language; may be empty.
    pub text: String,
    /// How many of the most frequent words to list, 0 to 100.
    #[serde(default = "default_top")]
    #[schemars(range(max = 100))]
    pub top: u8,
}

fn default_top() -> u8 {
    DEFAULT_TOP
}

/// What was measured.
#[derive(Debug, Serialize, JsonSchema)]
pub struct TextStatsOutput {
    /// Lines, as a text editor counts them; a last line without a line feed counts.
    pub lines: usize,
    /// Words: runs of letters, digits and apostrophes.
    pub words: usize,
    /// Characters (Unicode scalar values), line feeds included.
    pub chars: usize,
    /// Bytes in UTF-8.
    pub bytes: usize,
    /// The most frequent words in lower case: most frequent first, then in order of the alphabet.
    pub top: Vec<WordCount>,
}

/// A word and how often it occurs.
#[derive(Debug, Serialize, JsonSchema)]
pub struct WordCount {
    /// The word in lower case.
    pub word: String,
    /// How often it occurs.
    pub count: usize,
}

/// Counts lines, words, characters and bytes of a text and lists its most frequent words.
///
/// When: the user asks how long a text is or which words it uses most. The text is passed in the call;
/// for a file, read it first.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "Text statistics", deterministic)]
pub fn text_stats(args: TextStatsArgs) -> Result<TextStatsOutput> {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut words = 0;
    for word in words_of(&args.text) {
        words += 1;
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut top: Vec<WordCount> = counts.into_iter().map(|(word, count)| WordCount { word, count }).collect();
    // Stable: words of one count stay in order of the alphabet.
    top.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    top.truncate(usize::from(args.top));
    Ok(TextStatsOutput {
        lines: args.text.lines().count(),
        words,
        chars: args.text.chars().count(),
        bytes: args.text.len(),
        top,
    })
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
