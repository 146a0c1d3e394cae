/**
 * Two tools over one text file: `count-lines` only reads, `append-line` writes.
 *
 * A tool is a function from the input, which fits its schema in `tools.json`, to the output. JavaScript has no files of its own;
 * those of the workspace `work` are reached through `wasi:filesystem`, and what is written is staged until the host commits it.
 */
import { getDirectories } from "wasi:filesystem/preopens@0.2.6";

const WORKSPACE = "/work";
/** Bytes that are read or written at a time. */
const PART_BYTES = 64 * 1024;

function countLines({ path }) {
  const lines = linesOf(read(path));
  return { lines: lines.length, filled: lines.filter((line) => line.trim() !== "").length };
}

function appendLine({ path, line }) {
  if (/[\n\r]/.test(line)) {
    const fields = [{ pointer: "/line", problem: "holds a line feed", expected: "one line" }];
    throw refusal("invalid-input", "the line holds a line feed", fields);
  }
  // What is there stays as it is, its line ends too.
  const before = exists(path) ? read(path) : "";
  const text = `${before}${before === "" || before.endsWith("\n") ? "" : "\n"}${line}\n`;
  write(path, text);
  return { lines: linesOf(text).length };
}

const TOOLS = { "count-lines": countLines, "append-line": appendLine };

/** What the component exports. An exception that is not an error of the contract is a trap: all that an agent learns is that it broke. */
export const tool = {
  // `toolkeep tools pack --descriptors` writes `tools.json` into the component; nobody asks this.
  describe: () => "",
  invoke: (name, input) => JSON.stringify(TOOLS[name](JSON.parse(input))),
};

/** An error of the contract: `invalid-input`, `not-found`, `denied`, `conflict`, `transient` or `failed`. */
function refusal(tag, message, fields = []) {
  return { tag, val: { message, detail: undefined, fields } };
}

function linesOf(text) {
  const lines = text.split(/\r?\n/);
  if (lines.at(-1) === "") lines.pop();
  return lines;
}

function workspace() {
  const found = getDirectories().find(([, name]) => name === WORKSPACE);
  if (!found) throw refusal("denied", `the workspace \`${WORKSPACE.slice(1)}\` is not granted`);
  return found[0];
}

/** Do something with a file; the host's errors become those of the contract. */
function withFile(path, openFlags, flags, work) {
  let file;
  try {
    file = workspace().openAt({}, path, openFlags, flags);
    return work(file);
  } catch (error) {
    // What the host returns as an error arrives as the payload of an exception.
    const code = error?.payload ?? error;
    if (typeof code !== "string") throw error;
    const tag = { "no-entry": "not-found", access: "denied", "not-permitted": "denied" }[code] ?? "failed";
    throw refusal(tag, tag === "not-found" ? `there is no \`${path}\`` : `\`${path}\`: ${code}`);
  } finally {
    file?.[Symbol.dispose]?.();
  }
}

function exists(path) {
  try {
    return withFile(path, {}, { read: true }, () => true);
  } catch (error) {
    if (error.tag === "not-found") return false;
    throw error;
  }
}

function read(path) {
  return withFile(path, {}, { read: true }, (file) => {
    const parts = [];
    let at = 0;
    for (let end = false; !end; ) {
      const [bytes, last] = file.read(BigInt(PART_BYTES), BigInt(at));
      parts.push(bytes);
      at += bytes.length;
      end = last || bytes.length === 0;
    }
    const whole = new Uint8Array(at);
    let from = 0;
    for (const part of parts) {
      whole.set(part, from);
      from += part.length;
    }
    try {
      return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(whole);
    } catch {
      throw refusal("failed", `\`${path}\` is not UTF-8`);
    }
  });
}

function write(path, text) {
  const bytes = new TextEncoder().encode(text);
  withFile(path, { create: true, truncate: true }, { write: true }, (file) => {
    for (let at = 0; at < bytes.length; ) {
      at += Number(file.write(bytes.subarray(at, at + PART_BYTES), BigInt(at)));
    }
  });
}
