/** What the client does, against a real daemon: calls and plans, people, runs, transactions, undo, errors, ends. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import { after, describe, test } from "node:test";
import {
  CallDenied,
  CallFailed,
  Client,
  Code,
  ConnectionLost,
  DaemonUnreachable,
  type JsonObject,
  type Progress,
  REQUEST_MAX_BYTES,
  Refused,
  RequestTooLarge,
} from "../src/index.js";
import { HOME, SOCKET, admin, inFlight } from "./daemon.js";

const client = new Client({ socket: SOCKET });
after(() => client.close());
const note = (title: string): JsonObject => ({ title, body: "b" });
const RENAME: JsonObject = { from: "old_name", to: "new_name" };
const ENDLESS = "endless";

async function caught<E extends Error>(kind: abstract new (...args: never[]) => E, work: Promise<unknown>): Promise<E> {
  const end = await work.then(
    (value) => assert.fail(`it came to ${JSON.stringify(value)}`),
    (error: unknown) => error,
  );
  assert.ok(end instanceof kind, String(end));
  return end;
}

describe("plans", () => {
  test("a preview changes nothing and its plan is committed and undone", async () => {
    const file = `${HOME}/notes/node-plan.md`;
    const shown = await client.calls.preview("notes.add", note("Node plan"));
    assert.equal(shown.outcome, "previewed");
    assert.ok(shown.plan && !existsSync(file));
    assert.equal((await client.plans.get(shown.plan.id, { diffs: true }))["digest"], shown.plan.digest);
    const done = await client.plans.commit(shown.plan.digest);
    assert.deepEqual([done.outcome, done.output], ["committed", { file: "node-plan.md" }]);
    assert.ok(done.receipt && existsSync(file));
    assert.equal((await client.verifyReceipt(done.receipt))["valid"], true);
    const undo = await client.undo({ call: done.callId });
    assert.ok(undo.plan && existsSync(file), "a proposal changes nothing");
    await client.plans.commit(undo.plan.id);
    assert.ok(!existsSync(file));
    assert.equal((await client.calls.get(done.callId)).callId, done.callId);
  });

  test("a discarded plan cannot be committed", async () => {
    const { plan } = await client.calls.preview("notes.add", note("Node discarded"));
    assert.ok(plan);
    const paths: unknown[] = [];
    for await (const effect of client.plans.effects(plan.id)) paths.push(effect["path"]);
    assert.deepEqual(paths, ["node-discarded.md"]);
    assert.equal((await client.plans.discard(plan.id)).outcome, "discarded");
    assert.equal((await caught(Refused, client.plans.commit(plan.id))).code, Code.STALE_PLAN);
  });

  test("a held call waits for people and is committed by them", async () => {
    const held = await client.calls.execute("held-rename", RENAME);
    assert.deepEqual([held.status, held.error?.code], ["held", Code.APPROVAL_REQUIRED]);
    assert.ok(held.approval);
    assert.equal((await client.approvals.wait(held.approval.id, { timeoutMs: 50 })).status, "held");
    const waiting = caught(CallDenied, client.approvals.wait(held.approval.id));
    assert.equal((await client.approvals.get(held.approval.id))["state"], "pending");
    await admin("approvals.reject", { approval: held.approval.id, reason: "not today" });
    const denied = await waiting;
    assert.deepEqual([denied.code, denied.reply.callId], [Code.APPROVAL_REJECTED, held.callId]);
    assert.match(denied.message, /not today/);
    const again = await client.calls.execute("held-rename", RENAME);
    assert.ok(again.approval);
    const agreed = client.approvals.wait(again.approval.id);
    await admin("approvals.approve", { approval: again.approval.id, reason: "fine" });
    assert.equal((await agreed).outcome, "committed");
    const undo = await client.undo({ call: again.callId });
    assert.ok(undo.plan);
    await client.plans.commit(undo.plan.id);
  });
});

describe("errors", () => {
  test("wrong input names the places", async () => {
    const failed = await caught(CallFailed, client.calls.execute("notes.add", { title: 7 }));
    assert.deepEqual([failed.code, failed.reply.outcome, failed.retryable], [Code.INVALID_INPUT, "none", false]);
    assert.deepEqual(failed.fields.map((place) => place.pointer).sort(), ["/input/body", "/input/title"]);
    assert.ok(failed.hint);
    const reply = await client.calls.execute("notes.add", { title: 7 }, { check: false });
    assert.equal(reply.error?.code, Code.INVALID_INPUT);
  });

  test("what does not exist and what is no method is refused", async () => {
    const missing = await caught(Refused, client.plans.get("plan_00000000-0000-7000-8000-000000000000"));
    assert.deepEqual([missing.code, missing.number], [Code.NOT_FOUND, 1003]);
    const unknown = await caught(Refused, client.request("approvals.approve", { approval: "x" }));
    assert.equal(unknown.number, -32601, "an agent cannot administer");
    assert.equal((await caught(CallFailed, client.calls.execute("trap", {}))).code, Code.TOOL_TRAPPED);
    assert.equal((await caught(CallFailed, client.calls.execute("spin", {}))).code, Code.OUT_OF_FUEL);
  });

  test("what cannot be sent is refused here and harms nobody", async () => {
    const running = client.calls.execute("text-stats", { text: "a b" });
    await caught(RequestTooLarge, client.calls.execute("text-stats", { text: "x".repeat(REQUEST_MAX_BYTES) }));
    for (const wrong of [Number.NaN, Number.POSITIVE_INFINITY, "\ud800"]) {
      await caught(TypeError, client.calls.execute("text-stats", { text: wrong }));
    }
    assert.equal((await running).status, "ok");
  });

  test("a wrong token is nobody, and without a daemon the error says so", async () => {
    const nobody = new Client({ socket: SOCKET, token: "tkp_nonsense" });
    assert.equal((await caught(Refused, nobody.hostInfo())).code, Code.UNAUTHORIZED);
    await nobody.close();
    const nowhere = await caught(DaemonUnreachable, new Client({ socket: `${HOME}/nowhere.sock` }).hostInfo());
    assert.match(nowhere.message, /toolkeep serve/);
  });

  test("every code of the documentation has a name", () => {
    const page = readFileSync(`${process.env["TOOLKEEP_TEST_DOCS"]}/errors.md`, "utf8");
    const documented = [...page.matchAll(/^## `(.*)`$/gm)].map((match) => String(match[1]));
    assert.deepEqual(Object.values<string>(Code).sort(), documented.sort());
  });
});

describe("keys and ends", () => {
  test("a key is done once and the second answer says so", async () => {
    const options = { idempotencyKey: "node-key" };
    const first = await client.calls.execute("notes.add", note("Node key"), options);
    const again = await client.calls.execute("notes.add", note("Node key"), options);
    assert.deepEqual([first.replayed, again.replayed, again.raw], [false, true, first.raw]);
    const other = await caught(CallFailed, client.calls.execute("notes.add", note("Node other"), options));
    assert.equal(other.code, Code.IDEMPOTENCY_MISMATCH);
  });

  test("several calls are under way at once and their answers overtake", async () => {
    const running = client.calls.start(ENDLESS, {});
    const counts = Array.from({ length: 100 }, (_, index) => index + 1);
    const replies = await Promise.all(
      counts.map((count) => client.calls.execute("text-stats", { text: "word ".repeat(count) })),
    );
    assert.deepEqual(
      replies.map((reply) => (reply.output as JsonObject)["words"]),
      counts,
    );
    running.cancel();
    assert.equal((await caught(Error, running.reply())).name, "AbortError");
    await inFlight(0);
  });

  test("an aborted call is cancelled and the connection goes on", async () => {
    const abort = new AbortController();
    const call = caught(Error, client.calls.execute(ENDLESS, {}, { signal: abort.signal }));
    await inFlight(1);
    const connection = await client.connection();
    abort.abort(new Error("the user has left"));
    assert.equal((await call).message, "the user has left");
    await inFlight(0);
    assert.equal(await client.connection(), connection);
  });

  test("a call that takes too long is ended and says how it ended", async () => {
    const late = await caught(CallFailed, client.calls.execute(ENDLESS, {}, { timeoutMs: 300 }));
    assert.deepEqual([late.code, late.reply.outcome], [Code.DEADLINE_EXCEEDED, "none"]);
    const short = await caught(CallFailed, client.calls.execute(ENDLESS, {}, { deadlineMs: 50 }));
    assert.equal(short.code, Code.DEADLINE_EXCEEDED);
  });

  test("a closed client leaves no call behind, and a lost connection is made again", async () => {
    const other = new Client({ socket: SOCKET });
    const call = caught(ConnectionLost, other.calls.execute(ENDLESS, {}));
    await inFlight(1);
    await other.close();
    assert.equal((await call).keyed, false);
    await caught(ConnectionLost, other.hostInfo());
    await inFlight(0);
    const first = await client.connection();
    await first.close();
    assert.equal((await client.hostInfo())["name"], "toolkeep");
    assert.notEqual(await client.connection(), first);
  });

  test("progress is heard while a call runs", async () => {
    const report = { input: "ledger", output: "node.md" };
    const heard: Progress[] = [];
    const done = await client.calls.execute("csv-report", report, { onProgress: (note) => heard.push(note) });
    assert.equal(done.outcome, "committed");
    assert.deepEqual(heard[0], { done: 0, total: 2, message: "ledger/2026-01.csv" });
    const notes: Progress[] = [];
    const running = client.calls.start("csv-report", report);
    for await (const note of running.progress()) notes.push(note);
    assert.deepEqual([notes, (await running.reply()).status], [heard, "ok"]);
  });
});

describe("work", () => {
  test("a run counts its calls and is closed", async () => {
    const run = await client.runs.open({ label: "node", budget: { calls: 2 } });
    await run.execute("text-stats", { text: "a" });
    await run.report({ tokens_in: 5, tokens_out: 7 });
    const first = await run.execute("notes.add", note("Node step"), { step: "one", autoKey: true });
    const again = await run.execute("notes.add", note("Node step"), { step: "one", autoKey: true });
    assert.deepEqual([again.replayed, again.callId], [true, first.callId]);
    const spent = await caught(CallDenied, run.execute("text-stats", { text: "b" }));
    assert.equal(spent.code, Code.BUDGET_EXCEEDED);
    await run.close({ outcome: "done" });
    assert.ok((await client.runs.get(run.id))["closed_at_ms"]);
  });

  test("a transaction is committed as one or rolled back", async () => {
    const work = await client.transactions.begin();
    const staged = await work.execute("notes.add", note("Node one"));
    assert.deepEqual([staged.outcome, staged.transaction?.calls], ["staged", 1]);
    await work.execute("notes.add", note("Node two"));
    const shown = await work.preview();
    assert.equal(shown.plan?.effects.length, 2);
    assert.equal((await work.commit({ expectPlan: String(shown.plan?.digest) })).outcome, "committed");
    assert.ok(existsSync(`${HOME}/notes/node-two.md`));
    const left = await client.transactions.begin();
    await left.execute("notes.add", note("Node three"));
    await left[Symbol.asyncDispose]();
    const states = new Map<unknown, unknown>();
    for await (const entry of client.transactions.list()) states.set(entry["transaction"], entry["state"]);
    assert.deepEqual([states.get(work.id), states.get(left.id)], ["committed", "discarded"]);
  });

  test("tools are listed and described, and a session holds less", async () => {
    const names = (await client.tools.list()).map((tool) => tool.name);
    assert.deepEqual(names, [...names].sort());
    const told = await client.tools.describe("notes.add");
    assert.deepEqual([told.tier, told.inputSchema["required"]], [1, ["title", "body"]]);
    const made = await client.sessions.delegate({ tools: ["text-stats"], max_tier: 0, label: "node" });
    let asked = 0;
    const narrow = new Client({ socket: SOCKET, token: () => (asked++, String(made["token"])) });
    assert.deepEqual((await narrow.tools.list()).map((tool) => tool.name), ["text-stats"]);
    await (await narrow.connection()).close();
    assert.equal((await narrow.session())["session"], made["session"]);
    assert.equal(asked, 2);
    await client.sessions.revoke(String(made["session"]));
    assert.equal((await caught(Refused, narrow.tools.list())).code, Code.UNAUTHORIZED);
    await narrow.close();
  });
});
