/** Copies between the runs of any pool and buffers of the host, for backends that send bytes. */
import { layerBytes } from "../layout.ts";
import type { KvPool, PoolRun } from "./pool.ts";
import { checkRun } from "./pool_bounds.ts";

/**
 * Bytes of runs; 0 in a pool that holds nothing.
 * @throws {RangeError} the pool has no such run
 */
export function runBytes({ memory, layout, numBlocks }: KvPool, runs: readonly PoolRun[]): number {
  let layers = 0;
  for (const { block, firstLayer, numLayers } of runs) {
    checkRun(layout, numBlocks, block, firstLayer, numLayers);
    layers += numLayers;
  }
  return memory === "none" ? 0 : layers * layerBytes(layout);
}

/**
 * The bytes of runs, one after the other. Those of the host are copied before this returns.
 * @throws {RangeError} the pool has no such run
 * @throws {UnavailableError} the device failed, or the pool is closed
 */
export async function readRuns(
  pool: KvPool,
  runs: readonly PoolRun[],
): Promise<Uint8Array<ArrayBuffer>> {
  const bytes = new Uint8Array(runBytes(pool, runs));
  await readRunsInto(pool, runs, bytes);
  return bytes;
}

/**
 * Like {@linkcode readRuns}, into a buffer of {@linkcode runBytes} bytes.
 * @throws {RangeError} the pool has no such run
 * @throws {UnavailableError} the device failed, or the pool is closed
 */
export async function readRunsInto(
  pool: KvPool,
  runs: readonly PoolRun[],
  into: Uint8Array<ArrayBuffer>,
): Promise<void> {
  if (pool.memory === "device") return await pool.read(runs, into);
  let offset = 0;
  for (const { block, firstLayer, numLayers } of runs) {
    const view = pool.run(block, firstLayer, numLayers);
    into.set(view, offset);
    offset += view.length;
  }
}

/**
 * Writes runs, the inverse of {@linkcode readRuns}. Those of the host are written before this returns.
 * @param bytes {@linkcode runBytes} of them
 * @throws {RangeError} the pool has no such run
 * @throws {UnavailableError} the device failed, or the pool is closed
 */
export async function writeRuns(
  pool: KvPool,
  runs: readonly PoolRun[],
  bytes: Uint8Array<ArrayBuffer>,
): Promise<void> {
  if (pool.memory === "device") return await pool.write(runs, bytes);
  let offset = 0;
  for (const { block, firstLayer, numLayers } of runs) {
    const view = pool.run(block, firstLayer, numLayers);
    view.set(bytes.subarray(offset, offset += view.length));
  }
}
