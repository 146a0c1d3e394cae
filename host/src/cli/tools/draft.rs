//! A first manifest for a component in a file: it installs as it is, grants nothing, and says where to go on.
//!
//! What a function does nobody can read off its type, so the drafted descriptions say what is known and no more; they are
//! there to be replaced. Names that would be the same are told apart by more of what their interfaces belong to.

use std::collections::BTreeMap;
use std::path::Path;

use toolkeep_core::display::visible;
use toolkeep_core::id::{NAME_MAX_BYTES, ToolName};
use toolkeep_core::wit::{Function, Label};
use toolkeep_sandbox::typed::Exported;

use super::needs::Need;
use toolkeep_core::descriptor::TOOLS_MAX;

/// Longest signature in a drafted description, in characters.
const SIGNATURE_MAX_CHARS: usize = 400;
/// Longest documentation that is taken over, in characters.
const DOCUMENTATION_MAX_CHARS: usize = 1_000;

/// The manifest for a component of the SDK, or for one with these functions.
pub(super) fn manifest(path: &Path, functions: &[Exported], needs: &[Need]) -> String {
    let file = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut text = format!(
        "format = 1\nname = {}\ncomponent = {}  # relative to this file\ntier = 0  # without grants it changes nothing; raise it with what you grant\n",
        quoted(name_of(path).as_str()),
        quoted(&file)
    );
    for need in needs {
        text.push_str(&need.drafted());
    }
    let documented = |export: &Exported| export.documentation.clone();
    let (usable, said): (Vec<&Function>, Vec<Option<String>>) =
        functions.iter().filter_map(|export| Some((export.function.as_ref().ok()?, documented(export)))).unzip();
    for ((function, name), said) in usable.iter().zip(names(&usable)).zip(said).take(TOOLS_MAX) {
        text.push_str(&entry(function, name.as_ref(), said, needs));
    }
    if usable.len() > TOOLS_MAX {
        text.push_str(&format!("\n# A component gives at most {TOOLS_MAX} tools:\n"));
        for function in usable.iter().skip(TOOLS_MAX) {
            text.push_str(&format!("# export = {}\n", quoted(function.label.as_str())));
        }
    }
    text
}

fn entry(function: &Function, name: Option<&ToolName>, said: Option<String>, needs: &[Need]) -> String {
    let label = &function.label;
    let whole = visible(&function.to_string()).into_owned();
    let mut signature: String = whole.chars().take(SIGNATURE_MAX_CHARS).collect();
    if signature.len() < whole.len() {
        signature.push('…');
    }
    let from = label.interface().map_or_else(String::new, |interface| format!(" of `{interface}`"));
    let documented = said.map(|said| said.chars().take(DOCUMENTATION_MAX_CHARS).collect());
    let what: String = documented.unwrap_or_else(|| format!("Calls `{}`{from}: `{signature}`.", label.function()));
    let when = format!("When exactly what `{}`{from} does is wanted.", label.function());
    let reaching: Vec<&str> = needs.iter().filter(|need| need.changes()).map(Need::of_what).collect();
    let side_effects = if reaching.is_empty() {
        "None: it reaches nothing outside of itself.".to_owned()
    } else {
        format!("What its manifest grants of {}; nothing else.", reaching.join(", "))
    };
    let errors = match (function.error(), function.can_fail()) {
        (Some(error), _) => format!("It returns `{error}`; the detail has the value."),
        (None, true) => "It may fail without saying why.".to_owned(),
        (None, false) => "None of its own.".to_owned(),
    };
    let errors: String = errors.chars().take(2 * SIGNATURE_MAX_CHARS).collect();
    let mut text = format!("\n[[function]]\nexport = {}\n", quoted(label.as_str()));
    if let Some(name) = name {
        text.push_str(&format!("name = {}\n", quoted(name.as_str())));
    }
    for (key, said) in [("what", what), ("when", when), ("side_effects", side_effects), ("errors", errors)] {
        text.push_str(&format!("{key} = {}\n", quoted(&said)));
    }
    text
}

/// Names for functions that need one: those that are too long or would be called like another.
fn names(functions: &[&Function]) -> Vec<Option<ToolName>> {
    let mut taken: BTreeMap<ToolName, usize> = BTreeMap::new();
    for function in functions {
        if let Ok(name) = function.label.name() {
            *taken.entry(name).or_default() += 1;
        }
    }
    let mut given: Vec<Option<ToolName>> = Vec::with_capacity(functions.len());
    for (number, function) in functions.iter().enumerate() {
        let label = &function.label;
        if label.name().is_ok_and(|name| taken.get(&name) == Some(&1)) {
            given.push(None);
            continue;
        }
        let free = |name: &ToolName| !taken.contains_key(name) && !given.iter().flatten().any(|other| other == name);
        let qualified = (2..=4).filter_map(|parts| label.qualified(parts).ok()).find(free);
        given.push(qualified.or_else(|| numbered(label, number)));
    }
    given
}

fn numbered(label: &Label, number: usize) -> Option<ToolName> {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let stem: String = label.function().chars().take(NAME_MAX_BYTES / 2).map(plain).collect();
    format!("f{number}-{stem}").parse().ok()
}

/// A name for the tools of a file.
fn name_of(path: &Path) -> String {
    let stem = path.file_stem().map(|stem| stem.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let name: String = stem.chars().map(plain).take(NAME_MAX_BYTES / 2).collect();
    let name = name.trim_matches('-');
    if name.is_empty() || name == "toolkeep" { "tool".to_owned() } else { name.to_owned() }
}

/// A TOML string.
fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use toolkeep_core::wit::Type;

    fn function(label: &str) -> Function {
        Function { label: label.parse().expect("a label"), params: [].into(), result: Some(Type::Bool) }
    }

    #[test]
    fn names_are_given_only_where_they_are_needed_and_no_two_are_the_same() {
        let labels = [
            "run",
            "a:b/c@1.0.0#f",
            "a:b/c@2.0.0#f",
            "x:b/c#f",
            "a:b/d#f",
            "Run",
            "b.c#f",
            "a:b/eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee#f",
        ];
        let functions: Vec<Function> = labels.iter().map(|label| function(label)).collect();
        let given = names(&functions.iter().collect::<Vec<_>>());
        let given: Vec<Option<&str>> = given.iter().map(|name| name.as_ref().map(ToolName::as_str)).collect();
        assert_eq!(
            given,
            [
                Some("f0-run"),
                Some("a.b.c.f"),
                Some("a.b.c.2.0.0.f"),
                Some("x.b.c.f"),
                None,
                Some("f5-run"),
                None,
                Some("f7-f"),
            ]
        );
    }

    #[test]
    fn the_name_of_a_file_becomes_the_name_of_its_tools() {
        for (path, name) in [("a/Stock_Room.wasm", "stock-room"), ("-.wasm", "tool"), ("toolkeep.wasm", "tool")] {
            assert_eq!(name_of(Path::new(path)), name);
        }
    }
}
