//! Writing protobuf: the four kinds of fields that spans are made of.
//!
//! A message is written into a buffer of its own first, because its length stands before it. What has its default is left
//! out, as version 3 of the language has it. Nothing is read here.

/// How a field is written.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Varint = 0,
    Fixed64 = 1,
    Length = 2,
    Fixed32 = 5,
}

/// A message under construction.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            let [low, ..] = value.to_le_bytes();
            self.0.push(low | 0x80);
            value >>= 7;
        }
        let [low, ..] = value.to_le_bytes();
        self.0.push(low);
    }

    fn tag(&mut self, field: u32, kind: Kind) {
        self.varint(u64::from(field) << 3 | kind as u64);
    }

    /// A string, or bytes.
    pub(super) fn bytes(mut self, field: u32, bytes: impl AsRef<[u8]>) -> Self {
        let bytes = bytes.as_ref();
        if !bytes.is_empty() {
            self.tag(field, Kind::Length);
            self.varint(bytes.len() as u64);
            self.0.extend_from_slice(bytes);
        }
        self
    }

    /// A message within. One without fields is written, too: it is there.
    pub(super) fn message(mut self, field: u32, message: &Self) -> Self {
        self.push(field, message);
        self
    }

    /// One more of a repeated message.
    pub(super) fn push(&mut self, field: u32, message: &Self) {
        self.tag(field, Kind::Length);
        self.varint(message.0.len() as u64);
        self.0.extend_from_slice(&message.0);
    }

    /// A number that is not negative: an `enum`, a `bool`, an `int64`.
    pub(super) fn number(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.tag(field, Kind::Varint);
            self.varint(value);
        }
        self
    }

    /// The same where its default counts: a choice among several.
    pub(super) fn chosen(mut self, field: u32, value: u64) -> Self {
        self.tag(field, Kind::Varint);
        self.varint(value);
        self
    }

    /// A `fixed64`.
    pub(super) fn fixed64(mut self, field: u32, value: u64) -> Self {
        if value != 0 {
            self.tag(field, Kind::Fixed64);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// A `fixed32`.
    pub(super) fn fixed32(mut self, field: u32, value: u32) -> Self {
        if value != 0 {
            self.tag(field, Kind::Fixed32);
            self.0.extend_from_slice(&value.to_le_bytes());
        }
        self
    }

    /// The bytes.
    pub(super) fn finish(self) -> Vec<u8> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_written_as_the_examples_of_the_language_have_them() {
        // `Test1 { a: 150 }`, `Test2 { b: "testing" }` and `Test3 { c: Test1 { a: 150 } }` of the encoding guide.
        let one = Message::default().number(1, 150);
        assert_eq!(one.clone().finish(), [0x08, 0x96, 0x01]);
        let two = Message::default().bytes(2, "testing").finish();
        assert_eq!(two, [0x12, 0x07, 0x74, 0x65, 0x73, 0x74, 0x69, 0x6e, 0x67]);
        assert_eq!(Message::default().message(3, &one).finish(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().fixed64(7, 1).finish(), [0x39, 1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Message::default().fixed32(16, 0x301).finish(), [0x85, 0x01, 0x01, 0x03, 0, 0]);
        assert_eq!(Message::default().chosen(2, 0).finish(), [0x10, 0]);
        let none = Message::default().number(1, 0).bytes(2, "").fixed32(3, 0).fixed64(4, 0);
        assert_eq!(none, Message::default(), "what has its default is not there");
        let most = Message::default().number(1, u64::MAX).finish();
        assert_eq!(most, [0x08, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    }
}
