/**
 * One HTTP request and its response. The only file, with `server.ts` and `stream_writer.ts`, that
 * knows which HTTP library carries them.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { STATUS_CODE, STATUS_TEXT, type StatusCode } from "@std/http/status";
import { ClientLeftError, HttpError, toErrorReply } from "./errors.ts";
import { type FlushQueue, StreamWriter } from "./stream_writer.ts";

/** Bounds on what one connection may take. */
export interface ConnectionLimits {
  /** From the first byte of a request (or the connection) to the end of its headers. */
  readonly headerTimeoutMs: number;
  /** From the first byte of a request to the end of its body. */
  readonly requestTimeoutMs: number;
  /** Between two requests of a connection. */
  readonly idleTimeoutMs: number;
  /** From the end of a response to its last byte being taken by the client. */
  readonly drainTimeoutMs: number;
  readonly maxHeaderBytes: number;
  readonly maxConnections: number;
  /** Streamed bytes that a client may leave unread before it is disconnected. */
  readonly maxUnreadBytes: number;
}

const encoder = new TextEncoder();
const SANE_REQUEST_ID = /^[\w.:-]{1,128}$/;

export class Exchange {
  readonly method: string;
  /** Path of the URL without its query. */
  readonly path: string;
  /** The client's `x-request-id` when it is sane, else random; echoed in the response. */
  readonly requestId: string;
  readonly startedMs = performance.now();
  /** Resolves when the response was sent or the client left. */
  readonly finished: Promise<void>;
  #left = false;
  #onLeave: (() => void) | null = null;

  constructor(
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    readonly queue: FlushQueue,
    readonly limits: ConnectionLimits,
  ) {
    this.method = request.method ?? "GET";
    this.path = (request.url ?? "/").split("?", 1)[0];
    const id = this.header("x-request-id");
    this.requestId = id !== null && SANE_REQUEST_ID.test(id) ? id : randomId();
    this.finished = new Promise((resolve) => {
      response.on("close", () => {
        if (!response.writableFinished) {
          this.#left = true;
          this.#onLeave?.();
        }
        resolve();
      });
    });
    // Both report what "close" says as well; without listeners they would end the process.
    request.on("error", () => {});
    response.on("error", () => {});
  }

  /** True once the client went away before it had the whole response. */
  get left(): boolean {
    return this.#left;
  }

  /** Status sent so far, or 499 when the client left. */
  get status(): number {
    return this.#left ? 499 : this.response.statusCode;
  }

  /** A request header by its lower-case name. */
  header(name: string): string | null {
    const value = this.request.headers[name];
    return typeof value === "string" ? value : null;
  }

  /** Calls `callback` once when the client leaves, at once if it already has. One listener. */
  onLeave(callback: () => void): void {
    if (this.#left) callback();
    else this.#onLeave = callback;
  }

  /**
   * The request's body.
   * @throws {HttpError} 413 when it is larger than `maxBytes`, declared or not
   * @throws {ClientLeftError}
   */
  readBody(maxBytes: number): Promise<Uint8Array> {
    const tooLarge = () =>
      new HttpError(
        STATUS_CODE.ContentTooLarge,
        `the request body is larger than ${maxBytes} bytes; send less or raise --max-body-bytes`,
      );
    return new Promise((resolve, reject) => {
      if (Number(this.header("content-length") ?? 0) > maxBytes) return reject(tooLarge());
      const chunks: Uint8Array[] = [];
      let bytes = 0;
      const onData = (chunk: Uint8Array) => {
        bytes += chunk.byteLength;
        if (bytes <= maxBytes) {
          chunks.push(chunk);
          return;
        }
        // What still comes is read and dropped until `requestTimeoutMs`, so that the client gets
        // to read the answer instead of a reset connection.
        chunks.length = 0;
        this.request.off("data", onData);
        this.request.resume();
        reject(tooLarge());
      };
      this.request.on("data", onData);
      this.request.on("end", () => resolve(concat(chunks, bytes)));
      this.request.on("close", () => {
        if (!this.request.complete) reject(new ClientLeftError());
      });
    });
  }

  sendJson(
    status: StatusCode,
    value: unknown,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    this.send(status, "application/json", JSON.stringify(value), headers);
  }

  /** Sends a whole response. Does nothing when one was sent or the client left. */
  send(
    status: StatusCode,
    contentType: string,
    text: string,
    headers: Readonly<Record<string, string>> = {},
  ): void {
    if (this.#left || this.response.headersSent) return;
    const body = encoder.encode(text);
    this.response.writeHead(status, STATUS_TEXT[status], {
      ...(body.byteLength > 0 ? { "content-type": contentType } : {}),
      "content-length": String(body.byteLength),
      "x-request-id": this.requestId,
      ...headers,
    });
    this.#destroyUnlessDrained();
    this.response.end(body);
  }

  /** Answers with the error, in OpenAI's form. */
  sendError(error: unknown): void {
    const { status, headers, body } = toErrorReply(error);
    this.sendJson(status, body, headers);
  }

  /** Starts a streaming response; its headers leave at once. */
  openStream(contentType: string): StreamWriter {
    this.response.writeHead(STATUS_CODE.OK, STATUS_TEXT[STATUS_CODE.OK], {
      "content-type": contentType,
      "cache-control": "no-cache",
      "x-request-id": this.requestId,
    });
    this.response.flushHeaders();
    this.response.on("prefinish", () => this.#destroyUnlessDrained());
    return new StreamWriter(this.response, this.queue, this.limits.maxUnreadBytes);
  }

  #destroyUnlessDrained(): void {
    const timer = setTimeout(() => this.response.destroy(), this.limits.drainTimeoutMs);
    this.response.on("close", () => clearTimeout(timer));
  }
}

/** 32 random hexadecimal digits, as vLLM's request ids. */
export function randomId(): string {
  return crypto.randomUUID().replaceAll("-", "");
}

function concat(chunks: readonly Uint8Array[], bytes: number): Uint8Array {
  if (chunks.length === 1) return chunks[0];
  const whole = new Uint8Array(bytes);
  let offset = 0;
  for (const chunk of chunks) {
    whole.set(chunk, offset);
    offset += chunk.byteLength;
  }
  return whole;
}
