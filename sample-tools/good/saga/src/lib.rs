//! `saga`: an order in three steps of one transaction: reserve stock, write the order, tell the carrier.
//!
//! Each step is a tool of its own and sees what the steps before it staged. The transaction is previewed, approved and
//! committed as one plan; if a step fails, rolling back leaves nothing of any of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::{Request, encode};
use toolkeep_sdk::{Error, Result, keys, tool, workspace};

/// The bucket that holds how much of each article there is.
const STOCK: &str = "stock";
/// The workspace that holds the orders.
const ORDERS: &str = "orders";

/// What to reserve.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ReserveArgs {
    /// The article.
    pub article: String,
    /// How many.
    #[schemars(range(min = 1, max = 1_000))]
    pub count: i64,
}

/// What is left.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ReserveOutput {
    /// How many are left after this order.
    pub left: i64,
}

/// The order.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ConfirmArgs {
    /// Its id: a name of a file.
    pub order: String,
    /// The article.
    pub article: String,
    /// How many.
    pub count: i64,
}

/// Where the order is.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ConfirmOutput {
    /// Its file, relative to the workspace `orders`.
    pub path: String,
}

/// Which order to ship, and by whom.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ShipArgs {
    /// The order.
    pub order: String,
    /// Where the carrier is, for example `https://carrier.example.com`. The manifest must grant it.
    pub carrier: String,
}

/// What came of it.
#[derive(Debug, Serialize, JsonSchema)]
pub struct ShipOutput {
    /// Whether the request waits for the plan to be committed.
    pub staged: bool,
}

fn path(order: &str) -> String {
    format!("{order}.txt")
}

/// Takes articles out of the stock.
///
/// When: the first step of an order.
/// Side effects: changes one key of the bucket `stock`.
/// Errors: conflict if there are not enough; not-found if there is no such article.
#[tool(title = "Reserve stock", effects("kv.set"))]
pub fn reserve(args: ReserveArgs) -> Result<ReserveOutput> {
    let stock = keys::bucket(STOCK)?;
    let text = stock.get_text(&args.article)?;
    let text =
        text.ok_or_else(|| Error::not_found(format!("there is no article `{}`", args.article)).at("/article"))?;
    let there: i64 =
        text.parse().map_err(|_| Error::failed(format!("the stock of `{}` is no number", args.article)))?;
    let left = there - args.count;
    if left < 0 {
        return Err(Error::conflict(format!("only {there} of `{}` are left", args.article)).at("/count"));
    }
    stock.set(&args.article, left.to_string())?;
    Ok(ReserveOutput { left })
}

/// Writes an order down.
///
/// When: the second step of an order, after the stock was reserved.
/// Side effects: creates one file of the workspace `orders`.
/// Errors: conflict if the order exists; invalid-input if its id is no name of a file.
#[tool(title = "Confirm an order", effects("file.write"))]
pub fn confirm(args: ConfirmArgs) -> Result<ConfirmOutput> {
    let path = path(&args.order);
    workspace(ORDERS)?.create(&path, format!("{} x {}\n", args.count, args.article))?;
    Ok(ConfirmOutput { path })
}

/// Tells the carrier to fetch an order.
///
/// When: the third step of an order, after it was written down.
/// Side effects: one request to the carrier, sent when the transaction is committed.
/// Errors: not-found if there is no such order.
#[tool(title = "Ship an order", effects("http.request"))]
pub fn ship(args: ShipArgs) -> Result<ShipOutput> {
    let order = workspace(ORDERS)?.read_to_string(&path(&args.order))?;
    let url = format!("{}/pickups/{}", args.carrier.trim_end_matches('/'), encode(&args.order));
    let response = Request::put(url).body("text/plain", order).send()?.success()?;
    Ok(ShipOutput { staged: response.is_staged() })
}

toolkeep_sdk::export!(reserve, confirm, ship);

#[cfg(test)]
mod tests {
    use super::{confirm, reserve, ship};
    use serde_json::json;
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::testing::Harness;

    fn shop() -> Harness {
        Harness::new().bucket("stock", [("chair", "3")]).empty_workspace("orders")
    }

    #[test]
    fn three_steps_make_an_order() {
        let shop = shop();
        assert_eq!(shop.call(reserve, json!({"article": "chair", "count": 2})).output()["left"], 1);
        let outcome = shop.call(confirm, json!({"order": "o-1", "article": "chair", "count": 2}));
        assert_eq!(outcome.effect_list(), ["file.write orders:o-1.txt"]);
        let outcome = shop.call(ship, json!({"order": "o-1", "carrier": "https://carrier.example.com"}));
        assert_eq!(outcome.output()["staged"], true);
        assert_eq!(outcome.requests[0].url, "https://carrier.example.com/pickups/o-1");
        assert_eq!(outcome.requests[0].body, b"2 x chair\n");
        assert_eq!(shop.key("stock", "chair").as_deref(), Some("1"));
    }

    #[test]
    fn a_step_that_cannot_be_done_changes_nothing() {
        let shop = shop();
        let outcome = shop.call(reserve, json!({"article": "chair", "count": 4}));
        assert_eq!((outcome.error().kind(), outcome.effects.len()), (ErrorKind::Conflict, 0));
        assert_eq!(shop.call(reserve, json!({"article": "table", "count": 1})).error().kind(), ErrorKind::NotFound);
        let outcome = shop.call(ship, json!({"order": "gone", "carrier": "https://carrier.example.com"}));
        assert_eq!((outcome.error().kind(), outcome.requests.len()), (ErrorKind::NotFound, 0));
    }
}
