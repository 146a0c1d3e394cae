//! `counter`: named counters that stay between calls, in the bucket `counts`.
//!
//! Adding commutes: calls that run at the same time all count, and none makes the plan of another stale. Reading a counter
//! makes a plan depend on its value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::{Error, Result, keys, tool};

/// The bucket. The manifest grants it.
const BUCKET: &str = "counts";

/// What to add, and where.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct AddArgs {
    /// The counter, for example `visits/2026-05`.
    pub name: String,
    /// What to add; may be negative.
    #[serde(default = "one")]
    pub by: i64,
}

const fn one() -> i64 {
    1
}

/// Which counter.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct GetArgs {
    /// The counter.
    pub name: String,
}

/// A counter.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Count {
    /// Its name.
    pub name: String,
    /// Its value. After adding: the sum that is known now; others may add before this is committed.
    pub value: i64,
}

/// Which counters.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ListArgs {
    /// How their names start; empty for all.
    #[serde(default)]
    pub prefix: String,
}

/// Counters, by name.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Counts {
    /// The counters.
    pub counts: Vec<Count>,
}

fn value(bucket: &keys::Bucket, name: &str) -> Result<Option<i64>> {
    let Some(text) = bucket.get_text(name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| Error::failed(format!("`{name}` holds no number")))
}

/// Adds to a counter.
///
/// When: the user wants something counted.
/// Side effects: changes one key of the bucket `counts`; makes it if it does not exist.
/// Errors: invalid-input if the name is no key or the sum does not fit; denied if the counter is not granted.
#[tool(title = "Add to a counter", effects("kv.add"))]
pub fn add(args: AddArgs) -> Result<Count> {
    let value = keys::bucket(BUCKET)?.add(&args.name, args.by)?;
    Ok(Count { name: args.name, value })
}

/// Shows a counter.
///
/// When: the user asks how much was counted.
/// Side effects: none.
/// Errors: not-found if nothing was counted under this name.
#[tool(title = "Show a counter")]
pub fn get(args: GetArgs) -> Result<Count> {
    let found = value(&keys::bucket(BUCKET)?, &args.name)?;
    let value = found.ok_or_else(|| Error::not_found(format!("there is no counter `{}`", args.name)).at("/name"))?;
    Ok(Count { name: args.name, value })
}

/// Lists counters with their values.
///
/// When: the user asks what is counted.
/// Side effects: none.
/// Errors: failed if a key of the bucket holds no number.
#[tool(title = "List counters")]
pub fn list(args: ListArgs) -> Result<Counts> {
    let bucket = keys::bucket(BUCKET)?;
    let mut counts = Vec::new();
    for name in bucket.list()?.into_iter().filter(|name| name.starts_with(&args.prefix)) {
        let value = value(&bucket, &name)?.unwrap_or_default();
        counts.push(Count { name, value });
    }
    Ok(Counts { counts })
}

toolkeep_sdk::export!(add, get, list);

#[cfg(test)]
mod tests {
    use super::{add, get, list};
    use serde_json::json;
    use toolkeep_sdk::testing::Harness;
    use toolkeep_sdk::{EffectKind, ErrorKind};

    fn harness() -> Harness {
        Harness::new().bucket("counts", [("visits/a", "41"), ("visits/b", "1"), ("text", "x")])
    }

    #[test]
    fn adding_is_seen_by_later_calls() {
        let harness = harness();
        let outcome = harness.call(add, json!({"name": "visits/a"}));
        assert_eq!(outcome.output()["value"], 42);
        assert_eq!(outcome.effects[0].kind, EffectKind::KvAdd);
        harness.call(add, json!({"name": "new", "by": -3}));
        assert_eq!(harness.call(get, json!({"name": "new"})).output()["value"], -3);
        assert_eq!(harness.key("counts", "visits/a").as_deref(), Some("42"));
    }

    #[test]
    fn counters_are_listed_by_prefix() {
        let outcome = harness().call(list, json!({"prefix": "visits/"}));
        assert_eq!(outcome.output()["counts"].as_array().map(Vec::len), Some(2));
        assert_eq!(harness().call(list, json!({})).error().kind(), ErrorKind::Failed);
    }

    #[test]
    fn what_is_not_there_or_no_number_is_an_error() {
        assert_eq!(harness().call(get, json!({"name": "gone"})).error().kind(), ErrorKind::NotFound);
        assert_eq!(harness().call(add, json!({"name": "text"})).error().kind(), ErrorKind::InvalidInput);
    }
}
