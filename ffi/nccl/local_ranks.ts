/** The ranks of one process, a device each, which one thread drives. */
import type { Nccl } from "./nccl.ts";

/** The calls of libnccl that the ranks need. */
export type LocalNccl = Pick<
  Nccl,
  "initAll" | "groupStart" | "groupEnd" | "allGather" | "abort"
>;

/** What a rank sends, and where it receives what all send. */
export interface Gathered {
  readonly from: bigint;
  /** [ranks, byteLength]; `from` may be the rank's own place in it. */
  readonly to: bigint;
  readonly stream: bigint;
}

/**
 * Communicators of all devices that a thread drives. No rank is in another process, so no call waits for one
 * that does not come: a collective is posted for all ranks at once.
 */
export class LocalRanks {
  readonly #nccl: LocalNccl;
  readonly #handles: readonly bigint[];

  /**
   * Makes the communicators, and waits until they are ready: a second or two.
   * @param devices of the ranks, each once
   * @throws {NcclError}
   */
  constructor(nccl: LocalNccl, devices: readonly number[]) {
    this.#nccl = nccl;
    this.#handles = nccl.initAll(devices);
  }

  /**
   * Each rank receives what all ranks send, `byteLength` bytes each, in the order of its stream.
   * @param ranks all of them
   * @throws {NcclError} nothing more can be done with the communicators
   */
  allGather(ranks: readonly Gathered[], byteLength: number): void {
    this.#nccl.groupStart();
    try {
      ranks.forEach(({ from, to, stream }, rank) => {
        this.#nccl.allGather(from, to, byteLength, this.#handles[rank], stream);
      });
    } finally {
      this.#nccl.groupEnd(); // also after an error: NCCL counts the open groups of a thread
    }
  }

  /**
   * Ends the communicators, once nothing is under way. Settles when none uses its device any more.
   * @throws {NcclError} one could not be ended
   */
  async close(): Promise<void> {
    const ends = this.#handles.map((handle) => this.#nccl.abort(handle));
    await Promise.allSettled(ends);
    await Promise.all(ends);
  }
}
