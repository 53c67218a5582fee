/** Speeds of copies between host and device, and inside the device. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import type { PathReport } from "./report.ts";
import { rateOf } from "./rate.ts";

const MOST_BYTES = 64 << 20;
/** Of the device's free memory; the measurement needs two buffers. */
const FREE_SHARE = 1 / 8;
/** Copies that wait for the device together, so that its latency does not count. */
const COPIES = 8;

/**
 * Measures the device that is current on this thread, for about `budgetMs`.
 * @throws {CudaError} the device fails, or has no memory left
 */
export async function measureDevice(cuda: Cuda, budgetMs: number): Promise<PathReport[]> {
  const { softwareDevice } = cuda.library;
  const least = 1 << 20;
  const free = cuda.memGetInfo().freeBytes * FREE_SHARE;
  const byteLength = Math.max(least, Math.min(MOST_BYTES, free - free % least));
  using cleanup = new DisposableStack();
  const stream = cleanup.adopt(cuda.createStream(), (one) => cuda.destroyStream(one));
  const pinned = cleanup.adopt(cuda.hostAlloc(byteLength), (one) => cuda.hostFree(one));
  const [first, second] = [0, 1].map(() =>
    cleanup.adopt(cuda.malloc(byteLength), (one) => cuda.free(one))
  );
  const rate = (destination: bigint, source: bigint) =>
    rateOf(COPIES * byteLength, budgetMs / 4, () => {
      for (let i = 0; i < COPIES; i++) cuda.copy(destination, source, byteLength, stream);
      cuda.synchronizeStream(stream);
    });
  const common = { softwareDevice, failure: null };
  return [
    {
      ...common,
      path: "pinned host memory to device 0",
      forwardGBps: await rate(first, pinned),
      backGBps: await rate(pinned, first),
    },
    {
      ...common,
      path: "inside device 0",
      forwardGBps: await rate(second, first),
      backGBps: await rate(first, second),
    },
  ];
}
