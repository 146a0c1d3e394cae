// The MCP client of TypeScript, of either era, that knows nothing of Toolkeep: list, preview, call, held, wait, committed.
// What it finds is printed, one JSON object per line; who starts it approves in between. With --confirm it is asked by
// elicitation instead: it says yes once, no once, and closes the dialog once.
//
//     client.cjs DIRECTORY new|old [--confirm] --url URL TOKEN
//     client.cjs DIRECTORY new|old [--confirm] PROGRAM ARGUMENT…
"use strict";
const { createRequire } = require("node:module");

const [directory, era, ...where] = process.argv.slice(2);
const confirms = where[0] === "--confirm" && Boolean(where.shift());
const answers = [{ action: "accept", content: { ok: true } }, { action: "decline" }, { action: "cancel" }];
const answer = (request) => {
  const said = answers.shift();
  tell("asked", { message: request.params.message, answer: said.action });
  return said;
};
const capabilities = confirms ? { elicitation: {} } : {};
const load = createRequire(`${directory}/`);

function parts() {
  if (era === "new") {
    const { Client, StreamableHTTPClientTransport } = load("@modelcontextprotocol/client");
    const { StdioClientTransport } = load("@modelcontextprotocol/client/stdio");
    const client = new Client({ name: "test", version: "1" }, { versionNegotiation: { mode: "auto" }, capabilities });
    if (confirms) client.setRequestHandler("elicitation/create", async (request) => answer(request));
    return { client, StreamableHTTPClientTransport, StdioClientTransport };
  }
  const { Client } = load("@modelcontextprotocol/sdk/client/index.js");
  const { StdioClientTransport } = load("@modelcontextprotocol/sdk/client/stdio.js");
  const { StreamableHTTPClientTransport } = load("@modelcontextprotocol/sdk/client/streamableHttp.js");
  const client = new Client({ name: "test", version: "1" }, { capabilities });
  const { ElicitRequestSchema } = load("@modelcontextprotocol/sdk/types.js");
  if (confirms) client.setRequestHandler(ElicitRequestSchema, async (request) => answer(request));
  return { client, StreamableHTTPClientTransport, StdioClientTransport };
}

// A validator that does not know a `format` says so for every place; that is not about this test.
console.warn = () => {};
const tell = (step, facts) => console.log(JSON.stringify({ step, ...facts }));

async function main() {
  const { client, StreamableHTTPClientTransport, StdioClientTransport } = parts();
  // The revision that is spoken is known to the transport, which is told it.
  let version;
  const told = (transport) => {
    const set = transport.setProtocolVersion?.bind(transport);
    transport.setProtocolVersion = (spoken) => ((version = spoken), set?.(spoken));
    return transport;
  };
  if (where[0] === "--url") {
    const headers = { Authorization: `Bearer ${where[2]}` };
    await client.connect(told(new StreamableHTTPClientTransport(new URL(where[1]), { requestInit: { headers } })));
  } else {
    await client.connect(told(new StdioClientTransport({ command: where[0], args: where.slice(1) })));
  }
  const call = async (name, input) => (await client.callTool({ name, arguments: input })).structuredContent;
  if (confirms) {
    tell("connected", { version: client.getNegotiatedProtocolVersion?.() ?? version });
    for (const title of ["Yes", "No", "Later"]) {
      const { status, outcome } = await call("notes.add", { title, body: "b" });
      tell("told", { status, outcome });
    }
    return client.close();
  }
  const { tools } = await client.listTools();
  tell("connected", { version: client.getNegotiatedProtocolVersion?.() ?? version, tools: tools.map((tool) => tool.name) });
  const rename = { from: "old_name", to: "new_name" };
  const preview = await call("held-rename.preview", rename);
  tell("previewed", { outcome: preview.outcome, totals: preview.plan.totals });
  const held = await call("held-rename", rename);
  tell("held", { status: held.status, approval: held.approval_id });
  const done = await call("toolkeep.wait", { approval_id: held.approval_id });
  tell("done", { status: done.status, outcome: done.outcome });
  const wrong = await call("text-stats", { text: 7 });
  tell("wrong", { error: wrong.error.code });
  await client.close();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
