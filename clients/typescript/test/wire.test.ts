/** What the client makes of sockets that end, stall, refuse and talk nonsense. Nothing of it needs a daemon. */
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { type Socket, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { test } from "node:test";
import { createInterface } from "node:readline";
import {
  Client,
  ConnectionLost,
  type JsonObject,
  type JsonValue,
  NoReply,
  ProtocolError,
  REPLY_MAX_BYTES,
  Refused,
  type Retry,
  pause,
} from "../src/index.js";
import { IN_FLIGHT_MAX, encode } from "../src/connection.js";

const USAGE = { fuel: 1, wall_ms: 0, memory_peak: 0, host_calls: 0, http_requests: 0, cost_usd: "0" };
const REPLY: JsonObject = { status: "ok", outcome: "none", call_id: "call_1", usage: USAGE, warnings: [] };

interface Asked {
  id: number;
  method: string;
  params: JsonObject;
}

/** Run something against a socket that answers each request so. */
async function against(
  answer: (asked: Asked, socket: Socket) => void,
  work: (path: string) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), "toolkeep-"));
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    createInterface({ input: socket }).on("line", (line) => answer(JSON.parse(line) as Asked, socket));
  });
  const path = join(directory, "peer.sock");
  await new Promise<void>((resolve) => server.listen(path, resolve));
  try {
    await work(path);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(directory, { recursive: true });
  }
}

const says = (socket: Socket, message: JsonObject): boolean => socket.write(`${JSON.stringify({ jsonrpc: "2.0", ...message })}\n`);

test("what is not the protocol ends the connection and says so", async () => {
  const lines = [
    "not json",
    "[]",
    '{"jsonrpc":"2.0","id":1,"result":7}',
    '{"jsonrpc":"1.0","id":1,"result":{}}',
    '{"jsonrpc":"2.0","id":99,"result":{}}',
    '{"jsonrpc":"2.0","id":"1","result":{}}',
    '{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":"m"}}',
    Buffer.from([0xff]),
  ];
  for (const line of lines) {
    await against(
      (_, socket) => void (socket.write(line), socket.write("\n")),
      async (path) => {
        const client = new Client({ socket: path });
        const connection = await client.connection();
        await assert.rejects(client.hostInfo(), ProtocolError, String(line));
        assert.equal(connection.isOpen, false);
        await client.close();
      },
    );
  }
});

test("a line has a bound that is tested at both sides", async () => {
  for (const [more, taken] of [[0, true], [1, false]] as const) {
    const head = '{"jsonrpc":"2.0","id":1,"result":{"text":"';
    const fill = "x".repeat(REPLY_MAX_BYTES + more - head.length - 3);
    await against(
      (_, socket) => void socket.write(`${head}${fill}"}}\n`),
      async (path) => {
        const client = new Client({ socket: path });
        if (taken) assert.ok((await client.hostInfo())["text"]);
        else await assert.rejects(client.hostInfo(), ProtocolError);
        await client.close();
      },
    );
  }
});

test("lines that come in pieces and together are told apart", async () => {
  await against(
    ({ id }, socket) => {
      if (id !== 3) return;
      const line = (id: number): string => `${JSON.stringify({ jsonrpc: "2.0", id, result: { id, ä: "ö" } })}\n`;
      const bytes = Buffer.from(line(3) + line(1) + line(2));
      bytes.forEach((_, at) => socket.write(bytes.subarray(at, at + 1)));
    },
    async (path) => {
      const client = new Client({ socket: path });
      const found = await Promise.all([client.hostInfo(), client.hostInfo(), client.hostInfo()]);
      assert.deepEqual(found, [1, 2, 3].map((id) => ({ id, ä: "ö" })));
      await client.close();
    },
  );
});

test("everything under way hears of the end and nothing is sent again", async () => {
  const heard: Asked[] = [];
  await against(
    (asked, socket) => void (heard.push(asked) === 3 && socket.destroy()),
    async (path) => {
      const client = new Client({ socket: path });
      const calls = [
        client.calls.execute("a", {}),
        client.calls.execute("b", {}, { idempotencyKey: "k" }),
        client.hostInfo(),
      ];
      const ends = (await Promise.allSettled(calls)).map((end) => (end as PromiseRejectedResult).reason as unknown);
      assert.deepEqual(
        ends.map((end) => end instanceof ConnectionLost && end.keyed),
        [false, true, false],
      );
      assert.equal(heard.length, 3);
      await client.close();
    },
  );
});

test("only what has a key and may be repeated is repeated", async () => {
  const quick: Retry = { attempts: 3, baseMs: 1, mostMs: 1_000 };
  const refusal = (code: string, more: JsonObject = {}): JsonObject => ({ code, message: "no", retryable: true, ...more });
  const failed = (code: string, more: JsonObject = {}, replayed = false): JsonObject => ({
    result: { reply: { ...REPLY, status: "failed", error: refusal(code, more) }, replayed },
  });
  const busy = failed("in_flight", { retry_after_ms: 1 });
  const rows: [string, JsonObject[], string | undefined, Retry | null, number][] = [
    ["a reply", [busy], "k", quick, 2],
    ["an error", [{ error: { code: 1, message: "no", data: refusal("overloaded") } }], "k", quick, 2],
    ["no key", [busy], undefined, quick, 1],
    ["never", [busy], "k", null, 1],
    ["not retryable", [failed("tool_failed", { retryable: false })], "k", quick, 1],
    ["stored under the key", [failed("internal", {}, true)], "k", quick, 1],
    ["somebody has to look", [failed("stale_plan")], "k", quick, 1],
    ["longer than it waits", [failed("rate_limited", { retry_after_ms: 60_000 })], "k", quick, 1],
    ["as often as it may", [busy, busy, busy], "k", quick, 3],
  ];
  for (const [what, answers, key, retry, expected] of rows) {
    let made = 0;
    await against(
      ({ id }, socket) => void says(socket, { id, ...(answers[made++] ?? { result: { reply: REPLY } }) }),
      async (path) => {
        const client = new Client({ socket: path, retry });
        const end = await client.calls.execute("a", {}, key ? { idempotencyKey: key } : {}).catch((e: unknown) => e);
        assert.equal(made, expected, what);
        assert.equal(end instanceof Refused, expected <= answers.length, what);
        await client.close();
      },
    );
  }
});

test("a pause is never shorter than what the daemon asks", () => {
  const raw: { [name: string]: JsonValue } = {};
  const told = { code: "rate_limited", message: "m", hint: "", retryable: true, retryAfterMs: 500, fields: [], detail: undefined, raw };
  const retry: Retry = { attempts: 4, baseMs: 100, mostMs: 2_000 };
  for (const attempt of [1, 2, 3]) {
    const wait = pause(retry, told, attempt) ?? Number.NaN;
    assert.ok(wait >= 500 && wait <= 500 + 100 * 2 ** (attempt - 1), String(wait));
  }
  assert.equal(pause(retry, told, 4), undefined);
});

test("a call that still waits for a place when its time is over is never sent", async () => {
  const tools: JsonValue[] = [];
  await against(
    (asked) => void tools.push(asked.params["tool"] ?? null),
    async (path) => {
      const client = new Client({ socket: path });
      const many = Array.from({ length: IN_FLIGHT_MAX }, () => client.calls.execute("slow", {}).catch(() => undefined));
      const late = client.calls.execute("late", {}, { timeoutMs: 50 });
      await assert.rejects(late, (error) => error instanceof NoReply && /nothing was sent/.test(error.message));
      const aborted = client.calls.execute("late", {}, { signal: AbortSignal.timeout(50) });
      await assert.rejects(aborted, { name: "TimeoutError" });
      await client.close();
      await Promise.all(many);
    },
  );
  assert.deepEqual(tools, Array(IN_FLIGHT_MAX).fill("slow"), "neither of the two, and nothing to end what was never sent");
});

test("what the daemon could not read is refused before it is sent, at both sides of the bound", () => {
  const nested = (levels: number): JsonValue => (levels === 0 ? 1 : [nested(levels - 1)]);
  assert.ok(encode({ deep: nested(63), most: Number.MAX_SAFE_INTEGER, fraction: 1e300 }).length > 64);
  for (const wrong of [nested(64), Number.MAX_SAFE_INTEGER + 1, 1e20, { "\ud800": 1 }]) {
    assert.throws(() => encode({ wrong }), TypeError);
  }
});

test("the end of a connection after an answer is no refusal of what is under way", async () => {
  const refusal = { code: -32700, message: "m", data: { code: "invalid_input", message: "not JSON", retryable: false } };
  await against(
    (asked, socket) => void says(socket, asked.id === 1 ? { id: 1, result: {} } : { id: null, error: refusal }),
    async (path) => {
      const client = new Client({ socket: path });
      await client.hostInfo();
      await assert.rejects(client.calls.execute("t", {}), ConnectionLost);
      await client.close();
    },
  );
});

test("a daemon that lets nobody in keeps nobody waiting, and a client that is closed meanwhile stays closed", async () => {
  const asked: string[] = [];
  await against(
    (one) => void asked.push(one.method),
    async (path) => {
      const client = new Client({ socket: path, token: "t" });
      const late = client.calls.execute("t", {}, { timeoutMs: 50 });
      await assert.rejects(late, (error) => error instanceof NoReply && /nothing was sent/.test(error.message));
      const aborted = client.calls.execute("t", {}, { signal: AbortSignal.timeout(50) });
      await assert.rejects(aborted, { name: "TimeoutError" });
      const waiting = client.hostInfo();
      const refused = assert.rejects(waiting, ConnectionLost);
      await client.close();
      await refused;
    },
  );
  assert.deepEqual(asked, ["session.authenticate"], "nothing was sent but the token");
});

test("a reply that cannot be read is no mistake of who asked, and an older one can be read", async () => {
  const { http_requests: _, cost_usd: __, ...old } = USAGE;
  for (const [usage, fits] of [[old, true], [{ fuel: "1" }, false]] as [JsonObject, boolean][]) {
    await against(
      (asked, socket) => void says(socket, { id: asked.id, result: { reply: { ...REPLY, usage } } }),
      async (path) => {
        const client = new Client({ socket: path });
        if (fits) {
          const reply = await client.calls.execute("t", {});
          assert.deepEqual([reply.usage.httpRequests, reply.usage.costUsd], [0, "0"]);
        } else {
          await assert.rejects(client.calls.execute("t", {}), ProtocolError);
        }
        await client.close();
      },
    );
  }
});

test("whoever loses the connection hears whether the request had a key", async () => {
  for (const [more, keyed] of [[{}, false], [{ idempotency_key: "k" }, true]] as [JsonObject, boolean][]) {
    await against(
      (_, socket) => void socket.destroy(),
      async (path) => {
        const client = new Client({ socket: path });
        const lost = client.request("transactions.commit", { transaction: "t", ...more });
        await assert.rejects(lost, (error) => error instanceof ConnectionLost && error.keyed === keyed);
        await client.close();
      },
    );
  }
});
