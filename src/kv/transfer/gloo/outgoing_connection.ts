import { POLLFAILED, POLLHUP, POLLIN, POLLOUT, type Sockets } from "../../../../ffi/sockets.ts";
import { setPreempting } from "../../../../ffi/thread_policy.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { TransferHead } from "./incoming_connection.ts";
import { ConnectionLost } from "./channel.ts";
import { FrameStream, MAX_GREETING_BYTES } from "./frame_stream.ts";
import { type Hello, type SignedHello, signHello, type Welcome } from "./handshake.ts";
import { type ConnectionKeys, connectionKeys, isProof } from "./keys.ts";
import { pauseMs, PIECE_BYTES } from "../pace.ts";
import type { TransferCursor } from "../pool_cursor.ts";
import type { Waiter } from "./waiter.ts";

/** Where an instance's end of the group listens. */
export interface GlooEndpoint {
  readonly host: string;
  readonly port: number;
}

export interface OutgoingConfig {
  readonly sockets: Sockets;
  readonly endpoint: GlooEndpoint;
  readonly hello: Hello;
  /** Of the group. */
  readonly secret: string;
  /** The other end has welcomed this instance: blocks may be sent. */
  readonly onReady: () => void;
  /**
   * Called once, when the connection closes. A transfer under way counts as failed.
   * @param isRefused whether the other end gave the reason
   */
  readonly onClose: (reason: string, isRefused: boolean) => void;
}

/** A transfer, and what to call when it is done. */
export interface Sending {
  readonly head: TransferHead;
  /** Called once, after the head was written. */
  readonly makeCursor: () => TransferCursor;
  readonly deadlineMs: number;
  readonly onDone: () => void;
}

/**
 * A connection over which this instance writes blocks of another one, straight from the pool to the
 * socket. Any failure closes it.
 */
export class OutgoingConnection implements Waiter {
  readonly fd: number;
  readonly #config: OutgoingConfig;
  readonly #stream: FrameStream;
  #state: "connecting" | "greeting" | "ready" | "closed" = "connecting";
  /** Set once the hello is sent. */
  #greeting: { readonly keys: ConnectionKeys; readonly hello: SignedHello } | null = null;
  #sending: Sending | null = null;
  #cursor: TransferCursor | null = null;
  /** When a pause of a background transfer ends; 0 when there is no pause. */
  #pausedUntilMs = 0;
  #limitMs = Infinity;
  /** What the connection waits for until `#limitMs`, for the error message. */
  #waitsFor = "";

  constructor(config: OutgoingConfig, deadlineMs: number) {
    const { sockets, endpoint: { host, port } } = config;
    this.#config = config;
    this.fd = sockets.connect(host, port);
    this.#stream = new FrameStream(sockets, this.fd);
    this.#waitUntil(deadlineMs, "a connection");
  }

  get events(): number {
    if (this.#pausedUntilMs > 0) return POLLIN;
    const hasBytes = this.#cursor === null ||
      (this.#cursor.remainingBytes > 0 && this.#cursor.isReady);
    const isWriting = this.#state === "connecting" || this.#stream.hasUnsent ||
      (this.#sending !== null && hasBytes);
    return isWriting ? POLLIN | POLLOUT : POLLIN;
  }

  get hasBuffered(): boolean {
    return this.#stream.channel.hasBuffered;
  }

  get deadlineMs(): number {
    return this.#pausedUntilMs > 0 ? Math.min(this.#pausedUntilMs, this.#limitMs) : this.#limitMs;
  }

  get isReady(): boolean {
    return this.#state === "ready";
  }

  /** Sends blocks, one transfer at a time. `onDone` follows when all are in place, else `onClose`. */
  send(sending: Sending): void {
    if (!this.isReady || this.#sending) throw new Error("the connection is not free");
    setPreempting(!sending.head.isBackground);
    this.#sending = sending;
    this.#cursor = null;
    this.#stream.send("transfer", sending.head);
    this.#waitUntil(sending.deadlineMs, "the end of the transfer");
    this.#attempt(() => this.#write());
  }

  onReady(events: number): void {
    if (this.#state === "closed") return;
    this.#attempt(() => {
      if (events & POLLFAILED) {
        throw new ConnectionLost(this.#config.sockets.error(this.fd) ?? "the connection broke");
      }
      if (this.#state === "connecting") this.#connected();
      if (events & (POLLIN | POLLHUP)) this.#read();
      if (events & POLLOUT && !this.#isClosed()) this.#write();
    });
  }

  onDeadline(): void {
    if (this.#limitMs <= performance.now()) {
      return this.close(`timed out waiting for ${this.#waitsFor}`);
    }
    this.#pausedUntilMs = 0;
    this.#attempt(() => this.#write());
  }

  close(reason: string, isRefused = false): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#endSending();
    this.#config.sockets.close(this.fd);
    this.#config.onClose(reason, isRefused);
  }

  #waitUntil(deadlineMs: number, what: string): void {
    this.#limitMs = deadlineMs;
    this.#waitsFor = what;
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (error instanceof UnavailableError) this.close(error.message, true); // of the device
      else if (error instanceof ConnectionLost) this.close(error.message);
      else throw error;
    }
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #connected(): void {
    const error = this.#config.sockets.error(this.fd);
    if (error !== null) throw new ConnectionLost(error);
    this.#state = "greeting";
    this.#waitsFor =
      "an answer to the greeting: the other end hangs, or another service has the port";
  }

  #write(): void {
    this.#stream.flush();
    if (this.#sending === null || this.#stream.hasUnsent) return;
    const cursor = this.#cursor ??= this.#sending.makeCursor();
    if (cursor.remainingBytes === 0 || !cursor.isReady) return;
    if (this.#sending.head.isBackground) return this.#writePiece(cursor);
    const bytes = this.#stream.channel.writeFrom(cursor.places());
    if (bytes > 0) cursor.advance(bytes);
  }

  #writePiece(cursor: TransferCursor): void {
    const startMs = performance.now();
    const bytes = this.#stream.channel.writeFrom(cursor.placesOf(PIECE_BYTES));
    if (bytes <= 0) return;
    cursor.advance(bytes);
    const nowMs = performance.now();
    const pieces = Math.ceil(cursor.remainingBytes / bytes); // the socket may have taken less
    const pause = pauseMs({ tookMs: nowMs - startMs, pieces, leftMs: this.#limitMs - nowMs });
    // `poll` counts whole milliseconds, and rounds up.
    if (pause >= 1) this.#pausedUntilMs = nowMs + pause;
  }

  /** Preempts others again: the next transfer may be a last stage. */
  #endSending(): void {
    if (this.#sending !== null) setPreempting(true);
    this.#sending = null;
    this.#cursor?.release();
  }

  #read(): void {
    const frame = this.#stream.receive(MAX_GREETING_BYTES);
    if (this.#greeting === null && this.#stream.peerNonce !== null) {
      this.#greet(this.#stream.peerNonce);
    }
    if (frame === null) return;
    const { type, data } = frame;
    if (type === "welcome" && this.#state === "greeting") this.#becomeReady(data);
    else if (type === "refused" || type === "failed") {
      const { message } = (data ?? {}) as { readonly message?: unknown };
      this.close(typeof message === "string" ? message : "the other end gave no reason", true);
    } else if (type === "done" && this.#sending && this.#cursor?.remainingBytes === 0) {
      const { onDone } = this.#sending;
      this.#endSending();
      this.#limitMs = Infinity;
      onDone();
    } else throw new ConnectionLost(`the other end sent an unexpected ${type} frame`);
  }

  /** Says who this is, once the other end's nonce shows that no earlier greeting is said again. */
  #greet(peerNonce: Uint8Array): void {
    const { secret, hello } = this.#config;
    const keys = connectionKeys(secret, { dialer: this.#stream.nonce, listener: peerNonce });
    this.#greeting = { keys, hello: signHello(hello, keys) };
    this.#stream.send("hello", this.#greeting.hello);
    this.#stream.flush();
  }

  /** @throws {ConnectionLost} the other end is not of the group */
  #becomeReady(data: unknown): void {
    const { proof } = (data ?? {}) as Partial<Welcome>;
    const { keys, hello: { statement } } = this.#greeting!;
    if (!isProof(keys, "listener", statement, proof)) {
      throw new ConnectionLost("the other end is not in the migration group");
    }
    if (this.#config.hello.isSealed) {
      this.#stream.seal({ sends: keys.fromDialer, receives: keys.fromListener });
    }
    this.#state = "ready";
    this.#limitMs = Infinity;
    this.#config.onReady();
  }
}
