//! `charge`: charges a customer and says what the payment service answered.
//!
//! The tool needs the real answer, so its manifest says `delivery = "live"`: the host stops it at the request, decides about
//! that, sends it once with an idempotency key of its own, and runs the tool again with the answer. So everything in
//! front of the request must be the same every time: it depends on the input alone. The manifest also declares the
//! request that undoes a charge.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toolkeep_sdk::http::{Request, encode};
use toolkeep_sdk::{Error, Result, tool};

/// Whom to charge.
#[derive(Debug, Deserialize, JsonSchema)]
pub struct ChargeArgs {
    /// Where the payment service is, for example `https://pay.example.com`. The manifest must grant it.
    pub service: String,
    /// The customer's id.
    pub customer: String,
    /// How much, in the smallest unit of the currency.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub amount: u64,
    /// Three letters, for example `EUR`.
    pub currency: String,
}

/// What the payment service says.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    /// Its id for the charge; empty in a preview.
    #[serde(default)]
    pub id: String,
    /// `paid`, or `declined`.
    pub state: String,
}

/// What the service takes.
#[derive(Debug, Serialize)]
struct Order<'a> {
    customer: &'a str,
    amount: u64,
    currency: &'a str,
}

/// Charges a customer once.
///
/// When: the user asks to take a payment and has named customer and amount. Never to find out whether a payment works.
/// Side effects: one request to the payment service, sent while the tool runs, after it was approved. It can be undone by
/// a refund.
/// Errors: invalid-input for a currency that is none; conflict if the service declines; transient if it does not answer.
#[tool(title = "Charge a customer", effects("http.request"))]
pub fn charge(args: ChargeArgs) -> Result<Charge> {
    if args.currency.len() != 3 || !args.currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return Err(Error::invalid_input("write three capital letters").at("/currency"));
    }
    let order = Order { customer: &args.customer, amount: args.amount, currency: &args.currency };
    let url = format!("{}/customers/{}/charges", args.service.trim_end_matches('/'), encode(&args.customer));
    let charge: Charge = Request::post(url).json(&order)?.send()?.success()?.parse()?;
    if charge.state == "declined" {
        return Err(Error::conflict(format!("the payment service declined the charge `{}`", charge.id)));
    }
    Ok(charge)
}

toolkeep_sdk::export!(charge);

#[cfg(test)]
mod tests {
    use super::charge;
    use serde_json::{Value, json};
    use toolkeep_sdk::ErrorKind;
    use toolkeep_sdk::http::Response;
    use toolkeep_sdk::testing::Harness;

    fn input(currency: &str) -> Value {
        json!({"service": "https://pay.example.com/", "customer": "c 1", "amount": 4200, "currency": currency})
    }

    fn service(status: u16, state: &str) -> Harness {
        let answer = Response::json(status, &json!({"id": "ch_1", "state": state}));
        Harness::new().answers("POST", "https://pay.example.com/customers/c%201/charges", answer)
    }

    #[test]
    fn a_charge_is_one_request_and_its_answer_is_the_output() {
        let outcome = service(201, "paid").call(charge, input("EUR"));
        assert_eq!(outcome.output(), &json!({"id": "ch_1", "state": "paid"}));
        let body: Value = serde_json::from_slice(&outcome.requests[0].body).expect("JSON");
        assert_eq!(body, json!({"customer": "c 1", "amount": 4200, "currency": "EUR"}));
        assert_eq!(outcome.requests.len(), 1);
    }

    #[test]
    fn what_cannot_be_charged_is_an_error_of_its_kind() {
        assert_eq!(service(200, "declined").call(charge, input("EUR")).error().kind(), ErrorKind::Conflict);
        assert_eq!(service(503, "busy").call(charge, input("EUR")).error().kind(), ErrorKind::Transient);
        let outcome = service(201, "paid").call(charge, input("euro"));
        assert_eq!((outcome.error().kind(), outcome.requests.len()), (ErrorKind::InvalidInput, 0));
    }
}
