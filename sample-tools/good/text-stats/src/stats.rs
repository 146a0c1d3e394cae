//! What is measured of a text, whatever somebody calls a word.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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

/// Measure a text that falls apart into these words.
pub(crate) fn measure<'t>(text: &'t str, top: u8, all: impl Iterator<Item = &'t str>) -> TextStatsOutput {
    let mut counts: BTreeMap<String, usize> = BTreeMap::new();
    let mut words = 0;
    for word in all {
        words += 1;
        *counts.entry(word.to_lowercase()).or_default() += 1;
    }
    let mut ranked: Vec<WordCount> = counts.into_iter().map(|(word, count)| WordCount { word, count }).collect();
    // Stable: words of one count stay in order of the alphabet.
    ranked.sort_by_key(|entry| std::cmp::Reverse(entry.count));
    ranked.truncate(usize::from(top));
    TextStatsOutput { lines: text.lines().count(), words, chars: text.chars().count(), bytes: text.len(), top: ranked }
}
