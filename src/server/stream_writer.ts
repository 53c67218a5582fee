/**
 * Token streams to clients. What arrives within one turn of the event loop leaves in one write per
 * stream, and a client that does not read loses its stream instead of filling memory.
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
   * @param maxUnreadBytes a client that leaves more than this unread is disconnected. What was
   * produced since the last flush does not count: that is no fault of the client.
   */
  constructor(
    readonly response: ServerResponse,
    readonly queue: FlushQueue,
    readonly maxUnreadBytes: number,
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
      this.response.destroy();
      return;
    }
    this.response.write(this.#pending);
    this.#pending = "";
  }

  /** Sends what is pending and ends the response. Idempotent. */
  end(): void {
    if (this.#ended) return;
    this.#ended = true;
    this.response.end(this.#pending);
    this.#pending = "";
  }
}
