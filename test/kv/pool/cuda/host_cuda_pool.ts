/** Pools on the device that this host has: a GPU, or what LLUMNIX_CUDA_LIBRARIES names. */
import type { Cuda } from "../../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../../ffi/cuda/open.ts";
import { blockBytes, type KvLayout } from "../../../../src/kv/layout.ts";
import { CudaKvPool } from "../../../../src/kv/pool/cuda/cuda_kv_pool.ts";

const cuda = openIfPresent();

/** Why there is no device; null if there is one. */
export const missing = cuda === null ? "no GPU" : null;

/** A pool with memory of its own. */
export class HostCudaPool extends CudaKvPool {
  readonly #address: bigint;
  #isFreed = false;

  constructor(layout: KvLayout, numBlocks: number, bounceBytes?: number) {
    cuda!.setDevice(0);
    const address = cuda!.malloc(numBlocks * blockBytes(layout));
    super({ cuda: cuda!, layout, numBlocks, address, ordinal: 0, bounceBytes });
    this.#address = address;
  }

  override async close(): Promise<void> {
    await super.close();
    if (this.#isFreed) return;
    this.#isFreed = true;
    cuda!.free(this.#address);
  }
}

function openIfPresent(): Cuda | null {
  try {
    const found = openCuda();
    return found.deviceCount() > 0 ? found : null;
  } catch {
    return null; // no driver, no library, or a driver that does not come up
  }
}
