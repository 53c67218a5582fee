import { CudaError } from "../../../../ffi/cuda/errors.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { blockBytes, type KvLayout } from "../../../../src/kv/layout.ts";
import { CudaKvPool } from "../../../../src/kv/pool/cuda/cuda_kv_pool.ts";
import { configure, directory } from "../../../ffi/software_device/device.ts";

/** Why there is no software device here; null if there is one. */
export const missing = directory === null ? "no C++ compiler for the software device" : null;

/** A pool on the software device, with memory of its own. Work is late, and runs on after 20 ms. */
export class SoftwareCudaPool extends CudaKvPool {
  readonly #free: () => void;

  constructor(layout: KvLayout, numBlocks: number, bounceBytes?: number, hangMs?: number) {
    configure("order=late,progress=20,fail-work=0,hang-work=0,busy=0,memory=1G");
    const cuda = openCuda({ from: directory! });
    cuda.setDevice(0);
    const address = cuda.malloc(numBlocks * blockBytes(layout));
    super({ cuda, layout, numBlocks, address, ordinal: 0, bounceBytes, hangMs });
    let isFreed = false;
    this.#free = () => {
      if (isFreed) return;
      isFreed = true;
      try {
        cuda.free(address);
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
