/** Reads an HTTP/1.1 response piece by piece, as its bytes arrive. */
import { Buffer } from "node:buffer";

const MAX_HEAD_BYTES = 64 << 10;
const MAX_CHUNK_LINE_BYTES = 4096;
const EMPTY = new Uint8Array(0);

export interface ResponseHead {
  readonly status: number;
  readonly reason: string;
  /** Names in lower case. */
  readonly headers: ReadonlyMap<string, string>;
}

type State = "head" | "length" | "until end" | "chunk line" | "chunk" | "chunk end" | "trailer";

/** The parts of one response. */
export class ResponseReader {
  head: ResponseHead | null = null;
  isDone = false;
  #state: State = "head";
  /** Bytes that belong to a line which has not ended. */
  #rest: Uint8Array = EMPTY;
  /** Bytes of the body, or of the current chunk, that have not arrived yet. */
  #left = 0;

  /** @param onBody called with each piece of the body; the bytes are valid until it returns */
  constructor(private readonly onBody: (bytes: Uint8Array) => void) {}

  /** Whether another request may follow on the connection. */
  get keepsConnection(): boolean {
    return this.isDone && this.#state !== "until end" && this.#rest.length === 0 &&
      this.head!.headers.get("connection")?.toLowerCase() !== "close";
  }

  /**
   * Takes the next bytes.
   * @throws {Error} they are not HTTP/1.1
   */
  push(bytes: Uint8Array): void {
    let input = bytes;
    if (this.#rest.length > 0) {
      input = Buffer.concat([this.#rest, bytes]);
      this.#rest = EMPTY;
    }
    let at = 0;
    while (at < input.length && !this.isDone) {
      const next = this.#advance(input, at);
      if (next === null) break;
      at = next;
    }
    // A copy, because the caller reads into the same memory again.
    if (at < input.length) this.#rest = input.slice(at);
  }

  /** @throws {Error} the connection ended within the response */
  end(): void {
    if (this.isDone) return;
    if (this.#state === "until end") this.isDone = true;
    else if (this.head === null) throw new ConnectionEnded("before the answer");
    else throw new ConnectionEnded("in the middle of the answer");
  }

  /** Takes a part of `input` from `at`; returns where the next part begins, or null if bytes are missing. */
  #advance(input: Uint8Array, at: number): number | null {
    switch (this.#state) {
      case "head":
        return this.#takeHead(input, at);
      case "chunk line":
        return this.#takeChunkLine(input, at);
      case "chunk end":
        this.#state = "chunk line";
        return this.#takeLineEnd(input, at);
      case "trailer":
        return this.#takeTrailer(input, at);
      case "until end":
        this.onBody(input.subarray(at));
        return input.length;
      default:
        return this.#takeBody(input, at);
    }
  }

  #takeHead(input: Uint8Array, at: number): number | null {
    const buffer = view(input);
    const end = buffer.indexOf("\r\n\r\n", at);
    if (end < 0 || end - at > MAX_HEAD_BYTES) {
      if (input.length - at > MAX_HEAD_BYTES) throw new Error("the head of the answer is too long");
      return null;
    }
    this.head = parseHead(buffer.toString("latin1", at, end));
    const { status, headers } = this.head;
    if (status < 200) this.head = null; // 100 Continue and the like come before the answer
    else if (status === 204 || status === 304) this.isDone = true;
    else if (/\bchunked\b/i.test(headers.get("transfer-encoding") ?? "")) {
      this.#state = "chunk line";
    } else if (headers.has("content-length")) this.#expectLength(headers.get("content-length")!);
    else this.#state = "until end";
    return end + 4;
  }

  #expectLength(text: string): void {
    if (!/^\d{1,15}$/.test(text)) throw new Error(`content-length is "${text}"`);
    this.#left = Number(text);
    this.#state = "length";
    this.isDone = this.#left === 0;
  }

  #takeChunkLine(input: Uint8Array, at: number): number | null {
    const buffer = view(input);
    const end = buffer.indexOf("\r\n", at);
    if (end < 0) {
      if (input.length - at > MAX_CHUNK_LINE_BYTES) throw new Error("a chunk has no length");
      return null;
    }
    const digits = /^[0-9a-fA-F]{1,8}/.exec(buffer.toString("latin1", at, Math.min(end, at + 64)));
    if (digits === null) throw new Error("a chunk has no length");
    this.#left = parseInt(digits[0], 16);
    this.#state = this.#left === 0 ? "trailer" : "chunk";
    return end + 2;
  }

  #takeLineEnd(input: Uint8Array, at: number): number | null {
    if (input.length - at < 2) {
      this.#state = "chunk end";
      return null;
    }
    if (input[at] !== 13 || input[at + 1] !== 10) throw new Error("a chunk has a wrong length");
    return at + 2;
  }

  #takeTrailer(input: Uint8Array, at: number): number | null {
    const end = view(input).indexOf("\r\n", at);
    if (end < 0) {
      if (input.length - at > MAX_CHUNK_LINE_BYTES) throw new Error("a trailer is too long");
      return null;
    }
    this.isDone = end === at;
    return end + 2;
  }

  #takeBody(input: Uint8Array, at: number): number {
    const end = Math.min(input.length, at + this.#left);
    this.onBody(input.subarray(at, end));
    this.#left -= end - at;
    if (this.#left === 0) {
      if (this.#state === "chunk") this.#state = "chunk end";
      else this.isDone = true;
    }
    return end;
  }
}

/** The server closed the connection, or the network did. */
export class ConnectionEnded extends Error {
  constructor(where: "before the answer" | "in the middle of the answer") {
    super(`the connection ended ${where}`);
  }
}

function view(bytes: Uint8Array): Buffer {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

function parseHead(text: string): ResponseHead {
  const [first, ...lines] = text.split("\r\n");
  const match = /^HTTP\/1\.[01] (\d{3})(?: (.*))?$/.exec(first);
  if (match === null) throw new Error(`the answer is not HTTP/1.1: "${first.slice(0, 80)}"`);
  const headers = new Map(lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()] as const;
  }));
  return { status: Number(match[1]), reason: match[2] ?? "", headers };
}
