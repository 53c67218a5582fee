import { UnavailableError } from "../../../src/core/errors.ts";
import { blockBytes, type KvLayout, layerBytes } from "../../../src/kv/layout.ts";
import type { DevicePool, PoolRun } from "../../../src/kv/pool/pool.ts";
import { checkCopy } from "../../../src/kv/pool/pool_bounds.ts";

/**
 * The contract of {@linkcode DevicePool} in its smallest form: the "device" is memory of this process
 * behind a queue of copies, which it carries out one after the other, each in a later turn.
 */
export class ExampleDevicePool implements DevicePool {
  readonly memory = "device";
  readonly device = "example";
  readonly ordinal = 0;
  readonly #bytes: Uint8Array<ArrayBuffer>;
  /** Resolves when the copies that were asked for are done. */
  #queue: Promise<void> = Promise.resolve();
  #isClosed = false;

  constructor(
    readonly layout: KvLayout,
    readonly numBlocks: number,
    readonly address = 0x7f00_0000_0000n,
  ) {
    this.#bytes = new Uint8Array(numBlocks * blockBytes(layout));
  }

  async read(runs: readonly PoolRun[], into: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#check(runs, into);
    await this.#copy(runs, (memory, start) => into.set(memory, start));
  }

  async write(runs: readonly PoolRun[], from: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#check(runs, from);
    await this.#copy(runs, (memory, start) => {
      memory.set(from.subarray(start, start + memory.length));
    });
  }

  allocateStaging(byteLength: number): Uint8Array<ArrayBuffer> {
    if (this.#isClosed) throw new UnavailableError("the KV pool is closed");
    return new Uint8Array(byteLength);
  }

  async close(): Promise<void> {
    this.#isClosed = true;
    await this.#queue;
  }

  #check(runs: readonly PoolRun[], buffer: Uint8Array): void {
    if (this.#isClosed) throw new UnavailableError("the KV pool is closed");
    checkCopy(this.layout, this.numBlocks, runs, buffer.length);
  }

  /** @param copy gets a run's memory, and where its bytes start in the buffer */
  #copy(
    runs: readonly PoolRun[],
    copy: (memory: Uint8Array<ArrayBuffer>, start: number) => void,
  ): Promise<void> {
    return this.#queue = this.#queue.then(async () => {
      await new Promise((resolve) => setTimeout(resolve));
      let start = 0;
      for (const { block, firstLayer, numLayers } of runs) {
        const bytes = layerBytes(this.layout);
        const at = block * blockBytes(this.layout) + firstLayer * bytes;
        copy(this.#bytes.subarray(at, at + numLayers * bytes), start);
        start += numLayers * bytes;
      }
    });
  }
}
