import { ipcHandleBytes } from "../../../../ffi/cuda/cuda.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { MigrationId } from "../../../core/protocol/migration.ts";
import type { Puller, PullOrder } from "./block_puller.ts";

/** Letters of a handle in hexadecimal. */
const HANDLE_LETTERS = 2 * ipcHandleBytes;

/**
 * A puller for each device of a pool whose blocks are divided among several: each copies from the device of the
 * same place in the source's order. Both pools have the same layout, so they have as many devices.
 */
export class ShardedPuller implements Puller {
  readonly died: Promise<string>;
  readonly #pullers: readonly Puller[];

  constructor(pullers: readonly Puller[]) {
    this.#pullers = pullers;
    this.died = Promise.race(pullers.map(({ died }) => died));
  }

  get failure(): string | null {
    return this.#pullers.find(({ failure }) => failure !== null)?.failure ?? null;
  }

  /** If one device's copy fails, the others may go on until {@linkcode stop}. */
  async pull(order: PullOrder): Promise<void> {
    const { source } = order, { process, ipcHandle = "" } = source;
    if (process.pid === Deno.pid) {
      throw new UnavailableError("blocks on several devices do not move inside a process");
    }
    if (ipcHandle.length !== this.#pullers.length * HANDLE_LETTERS) {
      throw new UnavailableError(
        `the naming entry of process ${process.pid} has handles of ` +
          `${ipcHandle.length / HANDLE_LETTERS} devices, and ${this.#pullers.length} were expected`,
      );
    }
    await Promise.all(this.#pullers.map((puller, i) => {
      const handle = ipcHandle.slice(i * HANDLE_LETTERS, (i + 1) * HANDLE_LETTERS);
      return puller.pull({ ...order, source: { ...source, ipcHandle: handle } });
    }));
  }

  prepare(blocks: readonly number[]): void {
    for (const puller of this.#pullers) puller.prepare(blocks);
  }

  async stop(migrationId: MigrationId): Promise<void> {
    await Promise.all(this.#pullers.map((puller) => puller.stop(migrationId)));
  }

  async close(): Promise<void> {
    await Promise.all(this.#pullers.map((puller) => puller.close()));
  }
}
