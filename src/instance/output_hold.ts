import type { Clock } from "../core/clock.ts";
import type { RequestId, RequestOutput } from "../core/protocol/generate.ts";

/** How long an API server may take to connect after a request of it has moved here. */
const HOLD_MS = 10_000;
/** Most outputs held for one API server. */
const MAX_OUTPUTS = 8192;

interface Held {
  readonly requestIds: Set<RequestId>;
  readonly outputs: RequestOutput[];
  readonly cancelDeadline: () => void;
}

/** The requests of an API server, and their outputs, from before it connected. */
export type HeldOutputs = Pick<Held, "requestIds" | "outputs">;

/**
 * Holds outputs of requests that moved here from another instance, until their API server connects.
 * If it does not connect in time, or too many outputs are held for it, its requests are aborted.
 */
export class OutputHold {
  readonly #clock: Clock;
  readonly #abort: (requestId: RequestId) => void;
  readonly #held = new Map<string, Held>();

  constructor(clock: Clock, abort: (requestId: RequestId) => void) {
    this.#clock = clock;
    this.#abort = abort;
  }

  /** From now on, outputs of this request are held. */
  expect(frontendId: string, requestId: RequestId): void {
    const held = this.#held.get(frontendId);
    if (held) return void held.requestIds.add(requestId);
    this.#held.set(frontendId, {
      requestIds: new Set([requestId]),
      outputs: [],
      cancelDeadline: this.#clock.after(HOLD_MS, () => this.#giveUp(frontendId)),
    });
  }

  /** Holds an output of an expected request; other outputs are dropped. */
  add(frontendId: string, output: RequestOutput): void {
    const held = this.#held.get(frontendId);
    if (!held?.requestIds.has(output.requestId)) return;
    if (held.outputs.length >= MAX_OUTPUTS) return this.#giveUp(frontendId);
    held.outputs.push(output);
    if (output.finish) held.requestIds.delete(output.requestId);
  }

  /** Returns and removes everything held for an API server, which has connected. */
  take(frontendId: string): HeldOutputs {
    const held = this.#held.get(frontendId);
    if (!held) return { requestIds: new Set(), outputs: [] };
    held.cancelDeadline();
    this.#held.delete(frontendId);
    return held;
  }

  /** A request has moved away: its outputs so far are still delivered, no others are held. */
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
