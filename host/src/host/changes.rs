//! What the daemon is told to do, and every change of it on record: tools, contracts, and the configuration itself.
//!
//! Somebody may change a file while nobody looks. So what is on record is not that something was read again but what is
//! different afterwards, by name and digest, and who had it read: an operator, or the daemon because a file changed.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use toolkeep_core::audit::AuditKind;
use toolkeep_core::digest::Digest;

use super::Host;
use crate::authenticate::Operator;
use crate::catalog::Catalog;

/// Most names that one entry lists; it says how many more there are.
const LISTED_MAX: usize = 100;

/// What something is, by name: digests of what defines it.
pub(super) type Inventory = BTreeMap<String, Value>;

/// The tools that are offered.
pub(super) fn tools(catalog: &Catalog) -> Inventory {
    let of = |tool: &std::sync::Arc<crate::catalog::Tool>| {
        let facts = json!({"component": tool.component.digest, "manifest": tool.manifest.digest});
        (tool.name.as_str().to_owned(), facts)
    };
    catalog.tools().map(of).collect()
}

/// What is different, if anything is.
fn difference(before: &Inventory, after: &Inventory) -> Option<Value> {
    let added: Vec<Value> = after.iter().filter(|(name, _)| !before.contains_key(*name)).map(named).collect();
    let removed: Vec<&String> = before.keys().filter(|name| !after.contains_key(*name)).collect();
    let is_changed = |(name, facts): &(&String, &Value)| before.get(*name).is_some_and(|was| was != *facts);
    let changed: Vec<Value> = after.iter().filter(is_changed).map(named).collect();
    let all = added.len() + removed.len() + changed.len();
    if all == 0 {
        return None;
    }
    let cut = |list: Vec<Value>| list.into_iter().take(LISTED_MAX).collect::<Vec<_>>();
    let removed: Vec<&String> = removed.into_iter().take(LISTED_MAX).collect();
    let (added, changed) = (cut(added), cut(changed));
    let unlisted = all - added.len() - removed.len() - changed.len();
    Some(json!({"added": added, "changed": changed, "removed": removed, "unlisted": unlisted}))
}

fn named((name, facts): (&String, &Value)) -> Value {
    let mut facts = facts.clone();
    if let Value::Object(members) = &mut facts {
        members.insert("name".to_owned(), json!(name));
    }
    facts
}

impl Host {
    /// The contracts that runs may name.
    pub(super) fn contracts_now(&self) -> Inventory {
        let contracts = self.budgets().contracts().current();
        let of = |contract: &std::sync::Arc<toolkeep_core::contract::Contract>| {
            let digest = Digest::of(format!("{contract:?}").as_bytes());
            (contract.name.as_str().to_owned(), json!({"contract": digest}))
        };
        contracts.all().map(of).collect()
    }

    /// Put on record what is different from before. `by` had it read; nobody where a file changed.
    pub(super) fn note_changes(
        &self,
        kind: AuditKind,
        (what, before, after): (&str, &Inventory, &Inventory),
        by: Option<&Operator>,
    ) {
        let Some(mut facts) = difference(before, after) else { return };
        if let Value::Object(members) = &mut facts {
            members.insert("what".to_owned(), json!(what));
            match by {
                Some(operator) => members.insert("by".to_owned(), json!(operator.user())),
                None => members.insert("by".to_owned(), json!("daemon")),
            };
            if let Some(operator) = by {
                members.insert("tenant".to_owned(), json!(operator.tenant()));
            }
        }
        if let Err(error) = self.ledger().audit(kind, &facts) {
            tracing::error!(%error, what, "a change could not be put on record");
        }
    }

    /// A digest over everything that is offered and that runs may name, for the entry of a start.
    pub(super) fn inventory(&self) -> Value {
        let digest = |inventory: &Inventory| Digest::of(json!(inventory).to_string().as_bytes());
        json!({"tools": digest(&tools(&self.catalog().current())), "contracts": digest(&self.contracts_now())})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn r40_what_is_different_is_listed_and_what_is_not_is_no_entry() {
        let of = |names: &[(&str, u8)]| -> Inventory {
            names.iter().map(|(name, version)| ((*name).to_owned(), json!({"manifest": version}))).collect()
        };
        let before = of(&[("a", 1), ("b", 1), ("c", 1)]);
        assert_eq!(difference(&before, &before.clone()), None);
        let said = difference(&before, &of(&[("a", 1), ("b", 2), ("d", 1)])).expect("a difference");
        assert_eq!(
            said,
            json!({"added": [{"name": "d", "manifest": 1}], "changed": [{"name": "b", "manifest": 2}], "removed": ["c"],
                "unlisted": 0})
        );
        let many: Inventory = (0..=LISTED_MAX).map(|n| (n.to_string(), json!({}))).collect();
        let said = difference(&Inventory::new(), &many).expect("a difference");
        assert_eq!((said["added"].as_array().expect("a list").len(), &said["unlisted"]), (LISTED_MAX, &json!(1)));
    }
}
