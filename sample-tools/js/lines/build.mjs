// Makes a component of `tool.js`: node build.mjs OUT
// Nothing that the engine could do besides is built in; what is left of imports are files, a clock and streams of text.
import { writeFile } from "node:fs/promises";
import { componentize } from "@bytecodealliance/componentize-js";

const { component } = await componentize({
  sourcePath: "tool.js",
  witPath: "wit",
  worldName: "tool-with-files",
  disableFeatures: ["clocks", "fetch-event", "http", "random", "stdio"],
});
await writeFile(process.argv[2] ?? "tool.wasm", component);
