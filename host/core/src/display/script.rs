//! Scripts whose letters are taken for one another: those with letters that look like Latin ones, and their imitations.
//!
//! Scripts that nobody mistakes for Latin (Han, Arabic, Thai, …) have no entry: a name that mixes them is ordinary.

/// Letters of one script: first and last code point, and its name. Ascending.
const SCRIPTS: &[(u32, u32, &str)] = &[
    (0x0041, 0x005A, "Latin"),
    (0x0061, 0x007A, "Latin"),
    (0x00C0, 0x00D6, "Latin"),
    (0x00D8, 0x00F6, "Latin"),
    (0x00F8, 0x024F, "Latin"),
    (0x0250, 0x02AF, "phonetic Latin"),
    (0x0370, 0x0373, "Greek"),
    (0x0376, 0x0377, "Greek"),
    (0x037B, 0x037D, "Greek"),
    (0x037F, 0x037F, "Greek"),
    (0x0386, 0x0386, "Greek"),
    (0x0388, 0x03FF, "Greek"),
    (0x0400, 0x052F, "Cyrillic"),
    (0x0531, 0x0587, "Armenian"),
    (0x10A0, 0x10FF, "Georgian"),
    (0x13A0, 0x13FD, "Cherokee"),
    (0x1C80, 0x1C8A, "Cyrillic"),
    (0x1D00, 0x1DBF, "phonetic Latin"),
    (0x1E00, 0x1EFF, "Latin"),
    (0x1F00, 0x1FFC, "Greek"),
    (0x2C60, 0x2C7F, "Latin"),
    (0x2C80, 0x2CE4, "Coptic"),
    (0x2DE0, 0x2DFF, "Cyrillic"),
    (0xA4D0, 0xA4F7, "Lisu"),
    (0xA640, 0xA69F, "Cyrillic"),
    (0xA720, 0xA7FF, "Latin"),
    (0xAB30, 0xAB64, "Latin"),
    (0xAB70, 0xABBF, "Cherokee"),
    (0xFF21, 0xFF3A, "full-width Latin"),
    (0xFF41, 0xFF5A, "full-width Latin"),
    (0x1D400, 0x1D7CB, "mathematical Latin"),
];

/// The script of a letter, if it is one of those.
pub(super) fn script_of(letter: char) -> Option<&'static str> {
    let code = u32::from(letter);
    let after = SCRIPTS.partition_point(|(_, last, _)| *last < code);
    SCRIPTS.get(after).filter(|(first, _, _)| *first <= code).map(|(_, _, name)| *name)
}
