/** Runs and transactions as things that are opened and closed. */
import type { CallOptions, Client } from "./client.js";
import { ToolkeepError } from "./errors.js";
import type { JsonObject, Reply } from "./model.js";

/** An open run. `close` it, with `abandon` where the work failed: nothing here can see that by itself. */
export class Run {
  constructor(
    private readonly client: Client,
    readonly id: string,
    /** What `runs.open` answered: contract, workflow and budget. */
    readonly opened: JsonObject,
  ) {}

  /** A call of this run. With `step` and `autoKey` the step is done once, however often it is asked for. */
  execute(tool: string, input: JsonObject, options: Omit<CallOptions, "run"> = {}): Promise<Reply> {
    return this.client.calls.execute(tool, input, { ...options, run: this.id });
  }

  /** Show what a call of this run would change. */
  preview(tool: string, input: JsonObject, options: Omit<CallOptions, "run"> = {}): Promise<Reply> {
    return this.client.calls.preview(tool, input, { ...options, run: this.id });
  }

  /** Add what the caller's model used. */
  report(usage: JsonObject): Promise<JsonObject> {
    return this.client.runs.report(this.id, usage);
  }

  /** Close it. */
  close(options: { outcome?: string; abandon?: boolean } = {}): Promise<JsonObject> {
    return this.client.runs.close(this.id, options);
  }
}

/** An open transaction. `await using` rolls back what was not committed. */
export class Transaction {
  #settled = false;

  constructor(
    private readonly client: Client,
    readonly id: string,
    /** What `transactions.begin` answered. */
    readonly begun: JsonObject,
  ) {}

  /** A call whose effects are staged; later calls see them. */
  execute(tool: string, input: JsonObject, options: Omit<CallOptions, "transaction"> = {}): Promise<Reply> {
    return this.client.calls.execute(tool, input, { ...options, transaction: this.id });
  }

  /** The plan of all calls, to look at. */
  preview(): Promise<Reply> {
    return this.client.reply("transactions.preview", { transaction: this.id });
  }

  /** Commit all of it, or nothing; only the plan with this digest where one is given. */
  async commit(options: { expectPlan?: string; idempotencyKey?: string; check?: boolean } = {}): Promise<Reply> {
    const { expectPlan, idempotencyKey, check } = options;
    const params = { transaction: this.id, expect_plan: expectPlan, idempotency_key: idempotencyKey };
    const reply = await this.client.reply("transactions.commit", params, check);
    this.#settled = true;
    return reply;
  }

  /** Drop all of it. A second time is as good as the first. */
  async rollback(): Promise<void> {
    await this.client.request("transactions.rollback", { transaction: this.id });
    this.#settled = true;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#settled) return;
    try {
      await this.rollback();
    } catch (error) {
      // A transaction that the daemon closed, or cannot be told about, ends by itself when its time is over.
      if (!(error instanceof ToolkeepError)) throw error;
    }
  }
}
