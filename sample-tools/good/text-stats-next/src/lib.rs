//! The next version of `text-stats`: a word may have hyphens.
//!
//! It stands for the release that changes what callers see: the same tool under the same name, and another answer for some
//! inputs. `toolkeep replay --with` tells for which of the calls on record, before it is installed:
//!
//! ```json
//! {"text": "a follow-up", "top": 1}
//! {"lines": 1, "words": 2, "chars": 11, "bytes": 11, "top": [{"word": "a", "count": 1}]}
//! ```

#[path = "../../text-stats/src/stats.rs"]
mod stats;

use toolkeep_sdk::{Result, tool};

pub use stats::{TextStatsArgs, TextStatsOutput, WordCount};

/// Counts lines, words, characters and bytes of a text and lists its most frequent words.
///
/// When: the user asks how long a text is or which words it uses most. The text is passed in the call;
/// for a file, read it first. Words with hyphens are one word.
/// Side effects: none.
/// Errors: none of its own.
#[tool(title = "Text statistics", deterministic)]
pub fn text_stats(args: TextStatsArgs) -> Result<TextStatsOutput> {
    Ok(stats::measure(&args.text, args.top, words_of(&args.text)))
}

fn words_of(text: &str) -> impl Iterator<Item = &str> {
    text.split(|char: char| !(char.is_alphanumeric() || matches!(char, '\'' | '’' | '-')))
        .map(|word| word.trim_matches(['\'', '’', '-']))
        .filter(|word| !word.is_empty())
}

toolkeep_sdk::export!(text_stats);

#[cfg(test)]
mod tests {
    use super::text_stats;
    use serde_json::{Value, json};
    use toolkeep_sdk::testing::Harness;

    fn words(text: &str) -> Value {
        Harness::new().call(text_stats, json!({"text": text})).output()["words"].clone()
    }

    #[test]
    fn a_word_may_have_hyphens_and_a_dash_is_no_word() {
        assert_eq!(words("a follow-up"), 2);
        assert_eq!(words("yes - no -- maybe-"), 3);
        assert_eq!(words("two words"), 2);
    }
}
