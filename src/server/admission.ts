import { OverloadedError, RequestError, UnavailableError } from "../core/errors.ts";

/** Bounds the requests in work; each prompt of a batch counts as one. */
export class Admission {
  /** Requests that entered and did not leave. */
  #inWork = 0;
  #closed = false;

  constructor(readonly maxRequests: number) {}

  /** Requests in work. */
  get inWork(): number {
    return this.#inWork;
  }

  /**
   * Takes `count` places, to be given back by `leave`.
   * @throws {RequestError} more than there are places at all
   * @throws {OverloadedError}
   * @throws {UnavailableError} after `close`
   */
  enter(count: number): void {
    if (this.#closed) throw new UnavailableError("The server is stopping. Retry on another.");
    if (count > this.maxRequests) {
      throw new RequestError(
        `The batch has ${count} prompts; at most ${this.maxRequests} requests can be in the service ` +
          "(--max-queued-requests). Send smaller batches.",
        "prompt",
      );
    }
    if (this.#inWork + count > this.maxRequests) {
      throw new OverloadedError(
        `The service is full: ${this.#inWork} of at most ${this.maxRequests} requests are in it ` +
          "(--max-queued-requests). Retry later.",
      );
    }
    this.#inWork += count;
  }

  leave(count: number): void {
    this.#inWork -= count;
  }

  /** Refuses all later requests. */
  close(): void {
    this.#closed = true;
  }
}
