/** The client: connections as they are needed, and the methods of the agent socket by their nouns. */
import { setTimeout as sleep } from "node:timers/promises";
import { Connection, type OnProgress } from "./connection.js";
import { ConnectionLost, DaemonUnreachable, NoReply, ProtocolError, Refused, errorOf } from "./errors.js";
import {
  type JsonObject,
  type JsonValue,
  Malformed,
  type Progress,
  type Reply,
  type Tool,
  maybe,
  number,
  objects,
  readReply,
  readTool,
  text,
} from "./model.js";
import { RETRY, type Retry, pause } from "./retry.js";
import { Run, Transaction } from "./work.js";

/** How long a call that was told to end may take to say how it ended, in milliseconds. */
const GRACE_MS = 5_000;
/** How long a daemon may take to let a client in, in milliseconds: the system connects for one that is stopped, too. */
const CONNECT_MS = 10_000;
/** One question to `approvals.wait`, in milliseconds: a wait that was given up holds its place at the daemon no longer. */
const WAIT_MS = 30_000;
/** Notes of one call that may wait to be read; the oldest are dropped, because they are only news. */
const NOTES_MAX = 64;

export interface ClientOptions {
  /** Path of `agent.sock`; without it `$TOOLKEEP_AGENT_SOCKET`. */
  socket?: string;
  /**
   * What each connection shows first, or a function that is asked for it each time, for tokens that are renewed; without it
   * `$TOOLKEEP_TOKEN`, and without that the uid of this process counts.
   */
  token?: string | (() => string | Promise<string>);
  /** When calls with an idempotency key are made again; `null` for never. */
  retry?: Retry | null;
  /** How long calls may take unless they say otherwise, in milliseconds; as long as the daemon takes if left out. */
  timeoutMs?: number;
}

export interface CallOptions {
  run?: string;
  step?: string;
  /** The call is done once, however often it is asked for; only such calls are made again by themselves. */
  idempotencyKey?: string;
  /** The daemon makes the key of `run`, `step` and input. */
  autoKey?: boolean;
  /** How long the tool may execute; the manifest's limit if that is shorter. */
  deadlineMs?: number;
  /**
   * How long this client waits in all. Then the call is told to end and waited for a moment longer, because only its reply says
   * whether something was committed; `NoReply` if that does not come either.
   */
  timeoutMs?: number;
  /** Commit only if the plan has this digest. */
  expectPlan?: string;
  transaction?: string;
  usage?: JsonObject;
  meta?: JsonObject;
  onProgress?: OnProgress;
  /** Aborting tells the daemon to cancel the call, and rejects with the signal's reason without waiting for that. */
  signal?: AbortSignal;
  /** Whether a reply that is `denied`, `failed` or `unknown` is thrown: true unless it says otherwise. `held` never is. */
  check?: boolean;
}

export type StartOptions = Omit<CallOptions, "onProgress" | "signal">;

/**
 * A client of one daemon. It connects when something is asked, and again when something is asked after the connection was lost.
 * What was under way then ends as `ConnectionLost`; nothing is sent a second time by itself.
 */
export class Client {
  readonly calls = new Calls(this);
  readonly tools = new Tools(this);
  readonly plans = new Plans(this);
  readonly approvals = new Approvals(this);
  readonly runs = new Runs(this);
  readonly transactions = new Transactions(this);
  readonly sessions = new Sessions(this);
  readonly retry: Retry | null;
  readonly timeoutMs: number | undefined;
  readonly #path: string;
  readonly #token: ClientOptions["token"];
  #connection: Promise<Connection> | undefined;
  /** One that is being made. */
  #making: Connection | undefined;
  #closed = false;

  constructor(options: ClientOptions = {}) {
    const path = options.socket ?? process.env["TOOLKEEP_AGENT_SOCKET"];
    if (!path) throw new TypeError("name the socket of the daemon, or set TOOLKEEP_AGENT_SOCKET");
    this.#path = path;
    this.#token = options.token ?? process.env["TOOLKEEP_TOKEN"];
    this.retry = options.retry === undefined ? RETRY : options.retry;
    this.timeoutMs = options.timeoutMs;
  }

  /** Close for good. Executions that are under way are cancelled, commits are not. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#making?.close();
    const connection = await this.#connection?.catch(() => undefined);
    await connection?.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** The connection, made if there is none. */
  async connection(): Promise<Connection> {
    if (this.#closed) throw new ConnectionLost("the client was closed");
    const known = this.#connection;
    const standing = await known?.catch(() => undefined);
    if (standing?.isOpen) return standing;
    // Whoever comes first makes the next one; the others wait for it.
    if (this.#connection === known) this.#connection = this.#connect();
    return this.#connection as Promise<Connection>;
  }

  async #connect(): Promise<Connection> {
    const connection = await Connection.open(this.#path);
    this.#making = connection;
    const late = `the daemon at \`${this.#path}\` did not answer within ${CONNECT_MS / 1000} s`;
    const timer = setTimeout(() => connection.giveUpAll(new DaemonUnreachable(late)), CONNECT_MS);
    try {
      const token = typeof this.#token === "function" ? await this.#token() : this.#token;
      if (this.#closed) throw new ConnectionLost("the client was closed");
      if (token !== undefined) await connection.request("session.authenticate", { token }, { ahead: true });
      if (this.#closed) throw new ConnectionLost("the client was closed");
      return connection;
    } catch (error) {
      await connection.close();
      throw error;
    } finally {
      clearTimeout(timer);
      if (this.#making === connection) this.#making = undefined;
    }
  }

  /** Any method of the agent socket, as `docs/protocol.md` lists them: its result. */
  async request(method: string, params: { [name: string]: JsonValue | undefined } = {}): Promise<JsonObject> {
    const asked = given(params);
    return (await this.connection()).request(method, asked).catch((error: unknown) => {
      const keyed = asked["idempotency_key"] !== undefined;
      throw error instanceof ConnectionLost ? new ConnectionLost(error.message, keyed) : error;
    });
  }

  /** A method that answers with a call. */
  async reply(method: string, params: { [name: string]: JsonValue | undefined }, check = true): Promise<Reply> {
    return checked(replyOf(await this.request(method, params)), check);
  }

  /** Version, protocol and environment of the daemon. */
  hostInfo(): Promise<JsonObject> {
    return this.request("host.info");
  }

  /** Who this client is to the daemon, and what it may do. */
  session(): Promise<JsonObject> {
    return this.request("session.get");
  }

  /** Propose a plan that takes back a call, or all calls of a run; commit it with `plans.commit`. */
  undo(of: { call: string } | { run: string }): Promise<Reply> {
    return this.reply("undo.propose", of);
  }

  /** Whether the daemon has signed this receipt; `Refused` if not. */
  verifyReceipt(receipt: JsonObject): Promise<JsonObject> {
    return this.request("receipts.verify", { receipt });
  }
}

/** The call was made, so what cannot be read of its reply is no mistake of who asked. */
function replyOf(raw: JsonObject): Reply {
  try {
    return readReply(raw);
  } catch (error) {
    if (!(error instanceof Malformed)) throw error;
    throw new ProtocolError(`the reply of a call cannot be read: ${error.message}`, { cause: error });
  }
}

/** Parameters without those that were left out. */
function given(params: { [name: string]: JsonValue | undefined }): JsonObject {
  return Object.fromEntries(Object.entries(params).filter(([, value]) => value !== undefined)) as JsonObject;
}

function checked(reply: Reply, check: boolean): Reply {
  const error = check ? errorOf(reply) : undefined;
  if (error) throw error;
  return reply;
}

/** A call under way: its news, its end. `await using` cancels what is left early. */
export class Running {
  readonly #abort = new AbortController();
  readonly #notes: Progress[] = [];
  readonly #reply: Promise<Reply>;
  #over = false;
  #wake: () => void = () => {};

  /** @internal */
  constructor(make: (onProgress: OnProgress, signal: AbortSignal) => Promise<Reply>) {
    const noted: OnProgress = (note) => {
      if (this.#notes.length >= NOTES_MAX) this.#notes.shift();
      this.#notes.push(note);
      this.#wake();
    };
    this.#reply = make(noted, this.#abort.signal).finally(() => {
      this.#over = true;
      this.#wake();
    });
    // Whoever only wants the news need not take the end.
    this.#reply.catch(() => {});
  }

  /** The news, until the call is over. What is not read in time is dropped, the oldest first. */
  async *progress(): AsyncGenerator<Progress, void, undefined> {
    for (;;) {
      const note = this.#notes.shift();
      if (note !== undefined) yield note;
      else if (this.#over) return;
      else await new Promise<void>((resolve) => (this.#wake = resolve));
    }
  }

  /** How it ended. */
  reply(): Promise<Reply> {
    return this.#reply;
  }

  /** Tell the daemon to end it. A commit that has begun goes on; `reply` rejects with an `AbortError`. */
  cancel(): void {
    this.#abort.abort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.cancel();
    await this.#reply.catch(() => {});
  }
}

/** Calling tools. */
export class Calls {
  constructor(private readonly client: Client) {}

  /** Call a tool and commit what it plans, if policy lets it. */
  execute(tool: string, input: JsonObject, options: CallOptions = {}): Promise<Reply> {
    return this.#call("calls.execute", tool, input, options);
  }

  /** Run a tool, show its plan and change nothing. */
  preview(tool: string, input: JsonObject, options: CallOptions = {}): Promise<Reply> {
    return this.#call("calls.preview", tool, input, options);
  }

  /** Begin a call, to hear of its progress while it runs. */
  start(tool: string, input: JsonObject, options: StartOptions = {}): Running {
    return new Running((onProgress, signal) => this.execute(tool, input, { ...options, onProgress, signal }));
  }

  /** The reply of a call as it stands; `Refused` with `in_flight` while it executes. */
  get(call: string): Promise<Reply> {
    return this.client.reply("calls.get", { call }, false);
  }

  /** Tell a running call to end. A commit that has begun goes on. */
  async cancel(call: string): Promise<void> {
    // Ahead of calls that wait for a place: it is what makes one free.
    await (await this.client.connection()).request("calls.cancel", { call }, { ahead: true });
  }

  /** An output that was too long for its reply, as JSON text. Throws `RangeError` if it has more bytes than `mostBytes`. */
  async output(call: string, mostBytes = 64 * 1024 * 1024): Promise<string> {
    const parts: string[] = [];
    for (let offset: number | undefined = 0; offset !== undefined; ) {
      const part: JsonObject = await this.client.request("calls.output", { call, offset });
      const bytes = number(part, "bytes");
      if (bytes > mostBytes) throw new RangeError(`the output has ${bytes} bytes, more than ${mostBytes}`);
      parts.push(text(part, "text"));
      offset = maybe(number, part, "next_offset");
    }
    return parts.join("");
  }

  async #call(method: string, tool: string, input: JsonObject, options: CallOptions): Promise<Reply> {
    const meta = options.onProgress ? { ...options.meta, progress: true } : options.meta;
    const params = given({
      tool,
      input,
      run: options.run,
      step: options.step,
      idempotency_key: options.idempotencyKey,
      auto_key: options.autoKey ? true : undefined,
      deadline_ms: options.deadlineMs,
      expect_plan: options.expectPlan,
      transaction: options.transaction,
      usage: options.usage,
      _meta: meta,
    });
    const limit = options.timeoutMs ?? this.client.timeoutMs;
    const ends = limit === undefined ? undefined : performance.now() + limit;
    const keyed = options.idempotencyKey !== undefined || options.autoKey === true;
    for (let attempt = 1; ; attempt++) {
      options.signal?.throwIfAborted();
      let [reply, error]: [Reply | undefined, Refused | undefined] = [undefined, undefined];
      try {
        reply = replyOf(await this.#once(method, params, { ends, keyed, options }));
        error = errorOf(reply);
      } catch (thrown) {
        if (!(thrown instanceof Refused)) throw thrown;
        error = thrown;
      }
      if (reply && !error) return reply;
      const again = this.client.retry && keyed && error && !reply?.replayed;
      const wait = again && error && this.client.retry ? pause(this.client.retry, error.refusal, attempt) : undefined;
      if (wait === undefined || (ends !== undefined && performance.now() + wait >= ends)) {
        if (reply && options.check === false) return reply;
        throw error;
      }
      await sleep(wait, undefined, options.signal ? { signal: options.signal } : {}).catch((aborted: unknown) => {
        throw options.signal?.aborted ? options.signal.reason : aborted;
      });
    }
  }

  async #once(
    method: string,
    params: JsonObject,
    { ends, keyed, options }: { ends: number | undefined; keyed: boolean; options: CallOptions },
  ): Promise<JsonObject> {
    const connection = await connected(this.client, ends, options.signal);
    const id = connection.nextId();
    const progress = options.onProgress ? { onProgress: options.onProgress } : {};
    const work = connection.request(method, params, { id, ...progress }).catch((error: unknown) => {
      throw error instanceof ConnectionLost ? new ConnectionLost(error.message, keyed) : error;
    });
    // Whoever stops waiting leaves it behind.
    work.catch(() => {});
    const stop = new AbortController();
    const late = async (): Promise<never> => {
      await sleep(Math.max(0, (ends ?? 0) - performance.now()), undefined, { signal: stop.signal });
      // Only the reply says whether something was committed before the call could be ended.
      tellToEnd(connection, id);
      await sleep(GRACE_MS, undefined, { signal: stop.signal });
      throw new NoReply("the call did not end in time; with an idempotency key the same call tells what became of it");
    };
    const aborted = new Promise<never>((_, reject) => {
      const signal = options.signal;
      const abort = (): void => {
        tellToEnd(connection, id);
        reject(signal?.reason as Error);
      };
      if (signal?.aborted) abort();
      signal?.addEventListener("abort", abort, { once: true, signal: stop.signal });
    });
    try {
      return await Promise.race(ends === undefined ? [work, aborted] : [work, aborted, quiet(late())]);
    } finally {
      stop.abort();
    }
  }
}

/** The connection, within the time of a call and as long as nobody aborts it. */
async function connected(client: Client, ends: number | undefined, signal: AbortSignal | undefined): Promise<Connection> {
  const made = quiet(client.connection());
  if (ends === undefined && signal === undefined) return made;
  const stop = new AbortController();
  const races: Promise<Connection>[] = [made];
  if (ends !== undefined) {
    const late = async (): Promise<never> => {
      await sleep(Math.max(0, ends - performance.now()), undefined, { signal: stop.signal });
      throw new NoReply("no connection was made in time: nothing was sent");
    };
    races.push(quiet(late()));
  }
  if (signal !== undefined) {
    const aborted = new Promise<never>((_, reject) => {
      signal.addEventListener("abort", () => reject(signal.reason as Error), { once: true, signal: stop.signal });
    });
    races.push(aborted);
  }
  try {
    const connection = await Promise.race(races);
    signal?.throwIfAborted();
    return connection;
  } finally {
    stop.abort();
  }
}

/** A promise that loses a race must not be told as one that nobody caught. */
function quiet<T>(promise: Promise<T>): Promise<T> {
  promise.catch(() => {});
  return promise;
}

/** Cancel a request of this connection, without anybody waiting for it. It may be over already, and so may the connection. */
function tellToEnd(connection: Connection, request: number): void {
  if (connection.giveUp(request)) return;
  connection.request("calls.cancel", { request }, { ahead: true }).catch(() => {});
}

/** What can be called. */
class Tools {
  constructor(private readonly client: Client) {}

  /** The tools that the caller may call, in the order of their names. */
  async list(): Promise<Tool[]> {
    return objects((await this.client.request("tools.list"))["tools"], "`tools`").map(readTool);
  }

  /** One tool; `raw` has its grants and limits. */
  async describe(tool: string): Promise<Tool> {
    return readTool(await this.client.request("tools.describe", { tool }));
  }
}

/** What calls want to change. */
class Plans {
  constructor(private readonly client: Client) {}

  /** A plan by id or digest: 100 effects from `cursor` on, with text contents by digest if `diffs`. */
  get(plan: string, { cursor = 0, diffs = false }: { cursor?: number; diffs?: boolean } = {}): Promise<JsonObject> {
    return this.client.request("plans.get", { plan, cursor, diffs });
  }

  /** Every effect of a plan. */
  async *effects(plan: string): AsyncGenerator<JsonObject, void, undefined> {
    for (let cursor: number | undefined = 0; cursor !== undefined; ) {
      const page: JsonObject = await this.get(plan, { cursor });
      yield* objects(page["effects"], "`effects`");
      cursor = maybe(number, page, "next_cursor");
    }
  }

  /** Commit a previewed plan, by id or digest, exactly as it was shown. A commit is never cancelled. */
  commit(plan: string, { check = true }: { check?: boolean } = {}): Promise<Reply> {
    return this.client.reply("plans.commit", { plan }, check);
  }

  /** Throw a plan away, by its id. */
  discard(plan: string, { check = true }: { check?: boolean } = {}): Promise<Reply> {
    return this.client.reply("plans.discard", { plan }, check);
  }
}

/** What waits for people. An agent can look and wait; it cannot answer. */
class Approvals {
  constructor(private readonly client: Client) {}

  /** The state of an approval. */
  get(approval: string): Promise<JsonObject> {
    return this.client.request("approvals.get", { approval });
  }

  /** Wait until people have decided: the final reply, or the held one when the time is over. */
  async wait(approval: string, { timeoutMs, check = true }: { timeoutMs?: number; check?: boolean } = {}): Promise<Reply> {
    const ends = timeoutMs === undefined ? undefined : performance.now() + timeoutMs;
    for (;;) {
      const left = ends === undefined ? WAIT_MS : Math.min(WAIT_MS, Math.max(0, ends - performance.now()));
      const reply = await this.client.reply("approvals.wait", { approval, timeout_ms: Math.floor(left) }, check);
      if (reply.status !== "held" || (ends !== undefined && performance.now() >= ends)) return reply;
    }
  }
}

export interface RunOptions {
  label?: string;
  contract?: string;
  workflow?: string;
  budget?: JsonObject;
  tools?: string[];
  max_tier?: number;
  loops?: JsonObject;
  over_budget?: string;
}

/** Calls that belong together, with a budget and terms of their own. */
class Runs {
  constructor(private readonly client: Client) {}

  /** Open a run. What is asked for only narrows the contract. */
  async open(options: RunOptions = {}): Promise<Run> {
    const opened = await this.client.request("runs.open", { ...options });
    return new Run(this.client, text(opened, "run"), opened);
  }

  /** A run, its terms and budget, and a page of its calls. */
  get(run: string, { cursor }: { cursor?: number } = {}): Promise<JsonObject> {
    return this.client.request("runs.get", { run, cursor });
  }

  /** Add what the caller's model used: `tokens_in`, `tokens_out`, `cost_usd`, `steps`, `model`. */
  report(run: string, usage: JsonObject): Promise<JsonObject> {
    return this.client.request("runs.report", { run, usage });
  }

  /** Close a run; `Refused` with `gate_unmet` while required steps are missing, unless it is given up. */
  close(run: string, { outcome, abandon }: { outcome?: string; abandon?: boolean } = {}): Promise<JsonObject> {
    return this.client.request("runs.close", { run, outcome, abandon: abandon ? true : undefined });
  }
}

/** Several calls as one: one stage, one plan, one decision, one commit. */
class Transactions {
  constructor(private readonly client: Client) {}

  /** Begin. `await using` rolls back what was not committed. */
  async begin({ run, ttlMs, tools }: { run?: string; ttlMs?: number; tools?: string[] } = {}): Promise<Transaction> {
    const begun = await this.client.request("transactions.begin", { run, ttl_ms: ttlMs, tools });
    return new Transaction(this.client, text(begun, "transaction"), begun);
  }

  /** State, calls and the first effects. */
  get(transaction: string): Promise<JsonObject> {
    return this.client.request("transactions.get", { transaction });
  }

  /** The caller's transactions, newest first. */
  list(): AsyncGenerator<JsonObject, void, undefined> {
    return pages(this.client, "transactions.list", "transactions");
  }
}

/** Parts of what the caller holds, handed to other agents. */
class Sessions {
  constructor(private readonly client: Client) {}

  /** Make a session; `token` is in no other answer. The members are those of `sessions.delegate`. */
  delegate(wanted: JsonObject): Promise<JsonObject> {
    return this.client.request("sessions.delegate", wanted);
  }

  /** Sessions that the caller, or one below it, has opened and that stand. */
  list(): AsyncGenerator<JsonObject, void, undefined> {
    return pages(this.client, "sessions.list", "sessions");
  }

  /** End a session, and everything that was delegated from it. */
  async revoke(session: string): Promise<void> {
    await this.client.request("sessions.revoke", { session });
  }
}

/** Every entry of a list that comes in pages. */
async function* pages(client: Client, method: string, member: string): AsyncGenerator<JsonObject, void, undefined> {
  let cursor: number | undefined;
  do {
    const page: JsonObject = await client.request(method, { cursor });
    yield* objects(page[member], `\`${member}\``);
    cursor = maybe(number, page, "next_cursor");
  } while (cursor !== undefined);
}
