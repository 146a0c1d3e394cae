//! A component as others write them: an interface of its own, nothing of Toolkeep, files through the standard library.
//!
//! What it needs to be a tool is in a manifest; see `docs/typed-components.md`.

#![expect(missing_docs, reason = "generated: the documentation is in wit/")]

wit_bindgen::generate!({
    path: "wit",
    world: "inventory",
});

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::ErrorKind;

use exports::acme::inventory::stock::{Care, Guest as Stock, Item, Place, Problem, Summary, Unit};

/// Where items are kept.
const ROOM: &str = "/books/stock";

struct Inventory;

impl Guest for Inventory {
    fn shelf_label(row: char, number: u8) -> String {
        format!("{row}-{number}")
    }
}

impl Stock for Inventory {
    fn summarize(items: Vec<Item>) -> Summary {
        let pieces = items.iter().fold(0_u64, |sum, item| sum.saturating_add(item.count));
        let mut places: BTreeMap<&str, u32> = BTreeMap::new();
        for item in &items {
            let place = match item.place {
                Place::Nowhere => "nowhere",
                Place::Shelf(_) => "shelf",
                Place::Bin(_) => "bin",
            };
            *places.entry(place).or_default() += 1;
        }
        Summary {
            items: u32::try_from(items.len()).unwrap_or(u32::MAX),
            pieces,
            mean: pieces as f64 / items.len() as f64,
            places: places.into_iter().map(|(place, count)| (place.to_owned(), count)).collect(),
            heaviest: items.into_iter().max_by_key(|item| item.count),
        }
    }

    fn store(item: Item, replace: Option<bool>) -> Result<u32, Problem> {
        let path = path_of(&item.sku)?;
        if !replace.unwrap_or(false) && fs::exists(&path).map_err(broken)? {
            return Err(Problem::Conflict(format!("there is an item `{}` already", item.sku)));
        }
        let text = text_of(&item);
        fs::create_dir_all(ROOM).map_err(broken)?;
        fs::write(path, &text).map_err(broken)?;
        u32::try_from(text.len()).map_err(|_| Problem::Broken("the item is too large".to_owned()))
    }

    fn show(sku: String) -> Result<String, Problem> {
        fs::read_to_string(path_of(&sku)?).map_err(|error| match error.kind() {
            ErrorKind::NotFound => Problem::NotFound(format!("there is no item `{sku}`")),
            _ => broken(error),
        })
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as a function in map_err")]
fn broken(error: std::io::Error) -> Problem {
    Problem::Broken(error.to_string())
}

/// The file of an item.
fn path_of(sku: &str) -> Result<String, Problem> {
    let plain = !sku.is_empty() && sku.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if plain {
        Ok(format!("{ROOM}/{sku}.txt"))
    } else {
        Err(Problem::InvalidInput("a sku has letters, digits and dashes".to_owned()))
    }
}

/// What is kept of an item.
fn text_of(item: &Item) -> String {
    let unit = match item.unit {
        Unit::Piece => "piece",
        Unit::Gram => "gram",
        Unit::Metre => "metre",
    };
    let place = match &item.place {
        Place::Nowhere => "nowhere".to_owned(),
        Place::Shelf(number) => format!("shelf {number}"),
        Place::Bin(name) => format!("bin {name}"),
    };
    let care = [(Care::COLD, "cold"), (Care::DRY, "dry"), (Care::FRAGILE, "fragile")];
    let care: Vec<&str> =
        care.into_iter().filter(|(flag, _)| item.care.contains(*flag)).map(|(_, name)| name).collect();
    let mut text = format!("{}: {} {unit} of {}\nplace: {place}\n", item.sku, item.count, item.name);
    if !care.is_empty() {
        let _ = writeln!(text, "care: {}", care.join(", "));
    }
    if let Some(note) = &item.note {
        let _ = writeln!(text, "note: {note}");
    }
    let _ = writeln!(text, "picture: {} bytes", item.picture.len());
    text
}

// The names of exports are none for the linker of another target.
#[cfg(target_family = "wasm")]
export!(Inventory);

#[cfg(test)]
mod tests {
    use super::*;

    fn item(sku: &str, count: u64, place: Place) -> Item {
        let (name, note, picture) = ("Tea".to_owned(), Some("green".to_owned()), vec![1, 2]);
        Item { sku: sku.to_owned(), name, count, unit: Unit::Gram, care: Care::DRY | Care::COLD, place, note, picture }
    }

    #[test]
    fn items_are_summed_up() {
        let items = vec![item("a", 1, Place::Shelf(3)), item("b", 4, Place::Shelf(4)), item("c", 1, Place::Nowhere)];
        let summary = Inventory::summarize(items);
        assert_eq!((summary.items, summary.pieces, summary.mean), (3, 6, 2.0));
        assert_eq!(summary.places, [("nowhere".to_owned(), 1), ("shelf".to_owned(), 2)]);
        assert_eq!(summary.heaviest.map(|item| item.sku).as_deref(), Some("b"));
        assert!(Inventory::summarize(Vec::new()).mean.is_nan());
    }

    #[test]
    fn an_item_is_kept_as_text() {
        let text = text_of(&item("tea-1", 250, Place::Bin("north".to_owned())));
        assert_eq!(text, "tea-1: 250 gram of Tea\nplace: bin north\ncare: cold, dry\nnote: green\npicture: 2 bytes\n");
        assert!(matches!(path_of("../etc"), Err(Problem::InvalidInput(_))));
        assert_eq!(path_of("tea-1").ok().as_deref(), Some("/books/stock/tea-1.txt"));
    }
}
