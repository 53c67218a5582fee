import type { AcceptedConnection } from "../../../../ffi/accepted_connections.ts";
import type { Clock } from "../../../core/clock.ts";

/** Pause between two looks at the connections. */
const SWEEP_MS = 250;
/** A connection without a request is ended after so long. */
const IDLE_MS = 10_000;
/** Most connections without a request; the ones that were idle longest are ended. */
const MAX_IDLE = 64;

export interface IdleConnectionsArgs {
  readonly clock: Clock;
  /** All connections of the server; null where the system does not say. */
  list(): readonly AcceptedConnection[] | null;
}

/**
 * Bounds the connections on which nobody asks for anything: `Deno.serve` keeps them for ever, and each
 * takes a file of the instance. A request counts from its head to the end of its answer.
 */
export class IdleConnections {
  readonly #args: IdleConnectionsArgs;
  /** Requests under way by their peer's port: two hosts with the same one only keep a connection longer. */
  readonly #busy = new Map<number, number>();
  /** When a connection was first seen without a request, by inode, in that order. */
  #idleSince = new Map<string, number>();
  #cancel: () => void;

  constructor(args: IdleConnectionsArgs) {
    this.#args = args;
    this.#cancel = args.clock.after(SWEEP_MS, () => this.#sweep());
  }

  /** A request has come. @returns to be called when its answer is over */
  begin(peerPort: number): () => void {
    this.#busy.set(peerPort, (this.#busy.get(peerPort) ?? 0) + 1);
    return () => {
      const left = this.#busy.get(peerPort)! - 1;
      if (left === 0) this.#busy.delete(peerPort);
      else this.#busy.set(peerPort, left);
    };
  }

  close(): void {
    this.#cancel();
  }

  #sweep(): void {
    const { clock, list } = this.#args;
    const nowMs = clock.nowMs();
    const idle = (list() ?? []).filter(({ peerPort }) => !this.#busy.has(peerPort));
    const since = (one: AcceptedConnection) => this.#idleSince.get(one.inode) ?? nowMs;
    const oldestFirst = idle.toSorted((a, b) => since(a) - since(b));
    this.#idleSince = new Map(oldestFirst.map((one) => [one.inode, since(one)]));
    for (const [i, one] of oldestFirst.entries()) {
      const isTooMany = oldestFirst.length - i > MAX_IDLE;
      if (isTooMany || nowMs - since(one) >= IDLE_MS) one.end();
    }
    this.#cancel = clock.after(SWEEP_MS, () => this.#sweep());
  }
}
