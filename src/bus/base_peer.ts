import { Buffer } from "node:buffer";
import { type Clock, realClock } from "../core/clock.ts";
import {
  type ErrorRecord,
  fromErrorRecord,
  isErrorKind,
  LlumnixError,
  MessageError,
  OverloadedError,
  RequestError,
  toErrorRecord,
  UnavailableError,
} from "../core/errors.ts";
import { logger } from "../core/log.ts";
import type { BusLimits, CallOptions } from "./bus.ts";
import { Outbox } from "./outbox.ts";
import type { MessageCheck, Protocol } from "./protocol.ts";
import type { AnyMessage, AnyPeer, AnyService } from "./transport.ts";

const DEFAULT_TIMEOUT_MS = 10_000;
/** Longest delay that setTimeout takes; anything longer waits for ever. */
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** Longest text of a frame that several records share. */
const MAX_SHARED_CHARS = 32 << 10;
/** Longest error message that is sent; longer ones are cut. */
const MAX_ERROR_CHARS = 64 << 10;

const log = logger("bus");

/** First element of a record; the rest is given behind each. */
const NOTIFY = 0; // method, data
const CALL = 1; // id, method, data
const RESULT = 2; // id, data
const ERROR = 3; // id, ErrorRecord

/** What came beside the JSON of a record. */
type Payload = Pick<AnyMessage, "payload" | "giveBack"> | null;

interface PendingCall {
  readonly method: string;
  resolve(message: AnyMessage): void;
  reject(error: LlumnixError): void;
}

/**
 * Calls, notifications and limits over any transport that carries {@linkcode Frame}s in order.
 * A transport extends this class: it sends the frames of the outbox, and hands in the frames that arrive.
 *
 * A peer cannot do more harm than to lose its connection. It is closed on a message that does not fit
 * the protocol, and on an error in the handler of a message, which is logged with its stack.
 */
export abstract class BasePeer implements AnyPeer {
  /** Transports that know it say so. */
  readonly pid: number | null = null;
  readonly localHost: string | null = null;
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
    private readonly service: AnyService,
    protected readonly limits: BusLimits,
    protected readonly clock: Clock = realClock,
    /** How messages are checked; null where both ends are in this process. */
    private readonly protocol: Protocol | null = null,
  ) {
    this.outbox = new Outbox(Math.min(MAX_SHARED_CHARS, Math.floor(limits.maxFrameBytes / 3) - 2));
  }

  /** The outbox has frames to send. */
  protected abstract wake(): void;
  /** Sends the frames of the outbox, then closes the transport; never rejects. */
  protected abstract drain(): Promise<void>;
  /** Closes the transport at once; never rejects. */
  protected abstract abandon(): Promise<void>;

  get isOpen(): boolean {
    return this.#state === "open";
  }

  get bufferedBytes(): number {
    return this.outbox.bytes;
  }

  call(method: string, message: AnyMessage, options: CallOptions = {}): Promise<AnyMessage> {
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

  notify(method: string, message: AnyMessage): void {
    if (!this.isOpen) return;
    let prefix = this.#notifyPrefixes.get(method);
    if (prefix === undefined) {
      prefix = `[${NOTIFY},${JSON.stringify(method)},`;
      this.#notifyPrefixes.set(method, prefix);
    }
    const pack = lookUp(this.protocol?.packers, method);
    const data = pack === undefined ? message.data : pack(message.data);
    this.#send(prefix + toJson(data) + "]", message);
  }

  close(): Promise<void> {
    this.#leave("closed by this end", true);
    return this.closed;
  }

  /** Closes at once, without sending the frames of the outbox. */
  protected fail(reason: string): void {
    this.#leave(reason, false);
  }

  /** Closes at once, and says so in the log: the other end does not speak the protocol. */
  protected refuse(reason: string): void {
    log.warn(`closing a connection: ${reason}`, { remote: this.remote });
    this.fail(reason);
  }

  /** The other end will send nothing more. */
  protected remoteEnded(): void {
    this.#leave("closed by the other end", true);
  }

  /**
   * Handles one frame: the JSON array of its records, and its payload.
   * @param giveBack takes the payload's buffer back
   */
  protected receive(
    json: string,
    payload: Uint8Array<ArrayBuffer> | null,
    giveBack?: () => void,
  ): void {
    if (!this.isOpen) return;
    const carried = payload === null ? null : { payload, giveBack };
    let records: unknown;
    try {
      records = JSON.parse(json);
    } catch {
      return this.refuse("the other end sent a frame that is not JSON");
    }
    if (!Array.isArray(records)) {
      return this.refuse("the other end sent a frame that is not an array");
    }
    const last = records.length - 1;
    for (let i = 0; i <= last && this.isOpen; i++) {
      this.#receiveRecord(records[i], i === last ? carried : null);
    }
  }

  #receiveRecord(record: unknown, payload: Payload): void {
    if (!Array.isArray(record)) return this.refuse("the other end sent a malformed record");
    const [kind, first, second, third] = record;
    if (kind === NOTIFY && typeof first === "string") {
      this.#handleNotify(first, second, payload);
    } else if (kind === CALL && isCallId(first) && typeof second === "string") {
      this.#handleCall(first, second, third, payload);
    } else if (kind === RESULT && this.#knowsCall(first)) {
      const call = this.#takePending(first);
      if (call) this.#handleResult(call, second, payload);
    } else if (kind === ERROR && this.#knowsCall(first) && isErrorRecord(second)) {
      this.#takePending(first)?.reject(fromErrorRecord(second));
    } else {
      this.refuse("the other end sent a malformed record");
    }
  }

  #handleNotify(method: string, data: unknown, payload: Payload): void {
    const handler = lookUp(this.service.notifications, method);
    if (!handler) return this.refuse(`the other end sent the unknown notification "${method}"`);
    try {
      const check = lookUp(this.protocol?.notifications, method);
      handler(toMessage(data, payload, check), this);
    } catch (error) {
      this.fail(this.#explain("notification", method, error));
    }
  }

  #handleCall(id: number, method: string, data: unknown, payload: Payload): void {
    if (this.#callsBeingAnswered >= this.limits.maxPendingCalls) {
      const { maxPendingCalls } = this.limits;
      return this.refuse(`the other end made more than ${maxPendingCalls} calls at once`);
    }
    const handler = lookUp(this.service.calls, method);
    try {
      if (!handler) throw new LlumnixError("not_found", `${method} is not a method of this peer`);
      const check = lookUp(this.protocol?.calls, method)?.request;
      const answer = handler(toMessage(data, payload, check), this);
      if (!(answer instanceof Promise)) return this.#sendResult(id, answer);
      this.#callsBeingAnswered++;
      answer.then((message) => this.#sendResult(id, message))
        .catch((error) => this.#answerError(id, method, error))
        .finally(() => this.#callsBeingAnswered--);
    } catch (error) {
      this.#answerError(id, method, error);
    }
  }

  #handleResult(call: PendingCall, data: unknown, payload: Payload): void {
    try {
      call.resolve(toMessage(data, payload, lookUp(this.protocol?.calls, call.method)?.reply));
    } catch (error) {
      const reason = this.#explain("answer to", call.method, error);
      call.reject(this.#closedError(call.method, reason));
      this.fail(reason);
    }
  }

  /** A deliberate error is an answer like others; after any other the connection closes. */
  #answerError(id: number, method: string, error: unknown): void {
    this.#sendError(id, error);
    if (isDeliberate(error)) return;
    this.#leave(this.#explain("call", method, error), true);
  }

  /** Says in the log why the connection closes, with the stack if the defect is on this side. */
  #explain(what: string, method: string, error: unknown): string {
    const { remote } = this;
    const reason = `${what} "${method}": ${error instanceof Error ? error.message : error}`;
    if (error instanceof LlumnixError) log.warn(`closing a connection: ${reason}`, { remote });
    else log.error("closing a connection: its message was not handled", { remote, method, error });
    return reason;
  }

  #sendResult(id: number, message: AnyMessage): void {
    if (this.isOpen) this.#send(`[${RESULT},${id},${toJson(message.data)}]`, message);
  }

  #sendError(id: number, error: unknown): void {
    if (!this.isOpen) return;
    const record = toErrorRecord(error);
    const message = record.message.slice(0, maxErrorChars(this.limits));
    this.#send(`[${ERROR},${id},${JSON.stringify({ ...record, message })}]`, { data: null });
  }

  /** @throws {RequestError} the record does not fit in a frame */
  #send(record: string, { payload, isPayloadGiven }: AnyMessage): void {
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
      // The connection is closed even so, and no caller could handle the error.
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

/** @throws {MessageError} the data does not fit */
function toMessage(data: unknown, payload: Payload, check: MessageCheck | undefined): AnyMessage {
  const checked = check === undefined ? data : check(data);
  return { data: checked, ...payload };
}

/** Only own properties: a method named "constructor" must not find Object's. */
function lookUp<T>(table: Readonly<Record<string, T>> | undefined, name: string): T | undefined {
  return table && Object.hasOwn(table, name) ? table[name] : undefined;
}

function isErrorRecord(value: unknown): value is ErrorRecord {
  const { kind, message, param, retryAfterSeconds } = (value ?? {}) as Partial<ErrorRecord>;
  const hasFittingParam = (param ?? null) === null || typeof param === "string";
  const hasFittingWait = retryAfterSeconds === undefined || Number.isFinite(retryAfterSeconds);
  return isErrorKind(kind) && typeof message === "string" && hasFittingParam && hasFittingWait;
}

function isCallId(value: unknown): value is number {
  return Number.isSafeInteger(value) && (value as number) >= 0;
}

/** An error that a handler throws to have it told to the caller. */
function isDeliberate(error: unknown): boolean {
  return error instanceof LlumnixError && !(error instanceof MessageError);
}
