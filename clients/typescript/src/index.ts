/**
 * Client for the agent socket of Toolkeep: call tools, look at plans, commit them, wait for people.
 *
 *     await using client = new Client({ socket: "run/agent/agent.sock" });
 *     const shown = await client.calls.preview("notes.add", { title: "A", body: "b" });
 *     if (shown.plan) await client.plans.commit(shown.plan.digest);
 */
export { Calls, Client, type CallOptions, type ClientOptions, Running, type StartOptions } from "./client.js";
export { REPLY_MAX_BYTES, REQUEST_MAX_BYTES, type OnProgress } from "./connection.js";
export {
  CallDenied,
  CallError,
  CallFailed,
  Code,
  ConnectionLost,
  DaemonUnreachable,
  NoReply,
  OutcomeUnknown,
  ProtocolError,
  Refused,
  RequestTooLarge,
  ToolkeepError,
} from "./errors.js";
export type {
  Approval,
  FieldProblem,
  JsonObject,
  JsonValue,
  PlanSummary,
  Progress,
  Refusal,
  Reply,
  StagedTransaction,
  Status,
  Tool,
  Usage,
} from "./model.js";
export { type Retry, RETRY, pause } from "./retry.js";
export { Run, Transaction } from "./work.js";
