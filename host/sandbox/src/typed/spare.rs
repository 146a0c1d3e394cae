//! Values that are kept from one call to the next, so that names and lists are not allocated again for each.
//!
//! What is kept has the shape of the arguments of one function and nothing of what they said: texts and numbers are wiped before
//! ([`Spares::keep`]). It is little: large inputs are dropped, and so is memory that one call needed and the next did not. A slot
//! is [`BLANK`], or a value of the type that will be written to it; what is of another shape is replaced.

use std::sync::Mutex;

use toolkeep_core::wit::{Field, Label, Table};
use wasmtime::component::Val;

/// What a slot holds before anything was written to it.
pub(super) const BLANK: Val = Val::Bool(false);
/// Sets of arguments that one component keeps: as many calls of it as run at once on a small machine.
const SETS_MAX: usize = 8;
/// Values of a set that is kept, with their names.
const KEPT_MAX_VALUES: usize = 1_024;
/// Bytes of a text whose memory is used again.
const TEXT_MAX_BYTES: usize = 256;
/// Items of a list for which it may keep room whatever it holds.
const ROOM: usize = 16;

/// The arguments that a component keeps, by function.
#[derive(Default)]
pub(super) struct Spares(Mutex<Vec<(Label, Vec<Val>)>>);

impl Spares {
    /// Arguments of an earlier call of the function, or none. Nobody is waited for.
    pub(super) fn take(&self, label: &Label) -> Vec<Val> {
        let Ok(mut sets) = self.0.try_lock() else { return Vec::new() };
        let found = sets.iter().position(|(of, _)| of == label);
        found.map(|at| sets.swap_remove(at).1).unwrap_or_default()
    }

    /// Keep the arguments of a call that is over, which hold so many `values`, without what they said.
    pub(super) fn keep(&self, label: &Label, mut arguments: Vec<Val>, values: usize) {
        if values > KEPT_MAX_VALUES {
            return;
        }
        arguments.iter_mut().for_each(wipe);
        let Ok(mut sets) = self.0.try_lock() else { return };
        if sets.len() >= SETS_MAX {
            sets.swap_remove(0);
        }
        sets.push((label.clone(), arguments));
    }
}

/// Take out of a value what it says. What stays is its shape: names, cases, lengths of lists.
fn wipe(value: &mut Val) {
    match value {
        Val::String(text) => {
            let mut bytes = std::mem::take(text).into_bytes();
            bytes.fill(0);
            bytes.clear();
            if bytes.capacity() <= TEXT_MAX_BYTES {
                *text = String::from_utf8(bytes).unwrap_or_default();
            }
        }
        Val::List(items) | Val::Tuple(items) => items.iter_mut().for_each(wipe),
        Val::Record(fields) => fields.iter_mut().for_each(|(_, value)| wipe(value)),
        Val::Variant(_, Some(inner)) | Val::Option(Some(inner)) | Val::Result(Ok(Some(inner)) | Err(Some(inner))) => {
            wipe(inner);
        }
        Val::Variant(_, None) | Val::Option(None) | Val::Result(_) | Val::Enum(_) | Val::Flags(_) => {}
        plain => *plain = BLANK,
    }
}

/// Make a slot hold a text.
pub(super) fn text(slot: &mut Val, text: &str) {
    match slot {
        Val::String(kept) if kept.capacity() <= TEXT_MAX_BYTES => {
            kept.clear();
            kept.push_str(text);
        }
        other => *other = Val::String(text.to_owned()),
    }
}

/// Make a slot hold a case without a value.
pub(super) fn case(slot: &mut Val, name: &str) {
    match slot {
        Val::Enum(kept) => {
            kept.clear();
            kept.push_str(name);
        }
        other => *other = Val::Enum(name.to_owned()),
    }
}

/// Make a slot hold these flags.
pub(super) fn flags<'n>(slot: &mut Val, names: impl Iterator<Item = &'n str>) {
    if !matches!(slot, Val::Flags(_)) {
        *slot = Val::Flags(Vec::new());
    }
    let Val::Flags(kept) = slot else { return };
    let mut count = 0;
    for name in names {
        match kept.get_mut(count) {
            Some(flag) => {
                flag.clear();
                flag.push_str(name);
            }
            None => kept.push(name.to_owned()),
        }
        count += 1;
    }
    kept.truncate(count);
}

/// The items of a list that was in a slot, to be overwritten; none where something else was.
pub(super) fn list(slot: &mut Val) -> Vec<Val> {
    match std::mem::replace(slot, BLANK) {
        Val::List(items) => items,
        _ => Vec::new(),
    }
}

/// A list of what it holds now, without room that only an earlier one needed.
pub(super) fn trimmed(mut items: Vec<Val>) -> Val {
    if items.capacity() > ROOM && items.capacity() / 4 > items.len() {
        items.shrink_to(items.len().max(ROOM));
    }
    Val::List(items)
}

/// The parts of a tuple, to be overwritten.
pub(super) fn tuple(slot: &mut Val, parts: usize) -> Vec<Val> {
    let mut values = match std::mem::replace(slot, BLANK) {
        Val::Tuple(values) => values,
        _ => Vec::new(),
    };
    values.resize(parts, BLANK);
    values
}

/// The fields of a record with their names, to be overwritten. Whether the names are those of the type, the engine looks at
/// again before it hands them over.
pub(super) fn record(slot: &mut Val, fields: &Table<Field>) -> Vec<(String, Val)> {
    match std::mem::replace(slot, BLANK) {
        Val::Record(values) if values.len() == fields.len() => values,
        _ => fields.iter().map(|field| (field.name.to_string(), BLANK)).collect(),
    }
}

/// Make a slot hold an option that is something: where that goes.
pub(super) fn some(slot: &mut Val) -> &mut Val {
    if !matches!(slot, Val::Option(Some(_))) {
        *slot = Val::Option(Some(Box::new(BLANK)));
    }
    match slot {
        Val::Option(Some(inner)) => inner,
        other => other,
    }
}

/// Make a slot hold a case with a value: where that goes. What another case carried is of another type.
pub(super) fn payload<'s>(slot: &'s mut Val, name: &str) -> &'s mut Val {
    if !matches!(slot, Val::Variant(kept, Some(_)) if kept == name) {
        *slot = Val::Variant(name.to_owned(), Some(Box::new(BLANK)));
    }
    match slot {
        Val::Variant(_, Some(inner)) => inner,
        other => other,
    }
}

/// Make a slot hold one side of a result: where what it carries goes, if it carries anything.
pub(super) fn side(slot: &mut Val, ok: bool, carries: bool) -> Option<&mut Val> {
    let fits = match (&*slot, ok) {
        (Val::Result(Ok(inner)), true) | (Val::Result(Err(inner)), false) => inner.is_some() == carries,
        _ => false,
    };
    if !fits {
        let inner = carries.then(|| Box::new(BLANK));
        *slot = Val::Result(if ok { Ok(inner) } else { Err(inner) });
    }
    match slot {
        Val::Result(Ok(inner) | Err(inner)) => inner.as_deref_mut(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(at: usize) -> Label {
        format!("f{at}").parse().expect("a label")
    }

    fn said() -> Vec<Val> {
        let text = |text: &str| Val::String(text.to_owned());
        let record = Val::Record(vec![("a".to_owned(), text("secret")), ("b".to_owned(), Val::U64(7))]);
        let option = Val::Option(Some(Box::new(text("secret"))));
        let variant = Val::Variant("case".to_owned(), Some(Box::new(Val::Char('s'))));
        let result = Val::Result(Err(Some(Box::new(Val::Tuple(vec![Val::Float64(1.5), text("secret")])))));
        vec![Val::List(vec![record, option, variant, result, Val::Flags(vec!["x".to_owned()])])]
    }

    #[test]
    fn t_i4_nothing_that_a_call_said_is_kept_and_its_shape_is() {
        let spares = Spares::default();
        spares.keep(&label(0), said(), 20);
        let kept = spares.take(&label(0));
        let shown = format!("{kept:?}");
        assert!(!shown.contains("secret") && !shown.contains('7') && !shown.contains("1.5"), "{shown}");
        let [Val::List(items)] = kept.as_slice() else { panic!("{kept:?}") };
        assert!(matches!(&items[0], Val::Record(fields) if fields[0].0 == "a" && fields.len() == 2), "{kept:?}");
        assert!(spares.take(&label(0)).is_empty(), "what is used is nobody else's");
    }

    #[test]
    fn t_r2_n_sets_of_n_values_are_kept_and_no_more() {
        let spares = Spares::default();
        (0..=SETS_MAX).for_each(|at| spares.keep(&label(at), said(), KEPT_MAX_VALUES));
        assert_eq!((0..=SETS_MAX).filter(|at| !spares.take(&label(*at)).is_empty()).count(), SETS_MAX);
        spares.keep(&label(0), said(), KEPT_MAX_VALUES + 1);
        assert!(spares.take(&label(0)).is_empty());
    }

    #[test]
    fn t_r2_room_that_only_one_call_needed_is_given_back() {
        let mut long = Val::String("x".repeat(TEXT_MAX_BYTES + 1));
        text(&mut long, "short");
        assert!(matches!(&long, Val::String(text) if text == "short" && text.capacity() <= TEXT_MAX_BYTES));
        let mut items = vec![BLANK; 10_000];
        items.truncate(1);
        assert!(matches!(trimmed(items), Val::List(items) if items.len() == 1 && items.capacity() <= 4 * ROOM));
    }
}
