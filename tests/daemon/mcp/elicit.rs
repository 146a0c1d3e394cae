//! Holds by elicitation: who is asked, in which way, what an answer comes to, and everything that is not an answer.

use serde_json::{Value, json};

use super::super::approvals::approve;
use super::super::world::{Plot, World};
use super::Mcp;
use crate::doors::running::Client;

/// Every change is confirmed by whoever uses the agent, where that is enough.
pub(super) const CONFIRMED: &str = "@id(\"call\")\npermit (principal, action in Action::\"call\", resource);\n\
    @id(\"changes\")\n@reason(\"changes are confirmed\")\n@confirm\n\
    permit (principal, action in Action::\"commit\", resource);\n";
/// Every change waits for an operator.
const HELD: &str = "@id(\"call\")\npermit (principal, action in Action::\"call\", resource);\n\
    @id(\"changes\")\n@hold\npermit (principal, action in Action::\"commit\", resource);\n";
/// Where people decide.
const PAGE: &str = "approval_page = \"https://console.example/approvals/{approval}\"";
/// The revisions, the newest first.
pub(super) const ERAS: [&str; 3] = ["2026-07-28", "2025-11-25", "2025-06-18"];

/// A daemon with this policy and these lines of `[oversight]`.
pub(super) fn world(policy: &str, oversight: &str) -> World {
    let mut world = World::asleep(Plot { limits: text(oversight), ..Plot::default() });
    world.home.put("policies/a.cedar", policy.as_bytes());
    world.start();
    world
}

/// A daemon at both doors where every change is confirmed.
pub(super) fn confirming() -> World {
    let limits = format!("{}[http]\nlisten = \"127.0.0.1:0\"\n", text(""));
    let mut world = World::asleep(Plot { limits: Box::leak(limits.into_boxed_str()), ..Plot::default() });
    world.home.put("policies/a.cedar", CONFIRMED.as_bytes());
    world.start();
    world
}

/// The configuration that goes with [`CONFIRMED`].
pub(super) fn text(oversight: &str) -> &'static str {
    Box::leak(format!("[policy]\ndir = \"policies\"\n[oversight]\n{oversight}\n").into_boxed_str())
}

/// One client.
pub(super) struct Talk {
    mcp: Mcp,
    capabilities: Value,
}

/// A question, and by what it is answered.
#[derive(Debug)]
pub(super) struct Question {
    params: Value,
    /// `requestState`, or the id of the request.
    by: Value,
    /// The parameters of the call.
    call: Value,
}

/// What a call is answered with at first.
#[derive(Debug)]
pub(super) enum First {
    Asked(Question),
    Told(Value),
}

impl First {
    pub(super) fn asked(self) -> Question {
        match self {
            Self::Asked(question) => question,
            Self::Told(result) => panic!("nobody is asked: {result}"),
        }
    }

    pub(super) fn told(self) -> Value {
        match self {
            Self::Told(mut result) => result["structuredContent"].take(),
            Self::Asked(question) => panic!("somebody is asked: {question:?}"),
        }
    }

    /// `form`, `url` or `nothing`.
    fn kind(&self) -> &str {
        match self {
            Self::Told(_) => "nothing",
            Self::Asked(question) => question.params["mode"].as_str().unwrap_or("form"),
        }
    }
}

impl Talk {
    pub(super) fn new(world: &World, era: &str, capabilities: &Value) -> Self {
        Self::with(world, (era, capabilities), None)
    }

    /// With a token, which is shown before anything is said.
    pub(super) fn with(world: &World, (era, capabilities): (&str, &Value), token: Option<&Value>) -> Self {
        let mut connection = Client::connect(&world.path("run/agent/mcp.sock"));
        if let Some(token) = token {
            let params = json!({"token": token});
            let show = json!({"jsonrpc": "2.0", "id": 0, "method": "session.authenticate", "params": params});
            let shown = connection.exchange(&show.to_string());
            assert!(shown.get("result").is_some(), "{shown}");
        }
        let mut mcp = Mcp { connection, stateless: era == ERAS[0], next: 0 };
        if !mcp.stateless {
            mcp.greet_as(era, capabilities);
        }
        Self { mcp, capabilities: capabilities.clone() }
    }

    fn send(&mut self, mut params: Value) -> u64 {
        if self.mcp.stateless {
            params["_meta"]["io.modelcontextprotocol/clientCapabilities"] = self.capabilities.clone();
        }
        self.mcp.send("tools/call", params)
    }

    /// The next line that is no news.
    fn line(&mut self) -> Value {
        loop {
            let line = self.mcp.connection.line().expect("a line");
            if line.get("id").is_some() {
                return line;
            }
        }
    }

    fn first(&mut self, call: Value, line: &Value) -> First {
        if line["method"] == "elicitation/create" {
            return First::Asked(Question { params: line["params"].clone(), by: line["id"].clone(), call });
        }
        let result = &line["result"];
        if result["resultType"] == "input_required" {
            let asked = &result["inputRequests"]["approval"];
            assert_eq!(asked["method"], "elicitation/create", "{result}");
            return First::Asked(Question {
                params: asked["params"].clone(),
                by: result["requestState"].clone(),
                call,
            });
        }
        assert!(line.get("error").is_none(), "{line}");
        First::Told(result.clone())
    }

    fn call(&mut self, name: &str, arguments: Value) -> First {
        let params = json!({"name": name, "arguments": arguments});
        self.send(params.clone());
        let line = self.line();
        self.first(params, &line)
    }

    /// Answer a question; what comes then.
    pub(super) fn answer(&mut self, question: &Question, response: &Value) -> First {
        let line = self.say(question, response);
        self.first(question.call.clone(), &line)
    }

    /// Answer a question; the line that comes then.
    fn say(&mut self, question: &Question, response: &Value) -> Value {
        if self.mcp.stateless {
            let mut params = question.call.clone();
            params["inputResponses"] = json!({"approval": response});
            params["requestState"] = question.by.clone();
            self.send(params);
        } else {
            let line = json!({"jsonrpc": "2.0", "id": question.by, "result": response});
            self.mcp.connection.send(format!("{line}\n").as_bytes());
        }
        self.line()
    }

    pub(super) fn note(&mut self, title: &str) -> First {
        self.call("notes.add", json!({"title": title, "body": "b"}))
    }
}

fn rename() -> Value {
    json!({"from": "old_name", "to": "new_name"})
}

pub(super) fn yes() -> Value {
    json!({"action": "accept", "content": {"ok": true}})
}

#[test]
fn r51_whoever_uses_the_agent_is_asked_in_the_way_that_its_client_can() {
    let (plain, paged) = (world(CONFIRMED, ""), world(CONFIRMED, PAGE));
    let (none, form, url) = (json!({}), json!({"elicitation": {}}), json!({"elicitation": {"url": {}}}));
    let both = json!({"elicitation": {"form": {}, "url": {}}});
    // What the client can ask; whether there is a page; and how it is asked about what can be undone, and about tier 2.
    let newer = [
        (&none, false, "nothing", "nothing"),
        (&none, true, "nothing", "nothing"),
        (&form, false, "form", "nothing"),
        (&form, true, "form", "nothing"),
        (&url, false, "nothing", "nothing"),
        (&url, true, "url", "url"),
        (&both, false, "form", "nothing"),
        (&both, true, "url", "url"),
    ];
    let older =
        [(&none, true, "nothing", "nothing"), (&form, true, "form", "nothing"), (&both, true, "form", "nothing")];
    for (era, table) in [(ERAS[0], &newer[..]), (ERAS[1], &newer[..]), (ERAS[2], &older[..])] {
        for (capabilities, page, low, high) in table {
            let world = if *page { &paged } else { &plain };
            let about = format!("{era} {capabilities} {page}");
            for (tool, input, expected) in
                [("notes.add", json!({"title": "One", "body": "b"}), low), ("held-rename", rename(), high)]
            {
                // A client that answers nothing is gone before it is asked again.
                let first = Talk::new(world, era, capabilities).call(tool, input);
                assert_eq!(first.kind(), *expected, "{about} {tool}: {first:?}");
                let First::Asked(question) = first else {
                    assert_eq!(first.told()["status"], "approval_required", "{about} {tool}");
                    continue;
                };
                let said = question.params["message"].as_str().expect("a message");
                assert!(said.contains(&format!("`{tool}`")), "{about}: {said}");
                if *expected == "form" {
                    assert!(
                        said.contains("- file.write notes:one.md (a new file of "),
                        "every effect is named: {said}"
                    );
                    assert!(said.ends_with("It can be undone."), "{about}: {said}");
                    assert_eq!(question.params["requestedSchema"]["properties"]["ok"]["type"], "boolean");
                } else {
                    assert!(said.ends_with("People decide about it on this page."), "{about}: {said}");
                    let address = question.params["url"].as_str().expect("an address");
                    assert!(address.starts_with("https://console.example/approvals/appr_"), "{address}");
                    // The newest revision has no name for it.
                    assert_eq!(question.params.get("elicitationId").is_some(), era != ERAS[0], "{question:?}");
                }
            }
        }
    }
    for world in [&plain, &paged] {
        assert!(!world.path("notes/one.md").exists() && world.path("src/shop/old_name.py").exists());
    }
}

#[test]
fn r51_an_answer_to_a_form_commits_rejects_or_leaves_the_plan_as_it_is() {
    let world = world(CONFIRMED, "");
    let mut written = 0;
    for era in ERAS {
        let mut talk = Talk::new(&world, era, &json!({"elicitation": {}}));
        for (number, (response, status, outcome)) in [
            (yes(), "ok", "committed"),
            (json!({"action": "accept", "content": {"ok": false}}), "approval_required", "pending"),
            (json!({"action": "cancel"}), "approval_required", "pending"),
            (json!({"action": "decline"}), "denied", "discarded"),
            (json!({"action": "decline", "content": {"ok": true}}), "denied", "discarded"),
        ]
        .into_iter()
        .enumerate()
        {
            let title = format!("n{number}-{era}");
            let question = talk.note(&title).asked();
            let told = talk.answer(&question, &response).told();
            assert_eq!(
                (&told["status"], &told["outcome"]),
                (&json!(status), &json!(outcome)),
                "{era} {response}: {told}"
            );
            let committed = outcome == "committed";
            assert_eq!(world.path(&format!("notes/{title}.md")).exists(), committed, "{era} {response}");
            written += u64::from(committed);
            let again = talk.mcp.ok("tools/call", json!({"name": "text-stats", "arguments": {"text": "a"}}));
            assert_eq!(again["isError"], json!(false), "the connection goes on");
        }
        // What says nothing is asked for again where that is possible, and leaves the plan as it is elsewhere.
        for response in [json!({"action": "accept"}), json!({"action": "accept", "content": {"yes": true}})] {
            let question = talk.note(&format!("unsaid-{era}")).asked();
            let next = talk.answer(&question, &response);
            assert_eq!(next.kind(), if era == ERAS[0] { "form" } else { "nothing" }, "{era}: {next:?}");
        }
    }
    assert_eq!(written, 3);
    // Who said yes is on record, with how.
    let all = world.admin().ok("approvals.list", json!({"all": true}));
    let votes: Vec<&Value> = all["approvals"].as_array().expect("all").iter().map(|a| &a["votes"]).collect();
    assert!(votes.iter().any(|v| v[0]["reason"] == "confirmed through the client of the agent"), "{votes:?}");
    assert!(votes.iter().any(|v| v[0]["reason"] == "declined through the client of the agent"), "{votes:?}");
    world.verified();
}

#[test]
fn r51_who_is_sent_to_the_page_decides_there_and_the_answer_says_what_it_came_to() {
    let world = world(CONFIRMED, PAGE);
    let capabilities = json!({"elicitation": {"url": {}}});
    for (number, era) in ERAS[..2].iter().enumerate() {
        let mut talk = Talk::new(&world, era, &capabilities);
        // Nobody went there: it waits.
        for action in ["decline", "cancel"] {
            let question = talk.note(&format!("{action}-{era}")).asked();
            let told = talk.answer(&question, &json!({"action": action})).told();
            assert_eq!(told["status"], "approval_required", "{era} {action}: {told}");
        }
        // A form's answer to a question that had none is not one.
        let question = talk.note(&format!("form-{era}")).asked();
        let told = talk.answer(&question, &json!({"action": "cancel", "content": {"ok": true}})).told();
        assert_eq!(told["status"], "approval_required", "{era}: {told}");
        let from = if number == 0 { rename() } else { json!({"from": "new_name", "to": "newer_name"}) };
        let question = talk.call("held-rename", from).asked();
        let address = question.params["url"].as_str().expect("an address");
        let approval = address.rsplit('/').next().expect("an id").to_owned();
        approve(&mut world.admin(), &approval);
        let told = talk.answer(&question, &json!({"action": "accept"})).told();
        assert_eq!(told["outcome"], "committed", "{era}: {told}");
    }
    assert!(world.path("src/shop/newer_name.py").exists());
    world.verified();
}

#[test]
fn t_p4_t_p5_a_state_is_believed_of_its_caller_its_call_and_its_plan_only_and_counts_once() {
    let world = world(CONFIRMED, "");
    let form = json!({"elicitation": {}});
    let mut talk = Talk::new(&world, ERAS[0], &form);
    let note = json!({"title": "Mine", "body": "b"});
    let question = talk.call("notes.add", note.clone()).asked();
    let state = question.by.as_str().expect("a state").to_owned();
    let before = world.snapshot();

    let mut other = Talk::new(&world, ERAS[0], &form);
    let minted = world.admin().ok("tokens.mint", json!({"user": "bob", "agent": "other", "label": "t"}));
    let show =
        json!({"jsonrpc": "2.0", "id": 0, "method": "session.authenticate", "params": {"token": minted["token"]}});
    assert!(other.mcp.connection.exchange(&show.to_string()).get("result").is_some());
    let theirs = other.call("notes.add", note.clone()).asked().by;

    let flipped = |at: usize| {
        let mut bytes = state.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        json!(String::from_utf8(bytes).expect("ASCII"))
    };
    let half = &state[..state.len() / 2];
    let rows = [
        ("flipped at its begin", "notes.add", note.clone(), flipped(0)),
        ("flipped in its middle", "notes.add", note.clone(), flipped(state.len() / 2)),
        ("flipped at its end", "notes.add", note.clone(), flipped(state.len() - 1)),
        ("longer", "notes.add", note.clone(), json!(format!("{state}-TAMPERED"))),
        ("half of it", "notes.add", note.clone(), json!(half)),
        ("nothing", "notes.add", note.clone(), json!("")),
        ("much", "notes.add", note.clone(), json!("A.".repeat(100_000))),
        ("no text", "notes.add", note.clone(), json!(7)),
        ("somebody else's", "notes.add", note.clone(), theirs),
        ("for other arguments", "notes.add", json!({"title": "Mine", "body": "c"}), json!(state)),
        ("for another tool", "notes.add.preview", note.clone(), json!(state)),
        ("for a tool of tier 2", "notes2.add", note.clone(), json!(state)),
        ("for a tool of the daemon's own", "toolkeep.commit", json!({"plan": "plan_x"}), json!(state)),
        ("for a tool that is none", "nothing", note.clone(), json!(state)),
    ];
    for (what, name, arguments, state) in rows {
        let params = json!({"name": name, "arguments": arguments, "requestState": state,
            "inputResponses": {"approval": yes()}});
        talk.send(params);
        let line = talk.line();
        assert_eq!(line["error"]["code"], -32_602, "{what}: {line}");
        assert!(!line.to_string().contains(half), "{what}: the state is not repeated: {line}");
    }
    // Another caller with the state of this one: the plan is nobody's there.
    other.send(json!({"name": "notes.add", "arguments": note, "requestState": state,
        "inputResponses": {"approval": yes()}}));
    let line = other.line();
    assert_eq!(line["error"]["code"], -32_602, "{line}");
    assert_eq!(world.snapshot(), before, "nothing of that was an answer");

    // Once: what is said again, yes or no, finds what it came to.
    let done = talk.answer(&question, &yes()).told();
    assert_eq!(done["outcome"], "committed", "{done}");
    let after = world.snapshot();
    assert_ne!(after, before);
    for response in [yes(), json!({"action": "decline"}), json!({"action": "cancel"})] {
        let again = talk.answer(&question, &response).told();
        assert_eq!((&again["call_id"], &again["outcome"]), (&done["call_id"], &json!("committed")), "{again}");
    }
    assert_eq!(world.snapshot(), after);
    world.verified();
}

#[test]
fn t_i9_answers_that_are_none_are_refused_and_what_is_missing_is_asked_for_again() {
    let world = world(CONFIRMED, "");
    let mut talk = Talk::new(&world, ERAS[0], &json!({"elicitation": {}}));
    let note = json!({"title": "Mine", "body": "b"});
    let question = talk.call("notes.add", note.clone()).asked();
    let (state, before) = (question.by.clone(), world.snapshot());
    for (what, responses) in [
        ("a list", json!([])),
        ("null", Value::Null),
        ("no object", json!({"approval": 7})),
        ("no action", json!({"approval": {}})),
        ("another action", json!({"approval": {"action": "approve", "content": {"ok": true}}})),
    ] {
        let params =
            json!({"name": "notes.add", "arguments": note, "requestState": state, "inputResponses": responses});
        talk.send(params);
        let line = talk.line();
        assert_eq!(line["error"]["code"], -32_602, "{what}: {line}");
    }
    // Answers to no question answer none: the call is made, is held and asked about, and nothing is settled.
    let held = || world.admin().ok("approvals.list", json!({}))["approvals"].as_array().expect("all").len();
    let waiting = held();
    talk.send(json!({"name": "notes.add", "arguments": note, "inputResponses": {"approval": yes()}}));
    let line = talk.line();
    assert_eq!((&line["result"]["resultType"], held()), (&json!("input_required"), waiting + 1), "{line}");
    // What else is in the answers is passed over, and what is missing is asked for again.
    let mut params = question.call.clone();
    params["requestState"] = state;
    params["inputResponses"] = json!({"unasked": {"action": "accept", "content": {"ok": true}}});
    talk.send(params);
    let line = talk.line();
    assert_eq!(line["result"]["resultType"], "input_required", "{line}");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn t_p6_no_answer_of_an_agent_agrees_to_what_operators_have_to_agree_to() {
    let world = world(CONFIRMED, "");
    let before = world.snapshot();
    let form = json!({"elicitation": {"form": {}, "url": {}}});
    let mut held = Vec::new();
    for era in ERAS {
        let mut talk = Talk::new(&world, era, &form);
        let note = json!({"title": format!("high-{era}"), "body": "b"});
        // Kinds that a manifest holds, tier 2 and tier 3, each under a policy that has everything confirmed.
        for (tool, input) in [("held-rename", rename()), ("notes2.add", note.clone()), ("notes3.add", note)] {
            let told = talk.call(tool, input).told();
            assert_eq!(told["status"], "approval_required", "{era} {tool}: {told}");
            held.push(told["approval_id"].clone());
        }
        // An old client that answers what nobody asked.
        for id in ["toolkeep-1", "toolkeep-2", "approval"] {
            let line = json!({"jsonrpc": "2.0", "id": id, "result": yes()});
            talk.mcp.connection.send(format!("{line}\n").as_bytes());
        }
        // Committing its own preview ends in the same place.
        let shown = talk.call("held-rename.preview", rename()).told();
        let told = talk.call("toolkeep.commit", json!({"plan": shown["plan"]["id"]})).told();
        assert_eq!(told["status"], "approval_required", "{era}: {told}");
        held.push(told["approval_id"].clone());
        // One that answers for a tool that can be confirmed, with the approval of one that cannot.
        let question = talk.note(&format!("cover-{era}")).asked();
        let response = json!({"action": "accept", "content": {"ok": false, "approval": held[0]}, "approval": held[0]});
        assert_eq!(talk.answer(&question, &response).told()["status"], "approval_required");
    }
    assert_eq!(world.snapshot(), before);
    let waiting = world.admin().ok("approvals.list", json!({}));
    let waiting: Vec<&Value> = waiting["approvals"].as_array().expect("all").iter().map(|a| &a["id"]).collect();
    assert!(held.iter().all(|id| waiting.contains(&id)), "all of them wait for people: {waiting:?}");
    world.verified();
}

#[test]
fn t_p6_nobody_is_told_that_a_plan_can_be_undone_about_one_that_cannot() {
    let world = world(CONFIRMED, PAGE);
    for era in &ERAS[..2] {
        for (tool, input) in [
            ("notes.add", json!({"title": "One", "body": "b"})),
            ("held-rename", rename()),
            ("notes2.add", json!({"title": "Two", "body": "b"})),
            ("notes3.add", json!({"title": "Three", "body": "b"})),
        ] {
            let question = Talk::new(&world, era, &json!({"elicitation": {"url": {}}})).call(tool, input).asked();
            let said = question.params["message"].as_str().expect("a message").to_owned();
            assert!(said.contains(&format!("`{tool}`")) && said.contains("\n- file."), "{era}: {said}");
            assert!(!said.contains("undone") && said.ends_with("on this page."), "{era} {tool}: {said}");
        }
    }
}

#[test]
fn t_i3_an_answer_with_a_credential_that_was_taken_back_since_the_question_is_none() {
    let world = world(CONFIRMED, "");
    for era in ERAS {
        for response in [yes(), json!({"action": "decline"})] {
            let minted = world.admin().ok("tokens.mint", json!({"user": "bob", "agent": "other", "label": "t"}));
            let mut talk = Talk::with(&world, (era, &json!({"elicitation": {}})), Some(&minted["token"]));
            let question = talk.note(&format!("late-{era}")).asked();
            world.admin().ok("tokens.revoke", json!({"token": minted["id"]}));
            let line = talk.say(&question, &response);
            assert!(line.to_string().contains("unauthorized"), "{era} {response}: {line}");
            assert!(!world.path(&format!("notes/late-{era}.md")).exists(), "{era}");
        }
    }
    let waiting = world.admin().ok("approvals.list", json!({}));
    assert_eq!(waiting["approvals"].as_array().expect("all").len(), 2 * ERAS.len(), "neither yes nor no: {waiting}");
    world.verified();
}

#[test]
fn t_p7_an_answer_is_worth_what_the_policy_of_its_moment_says() {
    let world = world(CONFIRMED, "");
    let before = world.snapshot();
    let mut new = Talk::new(&world, ERAS[0], &json!({"elicitation": {}}));
    let mut old = Talk::new(&world, ERAS[1], &json!({"elicitation": {}}));
    let questions = [new.note("One").asked(), old.note("Two").asked()];
    world.home.put("policies/a.cedar", HELD.as_bytes());
    assert_ne!(world.admin().ok("policy.reload", json!({}))["state"], "refused");
    for (talk, question) in [(&mut new, &questions[0]), (&mut old, &questions[1])] {
        let told = talk.answer(question, &yes()).told();
        assert_eq!(told["error"]["code"], "stale_plan", "{told}");
    }
    assert_eq!(new.note("Three").told()["status"], "approval_required", "and nobody is asked any more");
    assert_eq!(world.snapshot(), before);
}

#[test]
fn r51_a_client_that_never_answers_costs_nothing_and_n_questions_are_open() {
    const OPEN: usize = 8;
    let world = world(CONFIRMED, "");
    let mut talk = Talk::new(&world, ERAS[1], &json!({"elicitation": {}}));
    let (mut asked, mut ids) = (Vec::new(), Vec::new());
    for number in 0..OPEN {
        ids.push(talk.send(json!({"name": "notes.add", "arguments": {"title": format!("n{number}"), "body": "b"}})));
        asked.push(talk.line());
    }
    assert!(asked.iter().all(|line| line["method"] == "elicitation/create"), "{asked:?}");
    assert_eq!(talk.note("one more").told()["status"], "approval_required", "told, as where nobody can be asked");
    // What is cancelled is not asked any more, and waits for people as if nobody had been asked.
    let cancel = json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": ids[0]}});
    talk.mcp.connection.send(format!("{cancel}\n").as_bytes());
    let withdrawn = talk.mcp.connection.line().expect("a line");
    assert_eq!(withdrawn["method"], "notifications/cancelled", "whoever was asked is told so: {withdrawn}");
    assert_eq!(withdrawn["params"]["requestId"], asked[0]["id"], "{withdrawn}");
    let late = json!({"jsonrpc": "2.0", "id": asked[0]["id"], "result": yes()});
    talk.mcp.connection.send(format!("{late}\n").as_bytes());
    let next = talk.note("in its place").asked();
    assert_eq!(talk.answer(&next, &yes()).told()["outcome"], "committed");
    assert!(!world.path("notes/n0.md").exists(), "its answer came too late");
    drop(talk);
    let waiting = world.admin().ok("approvals.list", json!({}));
    let mine: Vec<&str> =
        waiting["approvals"].as_array().expect("all").iter().filter_map(|a| a["id"].as_str()).collect();
    assert_eq!(mine.len(), OPEN + 1, "{waiting}");
    for approval in mine {
        approve(&mut world.admin(), approval);
    }
    assert!(world.path("notes/n0.md").exists() && world.path("notes/n7.md").exists());
    world.verified();
}
