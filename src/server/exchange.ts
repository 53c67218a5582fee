/**
 * One HTTP request and its response. Only this file, `server.ts`, `listeners.ts` and `stream_writer.ts` know
 * the HTTP library.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import type { Readable } from "node:stream";
import type { Gunzip } from "node:zlib";
import { STATUS_CODE, STATUS_TEXT, type StatusCode } from "@std/http/status";
import { OverloadedError, RequestError } from "../core/errors.ts";
import { ClientLeftError, HttpError, toErrorReply } from "./errors.ts";
import { type FlushQueue, StreamWriter } from "./stream_writer.ts";
import type { TurnBudget } from "../core/turn_budget.ts";

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
  /**
   * Time between the first two probes of a client that has closed its side of the connection. Later probes
   * are further apart: over a wide network a reset takes longer to arrive.
   */
  readonly probeIntervalMs: number;
  readonly maxHeaderBytes: number;
  readonly maxConnections: number;
  /** Streamed bytes that a client may leave unread before it is disconnected. */
  readonly maxUnreadBytes: number;
  /** Whole answers of all connections together that clients have not read; more, and the oldest is cut off. */
  readonly maxUnreadAnswerBytes: number;
  /** Requests of a connection whose answers the client has not read; one more, and it is disconnected. */
  readonly maxPipelined: number;
  /** Request bodies of all connections together, while they arrive. */
  readonly maxIncomingBytes: number;
  /**
   * Bytes of each request body that do not count against {@linkcode maxIncomingBytes}: short requests are
   * read while long ones take all of it.
   */
  readonly freeIncomingBytes: number;
}

/** Bytes that several users may hold together. */
export class ByteBudget {
  #used = 0;
  constructor(readonly maxBytes: number) {}

  /** Takes bytes. Returns false, and takes none, if too few are left. */
  take(bytes: number): boolean {
    if (this.#used + bytes > this.maxBytes) return false;
    this.#used += bytes;
    return true;
  }

  give(bytes: number): void {
    this.#used -= bytes;
  }
}

/** Whole answers that were sent and not read yet, of all clients, in the order in which they were sent. */
export class UnreadAnswers {
  readonly #answers = new Map<Exchange, number>();
  #bytes = 0;

  constructor(private readonly maxBytes: number) {}

  /** Disconnects the clients that have had their answers for the longest, if all together are too large. */
  add(exchange: Exchange, bytes: number): void {
    this.#answers.set(exchange, bytes);
    this.#bytes += bytes;
    for (const oldest of this.#answers.keys()) {
      if (this.#bytes <= this.maxBytes || oldest === exchange) return;
      this.remove(oldest);
      oldest.cut();
    }
  }

  /** Does nothing the second time. */
  remove(exchange: Exchange): void {
    this.#bytes -= this.#answers.get(exchange) ?? 0;
    this.#answers.delete(exchange);
  }
}

/** What the exchanges of a server share. */
export interface SharedByExchanges {
  readonly queue: FlushQueue;
  readonly unread: UnreadAnswers;
  readonly incoming: ByteBudget;
  /** Bytes of bodies that are read in one turn of the event loop. */
  readonly reading: TurnBudget;
  /** Bytes of bodies that are parsed in one turn of the event loop. */
  readonly parsing: TurnBudget;
}

const MAX_PROBE_INTERVAL_MS = 5_000;

/** Compressed bytes that are decompressed at once, to 4 MiB at most: about 10 ms. */
const COMPRESSED_PIECE_BYTES = 4096;

/** Answers up to this size are not counted while they are unread. */
const SMALL_ANSWER_BYTES = 64 * 1024;

/** Seconds after which a request that found no room for its body is to be sent again. */
const BODIES_RETRY_SECONDS = 2;

const encoder = new TextEncoder();
const SANE_REQUEST_ID = /^[\w.:-]{1,128}$/;

export class Exchange {
  readonly method: string;
  /** Path of the URL without its query; the routes take a proxy's prefix off. */
  path: string;
  /** The client's `x-request-id` when it is sane, else random; echoed in the response. */
  readonly requestId: string;
  readonly startedMs = performance.now();
  /** SHA-256 of the body of a request for a stream that can be resumed. */
  bodyDigest: string | null = null;
  /** Address of the other end of the connection: the client, or a proxy before it. */
  readonly address: string;
  /** Resolves when the response was sent or the client left. */
  readonly finished: Promise<void>;
  /** Bytes of the answer that the client had not read when this end disconnected it; null: it did not. */
  cutAtBytes: number | null = null;
  #left = false;
  #onLeave: (() => void) | null = null;
  #onHalfClose: (() => void) | null = null;
  /** Sends something that clients ignore. The system of a client that is gone answers it with a reset. */
  #probe: () => void;

  constructor(
    readonly request: IncomingMessage,
    readonly response: ServerResponse,
    readonly shared: SharedByExchanges,
    readonly limits: ConnectionLimits,
  ) {
    this.method = request.method ?? "GET";
    this.address = request.socket.remoteAddress ?? "unknown"; // a closed socket does not say
    this.path = (request.url ?? "/").split("?", 1)[0];
    const id = this.header("x-request-id");
    this.requestId = id !== null && SANE_REQUEST_ID.test(id) ? id : randomId();
    this.finished = new Promise((resolve) => {
      const { socket } = request;
      let sent = false;
      const end = () => {
        socket.off("close", end);
        response.off("close", end);
        if (!sent) {
          this.#left = true;
          this.#onLeave?.();
        }
        resolve();
      };
      response.on("finish", () => sent = true);
      response.on("close", end);
      // Of pipelined requests, only the response that is being sent closes with the socket.
      socket.on("close", end);
    });
    this.#probe = () => {
      // HTTP/1.0 has no interim responses: there the answer itself finds out.
      if (!response.headersSent && request.httpVersion !== "1.0") response.writeContinue();
    };
    this.#watchHalfClose();
    // "close" reports these errors as well. Without a listener they would end the process.
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

  /** Sets a header of the response, whether it is an answer, a refusal or a stream. */
  setHeader(name: string, value: string): void {
    if (!this.response.headersSent) this.response.setHeader(name, value);
  }

  /** A request header by its lower-case name. */
  header(name: string): string | null {
    const value = this.request.headers[name];
    return typeof value === "string" ? value : null;
  }

  /** All values of a request header by its lower-case name, also where there should be one. */
  headers(name: string): string[] {
    const { rawHeaders } = this.request;
    return rawHeaders.filter((_, i) => i % 2 === 1 && rawHeaders[i - 1].toLowerCase() === name);
  }

  /** Calls `callback` once when the client leaves, at once if it already has. One listener. */
  onLeave(callback: () => void): void {
    if (this.#left) callback();
    else this.#onLeave = callback;
  }

  /**
   * The request's body, decompressed if it is sent as gzip.
   * @param inspect is given each piece as it arrives; what it throws ends the reading
   * @throws {HttpError} 413 when it is larger than `maxBytes`, declared or not, compressed or not
   * @throws {RequestError} it is incomplete, or not the gzip that it says it is
   * @throws {OverloadedError} the bodies of all requests together are too large
   * @throws {ClientLeftError}
   */
  async readBody(maxBytes: number, inspect: (chunk: Uint8Array) => void): Promise<Uint8Array> {
    const chunks: Uint8Array[] = [];
    let bytes = 0;
    const { incoming } = this.shared;
    const counted = () => Math.max(0, bytes - this.limits.freeIncomingBytes);
    const take = (chunk: Uint8Array) => {
      if (bytes + chunk.byteLength > maxBytes) throw bodyTooLarge(maxBytes);
      inspect(chunk);
      const before = counted();
      bytes += chunk.byteLength;
      if (!incoming.take(counted() - before)) {
        bytes -= chunk.byteLength;
        throw tooManyBodies(incoming.maxBytes);
      }
      chunks.push(chunk);
    };
    const isGzip = this.header("content-encoding") === "gzip";
    const gunzip = isGzip ? (await import("node:zlib")).createGunzip() : null;
    try {
      if (Number(this.header("content-length") ?? 0) > maxBytes) throw bodyTooLarge(maxBytes);
      await this.#receive(take, gunzip);
      return concat(chunks, bytes);
    } catch (error) {
      // The rest of the body is read and dropped until `requestTimeoutMs`, so that the client can read the
      // answer instead of seeing a reset connection.
      this.request.resume();
      throw error;
    } finally {
      gunzip?.destroy();
      incoming.give(counted());
    }
  }

  /** Hands the body's chunks to `take` until it throws. */
  #receive(take: (chunk: Uint8Array) => void, gunzip: Gunzip | null): Promise<void> {
    return new Promise((resolve, reject) => {
      const source = gunzip ?? this.request;
      const onData = (chunk: Uint8Array) => {
        try {
          take(chunk);
          this.#pauseReading(source, chunk.byteLength);
        } catch (error) {
          source.off("data", onData);
          reject(error);
        }
      };
      source.on("data", onData);
      source.on("end", () => resolve());
      this.request.on("close", () => {
        if (!this.request.complete) reject(new ClientLeftError());
      });
      this.#onHalfClose = () => {
        if (!this.request.complete) reject(bodyCutShort());
      };
      if (gunzip === null) return;
      gunzip.on("error", (cause) => reject(notGzip(cause)));
      this.#decompress(gunzip);
    });
  }

  /**
   * Hands the body to the decompressor in small pieces: it decompresses all that it is given, up to a thousand
   * times as much, even after it was destroyed.
   */
  #decompress(gunzip: Gunzip): void {
    const { request } = this;
    request.on("data", (chunk: Uint8Array) => {
      if (gunzip.destroyed) return;
      request.pause();
      let at = 0;
      const next = () => {
        if (at >= chunk.byteLength || gunzip.destroyed) return void request.resume();
        gunzip.write(chunk.subarray(at, at += COMPRESSED_PIECE_BYTES), next);
      };
      next();
    });
    request.on("end", () => {
      if (!gunzip.destroyed) gunzip.end();
    });
  }

  /**
   * Lets others have their turn. Clients on this machine send faster than bodies are read, so that the event
   * loop would never be idle, and Deno looks for new connections only when it is, or every 61 turns.
   */
  #pauseReading(source: Readable, bytes: number): void {
    source.pause();
    this.shared.reading.take(bytes).then(() => source.resume());
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
      ...(hasNoBody(status) ? {} : { "content-length": String(body.byteLength) }),
      "x-request-id": this.requestId,
      ...headers,
    });
    this.#destroyUnlessDrained();
    const { unread } = this.shared;
    if (body.byteLength > SMALL_ANSWER_BYTES) {
      unread.add(this, body.byteLength);
      this.finished.then(() => unread.remove(this));
    }
    this.response.end(body);
  }

  /** Answers with the error, in OpenAI's form. */
  sendError(error: unknown): void {
    const { status, headers, body } = toErrorReply(error);
    this.sendJson(status, body, headers);
  }

  /**
   * Starts a streaming response; its headers leave at once.
   * @param neutral text between two events that clients ignore
   */
  openStream(contentType: string, neutral: string): StreamWriter {
    this.response.writeHead(STATUS_CODE.OK, STATUS_TEXT[STATUS_CODE.OK], {
      "content-type": contentType,
      "cache-control": "no-cache",
      "x-request-id": this.requestId,
    });
    this.response.flushHeaders();
    this.response.on("prefinish", () => this.#destroyUnlessDrained());
    const { queue } = this.shared;
    const writer = new StreamWriter(
      this.response,
      queue,
      this.limits.maxUnreadBytes,
      () => this.cut(),
    );
    this.#probe = () => writer.push(neutral);
    return writer;
  }

  /**
   * A client that closed only its side (`shutdown(SHUT_WR)`) and one that closed the whole connection look
   * alike: TCP tells of the end of their data only. The system of the second answers data with a reset, which
   * the next write finds. So something is sent now and then, until the answer is sent.
   */
  #watchHalfClose(): void {
    const { socket } = this.request;
    let timer: ReturnType<typeof setTimeout> | undefined;
    const probeFrom = (intervalMs: number) => {
      this.#probe();
      const nextMs = Math.min(2 * intervalMs, MAX_PROBE_INTERVAL_MS);
      timer = setTimeout(() => probeFrom(nextMs), intervalMs);
    };
    const onEnd = () => {
      this.#onHalfClose?.();
      probeFrom(this.limits.probeIntervalMs);
    };
    socket.setMaxListeners(0); // requests that are pipelined all listen
    socket.once("end", onEnd);
    this.finished.then(() => {
      socket.off("end", onEnd);
      clearTimeout(timer);
    });
  }

  #destroyUnlessDrained(): void {
    const timer = setTimeout(() => this.cut(), this.limits.drainTimeoutMs);
    this.response.on("close", () => clearTimeout(timer));
  }

  /** Disconnects a client that does not read. */
  cut(): void {
    this.cutAtBytes = this.response.writableLength;
    this.response.destroy();
  }
}

function hasNoBody(status: StatusCode): boolean {
  return status === STATUS_CODE.NoContent || status === STATUS_CODE.NotModified;
}

/** 32 random hexadecimal digits, as vLLM's request ids. */
export function randomId(): string {
  return crypto.randomUUID().replaceAll("-", "");
}

function bodyCutShort(): RequestError {
  return new RequestError(
    "The request body is incomplete: the client closed its side of the connection before the end.",
  );
}

function notGzip(cause: Error): RequestError {
  return new RequestError(
    `The request body is not valid gzip, which its Content-Encoding says it is: ${cause.message}.`,
    null,
    { cause },
  );
}

function bodyTooLarge(maxBytes: number): HttpError {
  return new HttpError(
    STATUS_CODE.ContentTooLarge,
    `The request body is larger than ${maxBytes} bytes (--max-body-bytes). Send less.`,
  );
}

function tooManyBodies(maxBytes: number): OverloadedError {
  const mebibytes = Math.round(maxBytes / 2 ** 20);
  return new OverloadedError(
    `Other large requests are arriving and take all of the ${mebibytes} MiB that there are for them. ` +
      "Send this one again in a few seconds, or a smaller one.",
    BODIES_RETRY_SECONDS,
  );
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
