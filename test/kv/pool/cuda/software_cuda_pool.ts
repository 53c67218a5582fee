import { CudaError } from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { blockBytes, type KvLayout, shardLayout } from "../../../../src/kv/layout.ts";
import { CudaKvPool } from "../../../../src/kv/pool/cuda/cuda_kv_pool.ts";
import { configure, directory } from "../../../ffi/software_device/device.ts";

/** Why there is no software device here; null if there is one. */
export const missing = directory === null ? "no C++ compiler for the software device" : null;

/**
 * A pool on the software device, with memory of its own on as many devices as the layout has shards. Work is late,
 * and runs on after 20 ms.
 */
export class SoftwareCudaPool extends CudaKvPool {
  readonly #free: () => void;

  constructor(layout: KvLayout, numBlocks: number, bounceBytes?: number, hangMs?: number) {
    configure("order=late,progress=20,fail-work=0,hang-work=0,busy=0,memory=1G");
    const { shards = 1 } = layout;
    if (shards > 1) configure(`devices=${shards}`);
    const cuda = openCuda({ from: directory! });
    const [first, ...others] = Array.from({ length: shards }, (_, ordinal) => {
      cuda.setDevice(ordinal);
      return { ordinal, address: cuda.malloc(numBlocks * blockBytes(shardLayout(layout))) };
    });
    super({ cuda, layout, numBlocks, ...first, others, bounceBytes, hangMs });
    let isFreed = false;
    this.#free = () => {
      if (isFreed) return;
      isFreed = true;
      try {
        for (const { address } of [first, ...others]) cuda.free(address);
      } catch (error) {
        if (!(error instanceof CudaError)) throw error; // a test made the device fail
      }
    };
  }

  override async close(): Promise<void> {
    await super.close();
    this.#free();
  }
}
