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
    if (this.#closed) {
      throw new UnavailableError(
        "The server is stopping. Send the request to another one, or in a few seconds.",
      );
    }
    this.checkCount(count);
    if (this.#inWork + count > this.maxRequests) {
      throw new OverloadedError(
        `The service is full: ${this.#inWork} of at most ${this.maxRequests} requests are in it ` +
          "(--max-queued-requests). Retry later.",
      );
    }
    this.#inWork += count;
  }

  /**
   * Refuses what can never enter; to be asked before the work of making that many requests.
   * @throws {RequestError}
   */
  checkCount(count: number): void {
    if (count <= this.maxRequests) return;
    throw new RequestError(
      `The request asks for ${count} sequences (prompts times n); at most ${this.maxRequests} can be ` +
        "in the service (--max-queued-requests). Send smaller requests.",
      "prompt",
    );
  }

  leave(count: number): void {
    this.#inWork -= count;
  }

  /** Refuses all later requests. */
  close(): void {
    this.#closed = true;
  }
}
