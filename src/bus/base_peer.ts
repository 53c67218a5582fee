import { Buffer } from "node:buffer";
import { type Clock, realClock } from "../core/clock.ts";
import {
  type ErrorRecord,
  fromErrorRecord,
  LlumnixError,
  OverloadedError,
  RequestError,
  toErrorRecord,
  UnavailableError,
} from "../core/errors.ts";
import { logger } from "../core/log.ts";
import type { BusLimits, CallOptions, Message, Peer, Service } from "./bus.ts";
import { Outbox } from "./outbox.ts";

const DEFAULT_TIMEOUT_MS = 10_000;
/** Longest delay that setTimeout takes; anything longer waits for ever. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** Longest text of a frame that several records share. */
const MAX_SHARED_CHARS = 32 << 10;
/** Longest error message that is sent; what is longer is cut. */
const MAX_ERROR_CHARS = 64 << 10;

const log = logger("bus");

/** First element of a record; the rest is given behind each. */
const NOTIFY = 0; // method, data
const CALL = 1; // id, method, data
const RESULT = 2; // id, data
const ERROR = 3; // id, ErrorRecord

interface PendingCall {
  readonly method: string;
  resolve(message: Message): void;
  reject(error: LlumnixError): void;
}

/**
 * Calls, notifications and limits over any transport that carries {@linkcode Frame}s in order.
 * A transport extends it: it sends what {@linkcode wake} tells of, and hands in what arrives.
 */
export abstract class BasePeer implements Peer {
  protected readonly outbox: Outbox;
  #state: "open" | "closing" | "closed" = "open";
  #pending = new Map<number, PendingCall>();
  #nextCallId = 1;
  #callsBeingAnswered = 0;
  #wakeScheduled = false;
  #notifyPrefixes = new Map<string, string>();
  #settleClosed!: () => void;
  /** Resolves after `onClose`. */
  readonly closed = new Promise<void>((resolve) => this.#settleClosed = resolve);

  constructor(
    readonly remote: string,
    private readonly service: Service,
    protected readonly limits: BusLimits,
    protected readonly clock: Clock = realClock,
  ) {
    this.outbox = new Outbox(Math.min(MAX_SHARED_CHARS, Math.floor(limits.maxFrameBytes / 3) - 2));
  }

  /** Frames wait in the outbox. */
  protected abstract wake(): void;
  /** Sends what waits in the outbox, then closes the transport; never rejects. */
  protected abstract drain(): Promise<void>;
  /** Closes the transport at once; never rejects. */
  protected abstract abandon(): Promise<void>;

  get isOpen(): boolean {
    return this.#state === "open";
  }

  get bufferedBytes(): number {
    return this.outbox.bytes;
  }

  call(method: string, message: Message, options: CallOptions = {}): Promise<Message> {
    if (!this.isOpen) return Promise.reject(this.#closedError(method));
    if (this.#pending.size >= this.limits.maxPendingCalls) {
      return Promise.reject(
        new OverloadedError(`${this.#pending.size} calls to ${this.remote} wait for an answer`),
      );
    }
    const id = this.#nextCallId++;
    return new Promise((resolve, reject) => {
      const cancelTimeout = this.#startTimeout(id, options.timeoutMs ?? DEFAULT_TIMEOUT_MS);
      this.#pending.set(id, {
        method,
        resolve(answer) {
          cancelTimeout?.();
          resolve(answer);
        },
        reject(error) {
          cancelTimeout?.();
          reject(error);
        },
      });
      try {
        this.#send(`[${CALL},${id},${JSON.stringify(method)},${toJson(message.data)}]`, message);
      } catch (error) {
        this.#takePending(id)?.reject(error as LlumnixError);
      }
    });
  }

  notify(method: string, message: Message): void {
    if (!this.isOpen) return;
    let prefix = this.#notifyPrefixes.get(method);
    if (prefix === undefined) {
      prefix = `[${NOTIFY},${JSON.stringify(method)},`;
      this.#notifyPrefixes.set(method, prefix);
    }
    this.#send(prefix + toJson(message.data) + "]", message);
  }

  close(): Promise<void> {
    this.#leave("closed by this end", true);
    return this.closed;
  }

  /** Closes at once: the connection is of no use any more. */
  protected fail(reason: string): void {
    this.#leave(reason, false);
  }

  /** The other end will send nothing more. */
  protected remoteEnded(): void {
    this.#leave("closed by the other end", true);
  }

  /** Handles one frame: the JSON array of its records, and its payload. */
  protected receive(json: string, payload: Uint8Array<ArrayBuffer> | null): void {
    if (!this.isOpen) return;
    let records: unknown;
    try {
      records = JSON.parse(json);
    } catch {
      return this.fail("the other end sent a frame that is not JSON");
    }
    if (!Array.isArray(records)) {
      return this.fail("the other end sent a frame that is not an array");
    }
    const last = records.length - 1;
    for (let i = 0; i <= last && this.isOpen; i++) {
      this.#receiveRecord(records[i], i === last ? payload : null);
    }
  }

  #receiveRecord(record: unknown, payload: Uint8Array<ArrayBuffer> | null): void {
    if (!Array.isArray(record)) return this.fail("the other end sent a malformed record");
    const [kind, first, second, third] = record;
    if (kind === NOTIFY && typeof first === "string") {
      this.#handleNotify(first, toMessage(second, payload));
    } else if (kind === CALL && typeof first === "number" && typeof second === "string") {
      this.#handleCall(first, second, toMessage(third, payload));
    } else if (kind === RESULT && this.#knowsCall(first)) {
      this.#takePending(first)?.resolve(toMessage(second, payload));
    } else if (kind === ERROR && this.#knowsCall(first) && isErrorRecord(second)) {
      this.#takePending(first)?.reject(fromErrorRecord(second));
    } else {
      this.fail("the other end sent a malformed record");
    }
  }

  #handleNotify(method: string, message: Message): void {
    const handler = lookUp(this.service.notifications, method);
    if (!handler) return this.fail(`the other end sent the unknown notification "${method}"`);
    try {
      handler(message, this);
    } catch (error) {
      this.fail(`the handler of notification "${method}" failed: ${error}`);
    }
  }

  #handleCall(id: number, method: string, message: Message): void {
    if (this.#callsBeingAnswered >= this.limits.maxPendingCalls) {
      return this.fail(`the other end made more than ${this.limits.maxPendingCalls} calls at once`);
    }
    const handler = lookUp(this.service.calls, method);
    try {
      if (!handler) throw new LlumnixError("not_found", `${method} is not a method of this peer`);
      const answer = handler(message, this);
      if (!(answer instanceof Promise)) return this.#sendResult(id, answer);
      this.#callsBeingAnswered++;
      answer.then((message) => this.#sendResult(id, message))
        .catch((error) => this.#sendError(id, error))
        .finally(() => this.#callsBeingAnswered--);
    } catch (error) {
      this.#sendError(id, error);
    }
  }

  #sendResult(id: number, message: Message): void {
    if (this.isOpen) this.#send(`[${RESULT},${id},${toJson(message.data)}]`, message);
  }

  #sendError(id: number, error: unknown): void {
    if (!this.isOpen) return;
    const record = toErrorRecord(error);
    const message = record.message.slice(0, maxErrorChars(this.limits));
    this.#send(`[${ERROR},${id},${JSON.stringify({ ...record, message })}]`, { data: null });
  }

  /** @throws {RequestError} the record does not fit in a frame */
  #send(record: string, { payload, isPayloadGiven }: Message): void {
    const payloadBytes = payload?.length ?? 0;
    this.#checkFrameBytes(record, payloadBytes);
    const backlogBytes = this.outbox.bytes + record.length + payloadBytes;
    if (backlogBytes > this.limits.maxBufferedBytes) {
      return this.fail(
        `the other end does not keep up: ${backlogBytes} bytes wait for it, ` +
          `the limit is ${this.limits.maxBufferedBytes}`,
      );
    }
    // The caller may use its buffer again as soon as we return.
    this.outbox.push(record, (isPayloadGiven ? payload : payload?.slice()) ?? null);
    if (this.#wakeScheduled) return;
    this.#wakeScheduled = true;
    queueMicrotask(() => {
      this.#wakeScheduled = false;
      if (this.isOpen) this.wake();
    });
  }

  #checkFrameBytes(record: string, payloadBytes: number): void {
    const limit = this.limits.maxFrameBytes - payloadBytes - 2; // brackets around the records
    // UTF-8 takes at most three bytes per UTF-16 unit.
    if (record.length * 3 <= limit) return;
    const bytes = Buffer.byteLength(record);
    if (bytes <= limit) return;
    throw new RequestError(
      `a message of ${bytes + payloadBytes} bytes to ${this.remote} is over the limit of ` +
        `${this.limits.maxFrameBytes} bytes`,
    );
  }

  #startTimeout(id: number, timeoutMs: number): (() => void) | undefined {
    if (timeoutMs > MAX_TIMEOUT_MS) return undefined;
    return this.clock.after(timeoutMs, () => {
      const call = this.#takePending(id);
      call?.reject(
        new UnavailableError(`${this.remote} did not answer ${call.method} in ${timeoutMs} ms`),
      );
    });
  }

  #takePending(id: number): PendingCall | undefined {
    const call = this.#pending.get(id);
    if (call) this.#pending.delete(id);
    return call;
  }

  /** True for every id that was given out; its call may have timed out meanwhile. */
  #knowsCall(id: unknown): id is number {
    return typeof id === "number" && id >= 1 && id < this.#nextCallId;
  }

  #closedError(method: string, reason = "the connection is closed"): UnavailableError {
    return new UnavailableError(`${method} to ${this.remote} got no answer: ${reason}`);
  }

  async #leave(reason: string, graceful: boolean): Promise<void> {
    if (this.#state !== "open") return;
    this.#state = "closing";
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const call of pending) call.reject(this.#closedError(call.method, reason));
    await (graceful ? this.drain() : this.abandon());
    this.#state = "closed";
    try {
      this.service.onClose?.(this, reason);
    } catch (error) {
      // Nobody waits here who could handle it, and the connection is closed all the same.
      log.error("onClose failed", { remote: this.remote, reason, error });
    }
    this.#settleClosed();
  }
}

/** Longest error message that surely fits in a frame; a character takes at most 6 bytes (`\u0000`). */
function maxErrorChars({ maxFrameBytes }: BusLimits): number {
  return Math.max(0, Math.min(MAX_ERROR_CHARS, Math.floor((maxFrameBytes - 200) / 6)));
}

/** `undefined` and functions have no JSON: they travel as null. */
function toJson(data: unknown): string {
  return JSON.stringify(data) ?? "null";
}

function toMessage(data: unknown, payload: Uint8Array<ArrayBuffer> | null): Message {
  return payload === null ? { data } : { data, payload };
}

/** Only own properties: a method named "constructor" must not find Object's. */
function lookUp<T>(table: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return table && Object.hasOwn(table, name) ? table[name] : undefined;
}

function isErrorRecord(value: unknown): value is ErrorRecord {
  const record = value as ErrorRecord | null;
  return typeof record?.kind === "string" && typeof record.message === "string";
}
