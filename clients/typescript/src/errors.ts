/**
 * Everything that can be thrown. Three things are kept apart, because what to do next differs: the daemon was not reached or was
 * lost, the daemon refused (with a stable code), and a call of a tool came to nothing (with its reply).
 */
import { type FieldProblem, type JsonValue, type Refusal, type Reply, readRefusal } from "./model.js";

/** The words that a refusal can carry; `docs/errors.md` says what to do about each. Later daemons may have more. */
export const Code = {
  INVALID_INPUT: "invalid_input",
  UNAUTHORIZED: "unauthorized",
  DENIED: "denied",
  NOT_FOUND: "not_found",
  BUDGET_EXCEEDED: "budget_exceeded",
  RATE_LIMITED: "rate_limited",
  CIRCUIT_OPEN: "circuit_open",
  KILLED: "killed",
  LOOP_DETECTED: "loop_detected",
  GATE_UNMET: "gate_unmet",
  OUT_OF_FUEL: "out_of_fuel",
  DEADLINE_EXCEEDED: "deadline_exceeded",
  MEMORY_EXCEEDED: "memory_exceeded",
  OUTPUT_TOO_LARGE: "output_too_large",
  TOOL_FAILED: "tool_failed",
  TOOL_TRAPPED: "tool_trapped",
  STALE_PLAN: "stale_plan",
  PLAN_DIVERGED: "plan_diverged",
  EFFECT_REFUSED: "effect_refused",
  APPROVAL_REQUIRED: "approval_required",
  APPROVAL_REJECTED: "approval_rejected",
  APPROVAL_EXPIRED: "approval_expired",
  IDEMPOTENCY_MISMATCH: "idempotency_mismatch",
  IN_FLIGHT: "in_flight",
  OVERLOADED: "overloaded",
  UNKNOWN_OUTCOME: "unknown_outcome",
  HALTED: "halted",
  NOT_REPLAYABLE: "not_replayable",
  EVAL_FAILED: "eval_failed",
  INTERNAL: "internal",
} as const;

/** The base of everything here. */
export class ToolkeepError extends Error {
  override get name(): string {
    return this.constructor.name;
  }
}

/** No connection could be made. Nothing was sent. */
export class DaemonUnreachable extends ToolkeepError {}

/**
 * The connection ended before the answer. The daemon cancels what it executed for it, but never a commit that has begun: without
 * an idempotency key nobody can tell what became of a call, with one the same call tells.
 */
export class ConnectionLost extends ToolkeepError {
  constructor(
    message: string,
    /** Whether the request carried an idempotency key, so that it may be sent again without being done twice. */
    readonly keyed = false,
  ) {
    super(message);
  }
}

/** The daemon, or whatever listens there, said something that the protocol does not have. The connection is closed. */
export class ProtocolError extends ToolkeepError {}

/** The request is longer than a line may be. Nothing was sent. */
export class RequestTooLarge extends ToolkeepError {}

/** The client stopped waiting. The call was told to end, and did not say in time how it ended. */
export class NoReply extends ToolkeepError {}

/** The daemon refused, with a stable code, what to do, and the places that are wrong. */
export class Refused extends ToolkeepError {
  constructor(
    readonly refusal: Refusal,
    /** The number of the JSON-RPC error; nothing where a call was refused. */
    readonly number?: number,
  ) {
    super(`${refusal.code}: ${refusal.message}${refusal.hint ? ` (${refusal.hint})` : ""}`);
  }
  get code(): string {
    return this.refusal.code;
  }
  get hint(): string {
    return this.refusal.hint;
  }
  get fields(): readonly FieldProblem[] {
    return this.refusal.fields;
  }
  get detail(): JsonValue | undefined {
    return this.refusal.detail;
  }
  get retryable(): boolean {
    return this.refusal.retryable;
  }
  get retryAfterMs(): number | undefined {
    return this.refusal.retryAfterMs;
  }
}

/** A call of a tool was recorded and did not do what was asked; `reply` is its envelope. */
export class CallError extends Refused {
  constructor(
    readonly reply: Reply,
    refusal: Refusal,
  ) {
    super(refusal);
  }
}

/** Policy, a limit or a person said no. Nothing was changed. */
export class CallDenied extends CallError {}

/** The tool or the host failed. Nothing was changed, unless `reply.outcome` is `halted`. */
export class CallFailed extends CallError {}

/** Nobody knows whether an effect happened. Do not repeat the call; ask an operator (`outcomes`). */
export class OutcomeUnknown extends CallError {}

/** The error that a reply is; nothing where it went well or waits for people. */
export function errorOf(reply: Reply): CallError | undefined {
  if (reply.status === "ok" || reply.status === "held") return undefined;
  const refusal = reply.error ?? readRefusal({ code: Code.INTERNAL, message: `the call ended as ${reply.status}` });
  const kind = { denied: CallDenied, failed: CallFailed, unknown: OutcomeUnknown }[reply.status] ?? CallError;
  return new kind(reply, refusal);
}
