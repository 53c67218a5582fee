/** What every implementation of `KvPool` must do, and bytes of a pool for other suites. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { UnavailableError } from "../../src/core/errors.ts";
import { blockBytes, type KvLayout, layerBytes } from "../../src/kv/layout.ts";
import { readRuns, writeRuns } from "../../src/kv/pool/copy_runs.ts";
import { describePool } from "../../src/kv/pool/open_pool.ts";
import type { KvPool } from "../../src/kv/pool/pool.ts";

export const poolLayout: KvLayout = {
  format: "k-transposed",
  dtype: "float32",
  numLayers: 4,
  numKvHeads: 2,
  headDim: 8,
  blockSize: 4,
};
export const POOL_BLOCKS = 7;

/** An implementation under test: opens a pool of {@linkcode POOL_BLOCKS} blocks of `poolLayout`. */
export interface PoolUnderTest {
  readonly name: string;
  open(): KvPool | Promise<KvPool>;
}

/** Registers the suite's tests. */
export function testKvPool({ name, open }: PoolUnderTest): void {
  const test = (title: string, body: (pool: KvPool) => Promise<void>) =>
    Deno.test(`KvPool ${name}: ${title}`, async () => {
      const pool = await open();
      try {
        await body(pool);
      } finally {
        if (pool.memory === "device") await pool.close();
      }
    });
  const block = blockBytes(poolLayout), layer = layerBytes(poolLayout);

  test("each run is its own layers of its own block", async (pool) => {
    await fill(pool, 5);
    const expected = expectedBytes(pool, 5);
    for (let i = 0; i < POOL_BLOCKS; i++) {
      for (let first = 0; first <= poolLayout.numLayers; first++) {
        for (let count = 0; first + count <= poolLayout.numLayers; count++) {
          const start = i * block + first * layer;
          const bytes = await readRuns(pool, [{ block: i, firstLayer: first, numLayers: count }]);
          assert.deepEqual(bytes, expected.slice(start, start + count * layer));
        }
      }
    }
  });

  test("what is written to a run changes that run alone", async (pool) => {
    await fill(pool, 1);
    const expected = expectedBytes(pool, 1);
    const bytes = Uint8Array.from({ length: 2 * bytesOf(pool, layer) }, (_, i) => 250 - i % 7);
    await writeRuns(pool, [{ block: 2, firstLayer: 1, numLayers: 2 }], bytes);
    expected.set(bytes, bytesOf(pool, 2 * block + layer));
    assert.deepEqual(await readAll(pool), expected);
  });

  test("blocks and layers that are not there are errors", async (pool) => {
    for (
      const [block, firstLayer, numLayers] of [
        [-1, 0, 1],
        [POOL_BLOCKS, 0, 1],
        [0, -1, 1],
        [0, 2, 3],
        [0, 1, -1],
        [NaN, 0, 1],
        [0.5, 0, 1],
        [0, 0.5, 1],
      ]
    ) {
      const run = { block, firstLayer, numLayers };
      await assert.rejects(readRuns(pool, [run]), RangeError, JSON.stringify(run));
    }
  });

  test("its description crosses to other threads, and says what it is", (pool) => {
    const { memory, layout, numBlocks, ...rest } = structuredClone(describePool(pool));
    assert.deepEqual([memory, layout, numBlocks], [pool.memory, pool.layout, pool.numBlocks]);
    const own = pool as unknown as Record<string, unknown>;
    for (const [key, value] of Object.entries(rest)) assert.deepEqual(value, own[key]);
    return Promise.resolve();
  });

  test("where it has addresses, block 0 is at the first", (pool) => {
    if (pool.memory === "none") assert.ok(!("address" in pool));
    else assert.ok(pool.address > 0n);
    return Promise.resolve();
  });

  Deno.test(`KvPool ${name}: several runs are copied at once, in their order`, async () => {
    const pool = await open();
    if (pool.memory !== "device") return; // other pools have views
    await fill(pool, 9);
    const runs = [[3, 1, 2], [0, 0, 4], [3, 0, 1], [6, 3, 1]].map(
      ([block, firstLayer, numLayers]) => ({ block, firstLayer, numLayers }),
    );
    const expected = await Promise.all(runs.map((run) => readRuns(pool, [run])));
    const together = await readRuns(pool, runs);
    assert.deepEqual(together, concatenated(expected));
    await fill(pool, 10);
    await pool.write(runs, together);
    assert.deepEqual(await readRuns(pool, runs), together);
    await pool.close();
  });

  Deno.test(`KvPool ${name}: copies that overlap are carried out in the order of the calls`, async () => {
    const pool = await open();
    if (pool.memory !== "device") return;
    const runs = [{ block: 4, firstLayer: 0, numLayers: 4 }];
    const [first, second] = [1, 2].map((value) => new Uint8Array(block).fill(value));
    const between = pool.allocateStaging(block), after = pool.allocateStaging(block);
    await Promise.all([
      pool.write(runs, first),
      pool.read(runs, between),
      pool.write(runs, second),
      pool.read(runs, after),
    ]);
    assert.deepEqual([between[0], after[0]], [1, 2]);
    await pool.close();
  });

  Deno.test(`KvPool ${name}: a buffer that does not fit its runs is refused; nothing is copied`, async () => {
    const pool = await open();
    if (pool.memory !== "device") return;
    await fill(pool, 3);
    const before = await readAll(pool);
    const runs = [{ block: 1, firstLayer: 0, numLayers: 1 }];
    for (const length of [0, layer - 1, layer + 1]) {
      await assert.rejects(pool.read(runs, new Uint8Array(length)), RangeError);
      await assert.rejects(pool.write(runs, new Uint8Array(length)), RangeError);
    }
    const missing = [...runs, { block: POOL_BLOCKS, firstLayer: 0, numLayers: 1 }];
    await assert.rejects(pool.write(missing, new Uint8Array(2 * layer)), RangeError);
    assert.deepEqual(await readAll(pool), before);
    await pool.close();
  });

  Deno.test(`KvPool ${name}: closed twice, it copies nothing any more`, async () => {
    const pool = await open();
    if (pool.memory !== "device") return;
    const runs = [{ block: 1, firstLayer: 0, numLayers: 1 }];
    const underWay = pool.read(runs, new Uint8Array(layer));
    await pool.close();
    await pool.close();
    await underWay;
    await assert.rejects(pool.read(runs, new Uint8Array(layer)), UnavailableError);
    await assert.rejects(pool.write(runs, new Uint8Array(layer)), UnavailableError);
    assert.throws(() => pool.allocateStaging(1), UnavailableError);
  });
}

/** `bytes`, or none in a pool that holds nothing. */
function bytesOf(pool: KvPool, bytes: number): number {
  return pool.memory === "none" ? 0 : bytes;
}

function byteAt(block: number, i: number, salt: number): number {
  return (block * 31 + i * 7 + (i >> 8) + salt * 101) & 255;
}

function blockOf(pool: KvPool, block: number, salt: number): Uint8Array<ArrayBuffer> {
  // Not `Uint8Array.from`: it takes twenty times as long, and the network suites fill megabytes often.
  const bytes = new Uint8Array(bytesOf(pool, blockBytes(pool.layout)));
  for (let i = 0; i < bytes.length; i++) bytes[i] = byteAt(block, i, salt);
  return bytes;
}

function expectedBytes(pool: KvPool, salt: number): Uint8Array<ArrayBuffer> {
  return concatenated(Array.from({ length: pool.numBlocks }, (_, i) => blockOf(pool, i, salt)));
}

function concatenated(parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(parts));
}

/** Gives every byte of a pool a value that says where it is. */
export async function fill(pool: KvPool, salt: number): Promise<void> {
  for (let block = 0; block < pool.numBlocks; block++) {
    const run = { block, firstLayer: 0, numLayers: pool.layout.numLayers };
    await writeRuns(pool, [run], blockOf(pool, block, salt));
  }
}

/** The bytes of each block. */
export async function contents(pool: KvPool): Promise<Uint8Array[]> {
  const blocks: Uint8Array[] = [];
  for (let block = 0; block < pool.numBlocks; block++) {
    blocks.push(await readRuns(pool, [{ block, firstLayer: 0, numLayers: pool.layout.numLayers }]));
  }
  return blocks;
}

async function readAll(pool: KvPool): Promise<Uint8Array<ArrayBuffer>> {
  return concatenated(await contents(pool));
}
