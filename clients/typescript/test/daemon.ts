/**
 * The daemon that the tests run against, and its operator. Whoever starts the tests starts the daemon and names its directory in
 * `TOOLKEEP_TEST_HOME`: its sockets are in `run/` there.
 */
import { readFileSync } from "node:fs";
import { createConnection } from "node:net";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import type { JsonObject } from "../src/index.js";

const home = process.env["TOOLKEEP_TEST_HOME"];
if (!home) throw new Error("TOOLKEEP_TEST_HOME is not set: run these tests by `make test`, which starts a daemon");

export const HOME: string = home;
export const SOCKET = `${HOME}/run/agent/agent.sock`;

/** One request of the operator. */
export async function admin(method: string, params: JsonObject): Promise<JsonObject> {
  const socket = createConnection({ path: `${HOME}/run/admin/admin.sock` });
  const token = readFileSync(`${HOME}/run/admin/token`, "utf8").trim();
  const asked: [string, JsonObject][] = [["session.authenticate", { token }], [method, params]];
  asked.forEach(([method, params], id) => socket.write(`${JSON.stringify({ jsonrpc: "2.0", id, method, params })}\n`));
  try {
    for await (const line of createInterface({ input: socket })) {
      const answer = JSON.parse(line) as { id: number; error?: JsonObject; result: JsonObject };
      if (answer.error) throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
      if (answer.id === 1) return answer.result;
    }
    throw new Error(`${method} is not answered`);
  } finally {
    socket.destroy();
  }
}

/** Wait until so many calls run. */
export async function inFlight(count: number): Promise<void> {
  for (let tries = 0; tries < 1200; tries++) {
    if ((await admin("health.get", {}))["in_flight"] === count) return;
    await sleep(50);
  }
  throw new Error(`there are never ${count} calls in flight`);
}
