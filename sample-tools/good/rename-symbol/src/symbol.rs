//! An identifier, and where it stands in a text as a whole word.

/// An identifier: letters, digits and `_`, not starting with a digit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Symbol(String);

impl Symbol {
    /// Check a name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let starts = name.chars().next().is_some_and(|first| first.is_alphabetic() || first == '_');
        (starts && name.chars().all(is_word)).then(|| Self(name.to_owned()))
    }

    /// Whether it stands anywhere in the text.
    pub(crate) fn occurs_in(&self, text: &str) -> bool {
        self.places(text).next().is_some()
    }

    /// The text with another word in its place, and how often.
    pub(crate) fn replaced(&self, text: &str, to: &str) -> (String, usize) {
        let mut out = String::with_capacity(text.len());
        let mut copied = 0;
        let mut replacements = 0;
        for place in self.places(text) {
            out.push_str(text.get(copied..place).unwrap_or_default());
            out.push_str(to);
            copied = place + self.0.len();
            replacements += 1;
        }
        out.push_str(text.get(copied..).unwrap_or_default());
        (out, replacements)
    }

    /// Byte offsets at which it stands as a whole word, in order.
    fn places<'a>(&'a self, text: &'a str) -> impl Iterator<Item = usize> + 'a {
        text.match_indices(self.0.as_str()).map(|(place, _)| place).filter(move |place| {
            let before = text.get(..*place).and_then(|text| text.chars().next_back());
            let after = text.get(place + self.0.len()..).and_then(|text| text.chars().next());
            !before.is_some_and(is_word) && !after.is_some_and(is_word)
        })
    }
}

fn is_word(char: char) -> bool {
    char.is_alphanumeric() || char == '_'
}

#[cfg(test)]
mod tests {
    use super::Symbol;

    fn replaced(text: &str) -> Option<(String, usize)> {
        Symbol::parse("cat").map(|symbol| symbol.replaced(text, "dog"))
    }

    #[test]
    fn only_whole_words_are_replaced() {
        let text = "cat concat cat_food xcat (cat) cat.cat Cat cat";
        let expected = "dog concat cat_food xcat (dog) dog.dog Cat dog";
        assert_eq!(replaced(text), Some((expected.to_owned(), 5)));
    }

    #[test]
    fn letters_of_other_scripts_belong_to_words() {
        assert_eq!(replaced("catö öcat ö cat"), Some(("catö öcat ö dog".to_owned(), 1)));
        assert_eq!(replaced(""), Some((String::new(), 0)));
    }

    #[test]
    fn what_is_no_identifier_is_refused() {
        for name in ["", "1a", "a-b", "a b", "a.b", "a/b"] {
            assert_eq!(Symbol::parse(name), None, "{name}");
        }
        assert!(Symbol::parse("_a1").is_some() && Symbol::parse("größe").is_some());
    }
}
