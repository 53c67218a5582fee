import { OverloadedError, RequestError, UnavailableError } from "../core/errors.ts";

/** Bounds the requests in work; each prompt of a batch counts as one. */
export class Admission {
  #inWork = 0;
  #closed = false;

  constructor(readonly maxRequests: number) {}

  /** Requests that entered and did not leave. */
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
    if (this.#closed) throw new UnavailableError("the server is stopping; retry on another");
    if (count > this.maxRequests) {
      throw new RequestError(
        `a batch of ${count} prompts was sent; at most ${this.maxRequests} can be in work at ` +
          "once: send smaller batches or raise --max-queued-requests",
        "prompt",
      );
    }
    if (this.#inWork + count > this.maxRequests) {
      throw new OverloadedError(
        `${this.#inWork} requests are in work and at most ${this.maxRequests} may be; ` +
          "retry later or raise --max-queued-requests",
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
