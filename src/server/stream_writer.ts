/**
 * Token streams to clients. The events of one turn of the event loop are sent in one write per stream. A
 * client that does not read is disconnected, so that its unread events do not fill memory.
 */
import type { ServerResponse } from "node:http";
import { setImmediate } from "node:timers";

/** Flushes all streams that got text since the last turn of the event loop. */
export class FlushQueue {
  #writers: StreamWriter[] = [];

  add(writer: StreamWriter): void {
    if (this.#writers.length === 0) setImmediate(() => this.#flush());
    this.#writers.push(writer);
  }

  #flush(): void {
    const writers = this.#writers;
    this.#writers = [];
    for (const writer of writers) writer.flush();
  }
}

/** Beyond this many unread bytes a stream whose events are cumulative may skip some. */
const CONGESTED_BYTES = 64 * 1024;

/** The body of one streaming response. */
export class StreamWriter {
  #pending = "";
  #ended = false;

  /**
   * @param maxUnreadBytes a client that leaves more than this unread is disconnected. Text produced since
   * the last flush does not count, because the client could not have read it.
   */
  constructor(
    readonly response: ServerResponse,
    readonly queue: FlushQueue,
    readonly maxUnreadBytes: number,
    /** Disconnects the client. */
    private readonly cut: () => void,
  ) {}

  /** True while the client is behind. */
  get congested(): boolean {
    return this.response.writableLength > CONGESTED_BYTES;
  }

  /** Adds text to what the next flush sends. Ignored after `end`. */
  push(text: string): void {
    if (this.#ended || text === "") return;
    if (this.#pending === "") this.queue.add(this);
    this.#pending += text;
  }

  /** Called by the queue. */
  flush(): void {
    if (this.#pending === "" || this.response.destroyed) return;
    if (this.response.writableLength > this.maxUnreadBytes) {
      this.#ended = true;
      this.cut();
      return;
    }
    this.response.write(this.#pending);
    this.#pending = "";
  }

  /** Sends the pending text and ends the response. Idempotent. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.response.end(this.#pending);
    this.#pending = "";
  }
}
