/**
 * One connection: lines out, lines in, replies matched by their ids. It is used until it ends and never repaired; whoever needs
 * another makes one. Several requests may be under way at once, and their replies come in any order.
 */
import { type Socket, createConnection } from "node:net";
import { ConnectionLost, DaemonUnreachable, NoReply, ProtocolError, Refused, RequestTooLarge, ToolkeepError } from "./errors.js";
import { type JsonObject, type JsonValue, type Progress, object, readProgress, readRefusal, text } from "./model.js";

/** Longest line that the daemon takes, its newline not counted. */
export const REQUEST_MAX_BYTES = 4 * 1024 * 1024;
/** Longest line that is taken from the daemon: four of what one may be, so that only nonsense is refused. */
export const REPLY_MAX_BYTES = 16 * 1024 * 1024;
/** Requests under way at once; the next one waits here. The daemon takes 64: the rest is for cancelling. */
export const IN_FLIGHT_MAX = 60;
const NEWLINE = 10;

export type OnProgress = (note: Progress) => void;

interface Pending {
  readonly resolve: (result: JsonObject) => void;
  readonly reject: (reason: Error) => void;
  readonly onProgress: OnProgress | undefined;
}

export class Connection {
  #nextId = 1;
  #pending = new Map<number, Pending>();
  #waiting: { id: number; go: () => void; drop: (why: Error) => void }[] = [];
  #answered = false;
  #underWay = 0;
  #ended: Error | undefined;
  #begun: Buffer[] = [];
  #begunBytes = 0;
  readonly #closed: Promise<void>;

  private constructor(readonly socket: Socket) {
    this.#closed = new Promise((resolve) => socket.once("close", () => resolve()));
    socket.on("data", (part: Buffer) => this.#take(part));
    socket.on("error", (error) => this.#end(new ConnectionLost(`the connection broke: ${error.message}`)));
    socket.on("close", () => this.#end(new ConnectionLost("the daemon closed the connection before it answered")));
  }

  /** Connect to the socket at `path`. */
  static open(path: string): Promise<Connection> {
    return new Promise((resolve, reject) => {
      const socket = createConnection({ path });
      const failed = (error: Error): void => {
        const message = `no daemon answers at \`${path}\`: ${error.message}; is \`toolkeep serve\` running?`;
        reject(new DaemonUnreachable(message, { cause: error }));
      };
      socket.once("error", failed);
      socket.once("connect", () => {
        socket.off("error", failed);
        resolve(new Connection(socket));
      });
    });
  }

  get isOpen(): boolean {
    return this.#ended === undefined;
  }

  /** A number that no other request of this connection has. */
  nextId(): number {
    return this.#nextId++;
  }

  /** Ask, and wait for the result. `ahead` goes before whoever waits for a place. */
  async request(
    method: string,
    params: JsonObject,
    { id = this.nextId(), onProgress, ahead = false }: { id?: number; onProgress?: OnProgress; ahead?: boolean } = {},
  ): Promise<JsonObject> {
    const line = encode({ jsonrpc: "2.0", id, method, params });
    if (ahead) return this.#exchange(id, line, onProgress);
    if (this.#underWay >= IN_FLIGHT_MAX) await new Promise<void>((go, drop) => this.#waiting.push({ id, go, drop }));
    else this.#underWay++;
    try {
      return await this.#exchange(id, line, onProgress);
    } finally {
      // A place that is free goes to whoever waits longest.
      const next = this.#waiting.shift();
      if (next) next.go();
      else this.#underWay--;
    }
  }

  /** Forget a request that still waits for a place: it is never sent. False if it was sent. */
  giveUp(id: number): boolean {
    const at = this.#waiting.findIndex((waiting) => waiting.id === id);
    const [given] = at < 0 ? [] : this.#waiting.splice(at, 1);
    given?.drop(new NoReply("no place became free in time: nothing was sent"));
    return given !== undefined;
  }

  #exchange(id: number, line: Buffer, onProgress: OnProgress | undefined): Promise<JsonObject> {
    return new Promise((resolve, reject) => {
      if (this.#ended) return reject(again(this.#ended));
      this.#pending.set(id, { resolve, reject, onProgress });
      this.socket.write(line);
      return undefined;
    });
  }

  #take(part: Buffer): void {
    let rest = part;
    while (this.#ended === undefined) {
      const at = rest.indexOf(NEWLINE);
      const piece = at < 0 ? rest : rest.subarray(0, at);
      this.#begunBytes += piece.length;
      if (this.#begunBytes > REPLY_MAX_BYTES) {
        return this.#end(new ProtocolError(`a line of the daemon is longer than ${REPLY_MAX_BYTES} bytes`));
      }
      this.#begun.push(piece);
      if (at < 0) return;
      const line = this.#begun.length === 1 ? piece : Buffer.concat(this.#begun);
      [this.#begun, this.#begunBytes, rest] = [[], 0, rest.subarray(at + 1)];
      try {
        this.#message(decode(line));
      } catch (error) {
        const why = error instanceof Error ? error.message : String(error);
        return this.#end(new ProtocolError(`what the daemon said is not the protocol: ${why}`));
      }
    }
  }

  #message(message: JsonObject): void {
    if (message["jsonrpc"] !== "2.0") throw new ProtocolError("a message is not JSON-RPC 2.0");
    if ("method" in message) return this.#note(text(message, "method"), object(message["params"], "`params`"));
    const { id, error } = message;
    if ((id === null || id === undefined) && error !== undefined) {
      // It is about the connection, which ends now: too many connections, or a peer that nobody knows. Once anything was
      // answered, what is under way may have been done, and is not what was refused.
      const refusal = refused(object(error, "`error`"));
      return this.#end(this.#answered ? new ConnectionLost(`the daemon ended the connection: ${refusal.message}`) : refusal);
    }
    const pending = typeof id === "number" ? this.#pending.get(id) : undefined;
    if (typeof id !== "number" || pending === undefined) throw new ProtocolError(`nobody asked with the id ${String(id)}`);
    // What cannot be read is an end of the connection, and whoever asked hears of that as well.
    const answer = error === undefined ? object(message["result"], "`result`") : refused(object(error, "`error`"));
    this.#pending.delete(id);
    this.#answered = true;
    if (answer instanceof Refused) pending.reject(answer);
    else pending.resolve(answer);
  }

  #note(method: string, params: JsonObject): void {
    const pending = this.#pending.get(Number(params["request"]));
    // Notes of a kind that a later daemon adds, and of requests that nobody waits for, are not for us.
    if (method !== "call.progress" || pending?.onProgress === undefined) return;
    const note = readProgress(params);
    try {
      pending.onProgress(note);
    } catch (error) {
      // The call goes on; a fault of a callback is told like any other that nobody caught.
      queueMicrotask(() => process.emitWarning(error instanceof Error ? error : String(error), "ToolkeepProgress"));
    }
  }

  #end(reason: Error): void {
    if (this.#ended !== undefined) return;
    this.#ended = reason;
    this.socket.destroy();
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const one of pending) one.reject(again(reason));
  }

  /** End it for a reason of the client's. */
  giveUpAll(reason: Error): void {
    this.#end(reason);
  }

  /** Close. What is still under way is cancelled by the daemon, but for commits. */
  async close(): Promise<void> {
    this.#end(new ConnectionLost("the client was closed"));
    await this.#closed;
  }
}

/** An error of its own for each who waits: one that is thrown twice would have the stack of the first. */
function again(reason: Error): Error {
  if (reason instanceof Refused) return new Refused(reason.refusal, reason.number);
  if (reason instanceof DaemonUnreachable) return new DaemonUnreachable(reason.message);
  return reason instanceof ProtocolError ? new ProtocolError(reason.message) : new ConnectionLost(reason.message);
}

function refused(error: JsonObject): Refused {
  const number = error["code"];
  return new Refused(readRefusal(object(error["data"], "`data`")), typeof number === "number" ? number : undefined);
}

/** Levels of objects and arrays of a line that the daemon reads. */
const DEPTH_MAX = 64;

/** What the daemon would not read is refused before it is sent: it could not say whose request it was. */
function shallow(value: unknown, level = 1): void {
  if (typeof value !== "object" || value === null) return;
  if (level > DEPTH_MAX) throw new TypeError(`the request is nested deeper than ${DEPTH_MAX} levels`);
  for (const inner of Object.values(value)) shallow(inner, level + 1);
}

/** What `JSON.stringify` would change silently is refused instead. */
function exact(name: string, value: unknown): unknown {
  if (!name.isWellFormed()) throw new TypeError("a name in the request holds a lone surrogate");
  if (typeof value === "number" && !Number.isFinite(value)) throw new TypeError(`${value} is not JSON`);
  // Written as an integer that is not exact; from 1e21 on a number is written as a fraction.
  if (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && Math.abs(value) < 1e21) {
    throw new TypeError(`${value} is not exact: write it as a text, if the tool takes one`);
  }
  if (typeof value === "string" && !value.isWellFormed()) throw new TypeError("a text of the request holds a lone surrogate");
  return value;
}

/** One line. Throws `TypeError` for what is not JSON, and `RequestTooLarge`. */
export function encode(message: { [name: string]: JsonValue }): Buffer {
  shallow(message);
  const line = Buffer.from(JSON.stringify(message, exact));
  if (line.length > REQUEST_MAX_BYTES) {
    const most = `a line has at most ${REQUEST_MAX_BYTES}: send large data as a file of a workspace`;
    throw new RequestTooLarge(`the request has ${line.length} bytes; ${most}`);
  }
  return Buffer.concat([line, Buffer.of(NEWLINE)]);
}

/** The one object of a line. */
export function decode(line: Buffer): JsonObject {
  try {
    const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
    return object(JSON.parse(utf8.decode(line)), "a line");
  } catch (error) {
    throw new ToolkeepError(`a line is not JSON: ${error instanceof Error ? error.message : String(error)}`);
  }
}
