/**
 * Measures memcpy within one process, between buffers that are allocated like KV pools. Benchmarks divide the
 * speed of a transfer between two processes of one host by this speed.
 */
import { loadCpuKernels } from "../../ffi/cpu_kernels/load.ts";

/** Larger than every cache. */
const BUFFER_BYTES = 256 << 20;
/** As kvtransfer copies. */
const PIECE_BYTES = 4 << 20;

/** Copies `bytes` bytes, in one thread. Returns GB/s. */
export async function memoryCopy(bytes: number): Promise<number> {
  const kernels = await loadCpuKernels({ set: null, threads: 1 });
  const from = kernels.alloc(BUFFER_BYTES), to = kernels.alloc(BUFFER_BYTES);
  for (const buffer of [from, to]) kernels.bytes(buffer, BUFFER_BYTES).fill(1);
  const startedMs = performance.now();
  for (let copied = 0; copied < bytes; copied += PIECE_BYTES) {
    const offset = BigInt(copied % BUFFER_BYTES);
    kernels.copy(to + offset, from + offset, PIECE_BYTES);
  }
  const tookMs = performance.now() - startedMs;
  kernels.close();
  return bytes / tookMs / 1e6;
}
