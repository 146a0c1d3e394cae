/**
 * Show what a call would change, and commit exactly that if it is no deletion.
 *
 *     node preview-and-commit.js run/agent/agent.sock notes.add '{"title": "A", "body": "b"}'
 */
import { Client, Refused } from "../src/index.js";

const [socket = "", tool = "", input = "{}"] = process.argv.slice(2);
const client = new Client({ socket });
try {
  const shown = await client.calls.preview(tool, JSON.parse(input));
  const effects = shown.plan?.effects ?? [];
  for (const effect of effects) console.log(effect["kind"], effect["workspace"], effect["path"]);
  if (shown.plan && !effects.some((effect) => effect["kind"] === "file.delete")) {
    const done = await client.plans.commit(shown.plan.digest);
    console.log(done.outcome, JSON.stringify(done.output));
  }
} catch (error) {
  if (!(error instanceof Refused)) throw error;
  for (const place of error.fields) console.error(`${place.pointer} ${place.problem}; expected ${place.expected}`);
  console.error(error.message);
  process.exitCode = 1;
} finally {
  await client.close();
}
