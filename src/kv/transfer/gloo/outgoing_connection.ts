import { POLLFAILED, POLLHUP, POLLIN, POLLOUT, type Sockets } from "../../../../ffi/sockets.ts";
import type { TransferHead } from "./incoming_connection.ts";
import { ConnectionLost, FrameStream, MAX_GREETING_BYTES } from "./frame_stream.ts";
import type { Hello } from "./handshake.ts";
import type { PoolCursor } from "./pool_cursor.ts";
import type { Waiter } from "./waiter.ts";

/** How peers reach an instance's end of the group. */
export interface GlooEndpoint {
  readonly host: string;
  readonly port: number;
}

export interface OutgoingConfig {
  readonly sockets: Sockets;
  readonly endpoint: GlooEndpoint;
  readonly hello: Hello;
  /** The other end may be sent blocks. */
  readonly onReady: () => void;
  /**
   * Called once, whatever the reason; what was being sent has not arrived, as far as is known.
   * @param isRefused the other end gave the reason
   */
  readonly onClose: (reason: string, isRefused: boolean) => void;
}

/** What is being sent, and what to call when it has arrived. */
interface Sending {
  cursor: PoolCursor | null;
  readonly makeCursor: () => PoolCursor;
  readonly onDone: () => void;
}

/**
 * A connection through which this instance writes blocks of another, straight from their places to the
 * socket. Whatever goes wrong closes it.
 */
export class OutgoingConnection implements Waiter {
  readonly fd: number;
  deadlineMs!: number;
  readonly #config: OutgoingConfig;
  readonly #stream: FrameStream;
  #state: "connecting" | "greeting" | "ready" | "closed" = "connecting";
  #sending: Sending | null = null;
  /** What the end of the deadline means. */
  #waitsFor = "";

  constructor(config: OutgoingConfig, deadlineMs: number) {
    const { sockets, endpoint: { host, port }, hello } = config;
    this.#config = config;
    this.fd = sockets.connect(host, port);
    this.#stream = new FrameStream(sockets, this.fd);
    this.#stream.send("hello", hello);
    this.#waitUntil(deadlineMs, "a connection");
  }

  get events(): number {
    const isWriting = this.#state === "connecting" || this.#stream.hasUnsent ||
      (this.#sending !== null && this.#sending.cursor?.remainingBytes !== 0);
    return isWriting ? POLLIN | POLLOUT : POLLIN;
  }

  get isReady(): boolean {
    return this.#state === "ready";
  }

  /**
   * Sends blocks; one transfer at a time. `onDone` follows when all are in place, or `onClose`.
   * @param makeCursor called once the head has been written
   */
  send(
    head: TransferHead,
    makeCursor: () => PoolCursor,
    deadlineMs: number,
    onDone: () => void,
  ): void {
    if (!this.isReady || this.#sending) throw new Error("the connection is not free");
    this.#sending = { cursor: null, makeCursor, onDone };
    this.#stream.send("transfer", head);
    this.#waitUntil(deadlineMs, "the end of the transfer");
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
    this.close(`it waited in vain for ${this.#waitsFor}`);
  }

  close(reason: string, isRefused = false): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#sending = null;
    this.#config.sockets.close(this.fd);
    this.#config.onClose(reason, isRefused);
  }

  #waitUntil(deadlineMs: number, what: string): void {
    this.deadlineMs = deadlineMs;
    this.#waitsFor = what;
  }

  #attempt(act: () => void): void {
    try {
      act();
    } catch (error) {
      if (!(error instanceof ConnectionLost)) throw error;
      this.close(error.message);
    }
  }

  #isClosed(): boolean {
    return this.#state === "closed";
  }

  #connected(): void {
    const error = this.#config.sockets.error(this.fd);
    if (error !== null) throw new ConnectionLost(error);
    this.#state = "greeting";
    this.#waitsFor = "an answer to its greeting: it hangs, or another service has the port";
  }

  #write(): void {
    this.#stream.flush();
    if (this.#sending === null || this.#stream.hasUnsent) return;
    const cursor = this.#sending.cursor ??= this.#sending.makeCursor();
    if (cursor.remainingBytes === 0) return;
    const bytes = this.#config.sockets.writeFrom(this.fd, cursor.places());
    if (bytes > 0) cursor.advance(bytes);
  }

  #read(): void {
    const frame = this.#stream.receive(MAX_GREETING_BYTES);
    if (frame === null) return;
    const { type, data } = frame;
    if (type === "welcome" && this.#state === "greeting") {
      this.#state = "ready";
      this.deadlineMs = Infinity;
      this.#config.onReady();
    } else if (type === "refused" || type === "failed") {
      this.close((data as { readonly message: string }).message, true);
    } else if (type === "done" && this.#sending?.cursor?.remainingBytes === 0) {
      const { onDone } = this.#sending;
      this.#sending = null;
      this.deadlineMs = Infinity;
      onDone();
    } else throw new ConnectionLost(`the other end sent ${type} out of turn`);
  }
}
