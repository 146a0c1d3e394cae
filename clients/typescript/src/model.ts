/**
 * What the daemon says, as values. Each has the members that every version of the protocol has; `raw` holds the whole object as
 * it came, so that a member which a later daemon adds can be read without a new client.
 */

export type JsonValue = null | boolean | number | string | JsonValue[] | JsonObject;
export interface JsonObject {
  [name: string]: JsonValue;
}

/** A member is missing or of another type than the protocol says. */
export class Malformed extends Error {}

export interface FieldProblem {
  /** JSON Pointer (RFC 6901) into the parameters. */
  readonly pointer: string;
  readonly problem: string;
  readonly expected: string;
}

/** Why something was not done: a stable word, and what to do about it. */
export interface Refusal {
  /** A word of `docs/errors.md`; the known ones are in `Code`. */
  readonly code: string;
  readonly message: string;
  readonly hint: string;
  /** Whether the same request may succeed later. */
  readonly retryable: boolean;
  readonly retryAfterMs: number | undefined;
  readonly fields: readonly FieldProblem[];
  readonly detail: JsonValue | undefined;
  readonly raw: JsonObject;
}

/** What a call wants to change, or changed: the first effects; `plans.get` has all of them. */
export interface PlanSummary {
  readonly id: string;
  readonly digest: string;
  readonly effects: readonly JsonObject[];
  readonly totals: JsonObject;
  readonly expiresAtMs: number | undefined;
  readonly raw: JsonObject;
}

/** People whom a call waits for. */
export interface Approval {
  readonly id: string;
  readonly expiresAtMs: number | undefined;
  readonly raw: JsonObject;
}

/** What the open transaction of a call holds by now. */
export interface StagedTransaction {
  readonly id: string;
  readonly calls: number;
  readonly totals: JsonObject;
  readonly raw: JsonObject;
}

/** What a call used. */
export interface Usage {
  readonly fuel: number;
  readonly wallMs: number;
  readonly memoryPeak: number;
  readonly hostCalls: number;
  readonly httpRequests: number;
  /** A decimal text: money is not a binary fraction. */
  readonly costUsd: string;
}

export type Status = "ok" | "held" | "denied" | "failed" | "unknown";

/** The envelope that every call has, whatever became of it. */
export interface Reply {
  readonly status: Status;
  /** What became of the effects: `none`, `previewed`, `committed`, `staged`, `pending`, `discarded`, … */
  readonly outcome: string;
  readonly callId: string;
  readonly output: JsonValue | undefined;
  readonly error: Refusal | undefined;
  readonly plan: PlanSummary | undefined;
  readonly approval: Approval | undefined;
  readonly receipt: JsonObject | undefined;
  readonly transaction: StagedTransaction | undefined;
  readonly usage: Usage;
  readonly warnings: readonly string[];
  /** What the output is and what was found in it, for example `untrusted`. */
  readonly labels: readonly string[];
  readonly traceId: string | undefined;
  /** Whether this is the stored answer of an earlier call with the same key. */
  readonly replayed: boolean;
  readonly budgetRemaining: JsonObject | undefined;
  readonly raw: JsonObject;
}

/** A tool that the caller may call. */
export interface Tool {
  readonly name: string;
  readonly title: string | undefined;
  readonly description: string;
  /** 0 only reads; from 1 on the higher, the more it takes to commit. */
  readonly tier: number;
  readonly inputSchema: JsonObject;
  readonly outputSchema: JsonObject;
  readonly raw: JsonObject;
}

/** How far a call has come. The message is text of the tool. */
export interface Progress {
  readonly done: number;
  readonly total: number | undefined;
  readonly message: string;
}

export function object(value: unknown, what: string): JsonObject {
  if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as JsonObject;
  throw new Malformed(`${what} is not an object`);
}

export function objects(value: JsonValue | undefined, what: string): JsonObject[] {
  if (!Array.isArray(value)) throw new Malformed(`${what} is not a list`);
  return value.map((entry) => object(entry, what));
}

export function text(of: JsonObject, name: string): string {
  const value = of[name];
  if (typeof value === "string") return value;
  throw new Malformed(`\`${name}\` is not a text`);
}

export function number(of: JsonObject, name: string): number {
  const value = of[name];
  if (typeof value === "number") return value;
  throw new Malformed(`\`${name}\` is not a number`);
}

/** A member that may be missing or `null`. */
export function maybe<T>(read: (of: JsonObject, name: string) => T, of: JsonObject, name: string): T | undefined {
  return of[name] === undefined || of[name] === null ? undefined : read(of, name);
}

const inner = (of: JsonObject, name: string): JsonObject => object(of[name], `\`${name}\``);

function texts(of: JsonObject, name: string): string[] {
  const value = of[name] ?? [];
  if (Array.isArray(value) && value.every((entry) => typeof entry === "string")) return value as string[];
  throw new Malformed(`\`${name}\` is not a list of texts`);
}

export function readRefusal(raw: JsonObject): Refusal {
  return {
    code: text(raw, "code"),
    message: text(raw, "message"),
    hint: maybe(text, raw, "hint") ?? "",
    retryable: raw["retryable"] === true,
    retryAfterMs: maybe(number, raw, "retry_after_ms"),
    fields: objects(raw["fields"] ?? [], "`fields`").map((place) => ({
      pointer: text(place, "pointer"),
      problem: text(place, "problem"),
      expected: text(place, "expected"),
    })),
    detail: raw["detail"],
    raw,
  };
}

function readPlan(raw: JsonObject): PlanSummary {
  return {
    id: text(raw, "id"),
    digest: text(raw, "digest"),
    effects: objects(raw["effects"] ?? [], "`effects`"),
    totals: maybe(inner, raw, "totals") ?? {},
    expiresAtMs: maybe(number, raw, "expires_at_ms"),
    raw,
  };
}

function readUsage(raw: JsonObject): Usage {
  return {
    fuel: number(raw, "fuel"),
    wallMs: number(raw, "wall_ms"),
    memoryPeak: number(raw, "memory_peak"),
    hostCalls: number(raw, "host_calls"),
    // Calls that were recorded before these were counted do not have them.
    httpRequests: maybe(number, raw, "http_requests") ?? 0,
    costUsd: maybe(text, raw, "cost_usd") ?? "0",
  };
}

/** From the result of a method that answers with a call. */
export function readReply(result: JsonObject): Reply {
  const raw = inner(result, "reply");
  const [error, plan] = [maybe(inner, raw, "error"), maybe(inner, raw, "plan")];
  const [approval, transaction] = [maybe(inner, raw, "approval"), maybe(inner, raw, "transaction")];
  return {
    status: text(raw, "status") as Status,
    outcome: text(raw, "outcome"),
    callId: text(raw, "call_id"),
    output: raw["output"],
    error: error && readRefusal(error),
    plan: plan && readPlan(plan),
    approval: approval && { id: text(approval, "id"), expiresAtMs: maybe(number, approval, "expires_at_ms"), raw: approval },
    receipt: maybe(inner, raw, "receipt"),
    transaction: transaction && {
      id: text(transaction, "id"),
      calls: number(transaction, "calls"),
      totals: maybe(inner, transaction, "totals") ?? {},
      raw: transaction,
    },
    usage: readUsage(inner(raw, "usage")),
    warnings: texts(raw, "warnings"),
    labels: texts(raw, "labels"),
    traceId: maybe(text, raw, "trace_id"),
    replayed: result["replayed"] === true,
    budgetRemaining: maybe(inner, result, "budget_remaining"),
    raw,
  };
}

export function readTool(raw: JsonObject): Tool {
  return {
    name: text(raw, "name"),
    title: maybe(text, raw, "title"),
    description: text(raw, "description"),
    tier: number(raw, "tier"),
    inputSchema: inner(raw, "input_schema"),
    outputSchema: inner(raw, "output_schema"),
    raw,
  };
}

export function readProgress(raw: JsonObject): Progress {
  return { done: number(raw, "done"), total: maybe(number, raw, "total"), message: maybe(text, raw, "message") ?? "" };
}
