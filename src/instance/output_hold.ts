import type { Clock } from "../core/clock.ts";
import type { RequestId, RequestOutput } from "../core/protocol/generate.ts";

/** How long an API server has to connect once a request of it has come. */
const HOLD_MS = 10_000;
/** Most outputs that wait for one API server. */
const MAX_OUTPUTS = 8192;

interface Held {
  readonly requestIds: Set<RequestId>;
  readonly outputs: RequestOutput[];
  readonly cancelDeadline: () => void;
}

/** What has come of it while an API server was not there. */
export type HeldOutputs = Pick<Held, "requestIds" | "outputs">;

/**
 * Keeps outputs of requests that came from another instance for API servers that are not connected
 * here yet. Where one does not come in time, or too much waits for it, its requests are aborted.
 */
export class OutputHold {
  readonly #clock: Clock;
  readonly #abort: (requestId: RequestId) => void;
  readonly #held = new Map<string, Held>();

  constructor(clock: Clock, abort: (requestId: RequestId) => void) {
    this.#clock = clock;
    this.#abort = abort;
  }

  /** Outputs of this request will come. */
  expect(frontendId: string, requestId: RequestId): void {
    const held = this.#held.get(frontendId);
    if (held) return void held.requestIds.add(requestId);
    this.#held.set(frontendId, {
      requestIds: new Set([requestId]),
      outputs: [],
      cancelDeadline: this.#clock.after(HOLD_MS, () => this.#giveUp(frontendId)),
    });
  }

  /** Keeps an output of an expected request; others are dropped. */
  add(frontendId: string, output: RequestOutput): void {
    const held = this.#held.get(frontendId);
    if (!held?.requestIds.has(output.requestId)) return;
    if (held.outputs.length >= MAX_OUTPUTS) return this.#giveUp(frontendId);
    held.outputs.push(output);
    if (output.finish) held.requestIds.delete(output.requestId);
  }

  /** Hands over what waits for an API server that is here now. */
  take(frontendId: string): HeldOutputs {
    const held = this.#held.get(frontendId);
    if (!held) return { requestIds: new Set(), outputs: [] };
    held.cancelDeadline();
    this.#held.delete(frontendId);
    return held;
  }

  /** A request has left: what it has produced here is still to be delivered. */
  forget(requestId: RequestId): void {
    for (const held of this.#held.values()) held.requestIds.delete(requestId);
  }

  close(): void {
    for (const { cancelDeadline } of this.#held.values()) cancelDeadline();
    this.#held.clear();
  }

  #giveUp(frontendId: string): void {
    for (const requestId of this.take(frontendId).requestIds) this.#abort(requestId);
  }
}
