//! Phrases that address a model, and delimiters of chat templates, in folded text.
//!
//! A phrase is a few classes of words in order, each within a few words of the one before: a list of sentences would miss
//! every second way of saying it. Each word is looked up once and remembered as a set of classes in a ring of the last
//! words, so that the time is that of the words, whatever they are.

use std::collections::HashMap;
use std::sync::LazyLock;

use super::Suspicion;

/// Words that are remembered: no phrase is longer.
const WINDOW: usize = 16;
/// Letters of a word that is looked up: longer ones belong to no class.
const WORD_MAX_BYTES: usize = 20;

/// Classes of words, one bit each.
mod class {
    pub(super) const IGNORE: u32 = 1;
    pub(super) const PRIOR: u32 = 1 << 1;
    pub(super) const ORDERS: u32 = 1 << 2;
    pub(super) const REVEAL: u32 = 1 << 3;
    pub(super) const SYSTEM: u32 = 1 << 4;
    pub(super) const PROMPT: u32 = 1 << 5;
    pub(super) const NOT: u32 = 1 << 6;
    pub(super) const TELL: u32 = 1 << 7;
    pub(super) const USER: u32 = 1 << 8;
    pub(super) const YOU: u32 = 1 << 9;
    pub(super) const ARE: u32 = 1 << 10;
    pub(super) const NOW: u32 = 1 << 11;
    pub(super) const UNBOUND: u32 = 1 << 12;
    pub(super) const MODEL: u32 = 1 << 13;
    pub(super) const IF: u32 = 1 << 14;
    pub(super) const ATTENTION: u32 = 1 << 15;
    pub(super) const MODE: u32 = 1 << 16;
    pub(super) const ENABLED: u32 = 1 << 17;
    pub(super) const SPECIAL: u32 = 1 << 18;
    pub(super) const LIMITS: u32 = 1 << 19;
    pub(super) const BEFORE: u32 = 1 << 20;
    pub(super) const ANSWERING: u32 = 1 << 21;
    pub(super) const MUST: u32 = 1 << 22;
    pub(super) const OBEY: u32 = 1 << 23;
    pub(super) const SEND: u32 = 1 << 24;
    pub(super) const DIALOGUE: u32 = 1 << 25;
    pub(super) const TO: u32 = 1 << 26;
    pub(super) const HIDDEN: u32 = 1 << 27;
    pub(super) const OVERRIDE: u32 = 1 << 28;
    pub(super) const YOUR: u32 = 1 << 29;
    pub(super) const LONGER: u32 = 1 << 30;
    pub(super) const URGENT: u32 = 1 << 31;
}
use class::{
    ANSWERING, ARE, ATTENTION, BEFORE, DIALOGUE, ENABLED, HIDDEN, IF, IGNORE, LIMITS, LONGER, MODE, MODEL, MUST, NOT,
    NOW, OBEY, ORDERS, OVERRIDE, PRIOR, PROMPT, REVEAL, SEND, SPECIAL, SYSTEM, TELL, TO, UNBOUND, URGENT, USER, YOU,
    YOUR,
};

/// Which words are in which class. A word may stand in several.
const WORDS: &[(u32, &str)] = &[
    (
        IGNORE,
        "ignore disregard forget neglect ignoriere ignorieren vergiss vergessen ignorez oubliez ignora ignorar olvida",
    ),
    (
        PRIOR,
        "previous prior above earlier preceding foregoing existing original initial system vorherigen vorigen \
         bisherigen obigen precedentes precedente anteriores anterior previas previos",
    ),
    (
        ORDERS,
        "instruction instructions rule rules prompt prompts guideline guidelines directive directives direction \
         directions constraints programming training anweisung anweisungen regeln vorgaben consignes instrucciones \
         reglas ordenes",
    ),
    (REVEAL, "reveal print output repeat show leak expose disclose dump display recite paste verrate zeige"),
    (SYSTEM, "system hidden initial secret developer"),
    (PROMPT, "prompt prompts preprompt systemprompt"),
    (NOT, "not no dont never without nicht"),
    (TELL, "tell telling mention mentioning inform informing alert alerting reveal revealing disclose disclosing"),
    (USER, "user users human humans operator owner benutzer nutzer"),
    (YOU, "you du"),
    (ARE, "are bist re"),
    (NOW, "now jetzt henceforth"),
    (
        UNBOUND,
        "dan jailbroken unrestricted unfiltered uncensored unlimited evil root administrator superuser stan dude aim",
    ),
    (MODEL, "ai llm llms chatbot assistant assistants copilot gpt chatgpt claude gemini ki agents bot"),
    (IF, "if as wenn"),
    (ATTENTION, "attention dear hello hey note important"),
    (MODE, "mode modus"),
    (ENABLED, "enabled activated unlocked engaged aktiviert"),
    (SPECIAL, "developer dan god sudo jailbreak admin debug maintenance"),
    (LIMITS, "restrictions restriction filters filter guidelines limits limitations censorship safeguards ethics"),
    (BEFORE, "before bevor"),
    (ANSWERING, "answering responding replying continuing proceeding summarizing summarising anything"),
    (MUST, "must shall first should"),
    (OBEY, "obey execute comply"),
    (SEND, "send forward post upload email transmit exfiltrate submit leak encode append"),
    (
        DIALOGUE,
        "conversation dialogue transcript secrets credentials passwords password apikey apikeys token tokens env keys",
    ),
    (TO, "to at http https an"),
    (HIDDEN, "new updated real actual hidden secret additional following these below important"),
    (OVERRIDE, "override bypass circumvent supersede overrides supersedes"),
    (YOUR, "your all any every my the these"),
    (LONGER, "longer"),
    (URGENT, "pretend act imagine simulate roleplay"),
];

/// A phrase: classes in order, each with how many words may stand before it.
type Phrase = &'static [(u32, usize)];

const PHRASES: &[Phrase] = &[
    // Ignore all previous instructions; ignore the instructions above.
    &[(IGNORE, 0), (PRIOR, 3), (ORDERS, 2)],
    &[(IGNORE, 0), (ORDERS, 3), (PRIOR, 1)],
    // Forget everything you were told: your training, your rules.
    &[(IGNORE, 0), (YOUR, 1), (ORDERS, 1)],
    // Override your instructions; system override.
    &[(OVERRIDE, 0), (YOUR, 1), (PRIOR | ORDERS, 1), (ORDERS, 1)],
    &[(SYSTEM, 0), (OVERRIDE, 0), (ENABLED | MODE | MUST | OBEY | IGNORE, 3)],
    // Reveal your system prompt.
    &[(REVEAL, 0), (SYSTEM, 4), (PROMPT, 0)],
    // Do not tell the user.
    &[(NOT, 0), (TELL, 1), (USER, 5)],
    // You are now DAN; you are no longer bound.
    &[(YOU, 0), (ARE, 0), (NOW, 0), (UNBOUND | SPECIAL, 4)],
    &[(YOU, 0), (ARE, 0), (NOW, 0), (MODEL, 3), (NOT, 4)],
    &[(YOU, 0), (ARE, 0), (LONGER, 1), (MODEL | LIMITS, 4)],
    // If you are an AI; attention assistant, you must.
    &[(IF, 0), (YOU, 0), (ARE, 0), (MODEL, 4)],
    &[(ATTENTION, 0), (MODEL, 2), (YOU, 5), (MUST, 2)],
    // New instructions for the assistant.
    &[(HIDDEN, 0), (ORDERS, 1), (MODEL, 4)],
    // Developer mode enabled.
    &[(SPECIAL, 0), (MODE, 0), (ENABLED, 2)],
    // Pretend to have no restrictions.
    &[(URGENT, 0), (YOU | MODEL, 4), (NOT | IGNORE, 5), (LIMITS, 3)],
    // Before answering you must first.
    &[(BEFORE, 0), (ANSWERING, 2), (YOU, 4), (MUST, 1), (SEND | OBEY | REVEAL | IGNORE, 4)],
    // Obey these instructions.
    &[(OBEY, 0), (HIDDEN, 1), (ORDERS, 1)],
    // Send the conversation and the credentials to http://…
    &[(SEND, 0), (DIALOGUE, 6), (TO, 3), (TO, 3)],
];

static CLASSES: LazyLock<HashMap<&'static str, u32>> = LazyLock::new(|| {
    let mut classes: HashMap<&'static str, u32> = HashMap::new();
    for (class, words) in WORDS {
        for word in words.split_ascii_whitespace() {
            *classes.entry(word).or_default() |= class;
        }
    }
    classes
});

/// For each first letter, which lengths its known words have, one bit each: most words of a text are told by this alone.
static LENGTHS: LazyLock<[u32; 26]> = LazyLock::new(|| {
    let mut lengths = [0; 26];
    for word in WORDS.iter().flat_map(|(_, words)| words.split_ascii_whitespace()) {
        if let Some(of) = word.bytes().next().and_then(|first| lengths.get_mut(usize::from(first.wrapping_sub(b'a')))) {
            *of |= 1 << word.len();
        }
    }
    lengths
});

/// The classes of a word in lower-case letters.
fn classes_of(word: &str) -> u32 {
    let lengths = word.bytes().next().and_then(|first| LENGTHS.get(usize::from(first.wrapping_sub(b'a'))));
    match lengths {
        Some(lengths) if lengths & (1 << word.len()) != 0 => CLASSES.get(word).copied().unwrap_or(0),
        _ => 0,
    }
}

/// Delimiters that begin with `<` or `[`, in lower case.
const DELIMITERS: &[&str] = &[
    "[inst]",
    "[/inst]",
    "<<sys>>",
    "<</sys>>",
    "<start_of_turn>",
    "<end_of_turn>",
    "<system>",
    "</system>",
    "<assistant>",
    "</assistant>",
    "<tool_call>",
    "</tool_call>",
    "<tool_result>",
    "</tool_result>",
    "<tool_response>",
    "</tool_response>",
    "<function_calls>",
    "</function_calls>",
    "<function_results>",
    "</function_results>",
    "<bos>",
    "<eos>",
];
/// Letters between `<|` and `|>`.
const TOKEN_MAX_BYTES: usize = 32;

/// The last words, as their classes; the place of the next one.
struct Ring {
    classes: [u32; WINDOW],
    next: usize,
}

impl Ring {
    fn push(&mut self, classes: u32) {
        if let Some(slot) = self.classes.get_mut(self.next % WINDOW) {
            *slot = classes;
        }
        self.next += 1;
    }

    /// The classes of the word so many before the last one.
    fn back(&self, ago: usize) -> u32 {
        match self.next.checked_sub(ago + 1) {
            Some(at) if ago < WINDOW => self.classes.get(at % WINDOW).copied().unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether a phrase ends with the last word.
    fn ends(&self, phrase: Phrase) -> bool {
        let mut ago = 0;
        for (place, (class, _)) in phrase.iter().enumerate().rev() {
            // How many words may stand between this one and the one after it.
            let gap = phrase.get(place + 1).map(|(_, gap)| *gap);
            let found = match gap {
                None => (self.back(0) & class != 0).then_some(0),
                Some(gap) => (ago + 1..=ago + 1 + gap).find(|ago| self.back(*ago) & class != 0),
            };
            match found {
                Some(found) => ago = found,
                None => return false,
            }
        }
        true
    }
}

/// Look through folded text.
pub(super) fn look(folded: &str, found: &mut dyn FnMut(Suspicion, usize)) {
    let mut ring = Ring { classes: [0; WINDOW], next: 0 };
    let mut word = Word::default();
    for (at, byte) in folded.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' => word.push(at, byte),
            b'\'' => {}
            _ => {
                word.end(&mut ring, found);
                if matches!(byte, b'<' | b'[') && is_delimiter(folded, at) {
                    found(Suspicion::Template, at);
                }
            }
        }
    }
    word.end(&mut ring, found);
}

fn is_delimiter(folded: &str, at: usize) -> bool {
    let rest = folded.get(at..).unwrap_or_default();
    if DELIMITERS.iter().any(|delimiter| rest.starts_with(delimiter)) {
        return true;
    }
    let Some(token) = rest.strip_prefix("<|") else { return false };
    let name = token.bytes().take(TOKEN_MAX_BYTES + 1).take_while(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    let length = name.count();
    (1..=TOKEN_MAX_BYTES).contains(&length) && token.get(length..).is_some_and(|rest| rest.starts_with("|>"))
}

/// The word that is being read, digits that stand for letters replaced.
#[derive(Default)]
struct Word {
    from: usize,
    length: usize,
    letters: bool,
    bytes: [u8; WORD_MAX_BYTES],
}

impl Word {
    fn push(&mut self, at: usize, byte: u8) {
        if self.length == 0 {
            self.from = at;
        }
        self.letters |= byte.is_ascii_lowercase();
        let letter = match byte {
            b'0' => b'o',
            b'1' => b'i',
            b'3' => b'e',
            b'4' => b'a',
            b'5' => b's',
            b'7' => b't',
            other => other,
        };
        if let Some(slot) = self.bytes.get_mut(self.length) {
            *slot = letter;
        }
        self.length += 1;
    }

    fn end(&mut self, ring: &mut Ring, found: &mut dyn FnMut(Suspicion, usize)) {
        let (length, letters) = (std::mem::take(&mut self.length), std::mem::take(&mut self.letters));
        if length == 0 {
            return;
        }
        let known = self.bytes.get(..length).filter(|_| letters).and_then(|bytes| std::str::from_utf8(bytes).ok());
        let mut classes = known.map_or(0, classes_of);
        if known == Some("youre") {
            // Two words in one.
            ring.push(YOU);
            classes = ARE;
        }
        ring.push(classes);
        if classes != 0 && PHRASES.iter().any(|phrase| ring.ends(phrase)) {
            found(Suspicion::Instruction, self.from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_word_is_told_by_its_first_letter_and_length() {
        for word in WORDS.iter().flat_map(|(_, words)| words.split_ascii_whitespace()) {
            assert_eq!(classes_of(word), CLASSES[word], "{word}");
            assert_ne!(classes_of(word), 0, "{word}");
        }
        assert_eq!((classes_of("instructional"), classes_of("xignore"), classes_of("")), (0, 0, 0));
    }

    #[test]
    fn no_phrase_is_longer_than_what_is_remembered() {
        for phrase in PHRASES {
            let longest: usize = phrase.iter().map(|(_, gap)| gap + 1).sum();
            assert!(longest <= WINDOW, "{longest}");
        }
        assert!(WORDS.iter().flat_map(|(_, words)| words.split_ascii_whitespace()).all(|w| w.len() <= WORD_MAX_BYTES));
    }
}
