import assert from "node:assert/strict";
import { realClock } from "../../../../src/core/clock.ts";
import { AccountedKvPool } from "../../../../src/kv/pool/accounted_kv_pool.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import { HostKvPool } from "../../../../src/kv/pool/host_kv_pool.ts";
import { blockBytes } from "../../../../src/kv/layout.ts";
import type { MappedPool } from "../../../../src/kv/pool/pool.ts";
import type { TransferLimits } from "../../../../src/kv/transfer/backend.ts";
import { InProcessBackend } from "../../../../src/kv/transfer/in_process/in_process_backend.ts";
import { PoolDirectory } from "../../../../src/kv/transfer/in_process/pool_directory.ts";
import { VirtualClock } from "../../../../src/sim/clock/virtual_clock.ts";
import {
  type BackendPair,
  type BackendUnderTest,
  SUITE_BLOCKS,
  suiteLayout,
  testMigrationBackend,
} from "../../../conformance/migration_backend.ts";

const bytes = blockBytes(suiteLayout);

function arrayPool(): MappedPool {
  return new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
}

function accountedPool(): MappedPool {
  return new AccountedKvPool(suiteLayout, SUITE_BLOCKS);
}

/** Memory of this process by its address, in segments of 10 blocks. */
function hostPool(): MappedPool {
  const memory = new Uint8Array(SUITE_BLOCKS * bytes);
  const address = Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory));
  const pool = new HostKvPool(BigInt(address), suiteLayout, SUITE_BLOCKS, 10 * bytes);
  return Object.assign(pool, { memory }); // lives as long as the pool
}

/** @param bytesPerMs on a virtual clock; null for as fast as it goes, on the real one */
function subject(
  name: string,
  newPool: () => MappedPool,
  bytesPerMs: number | null,
): BackendUnderTest {
  return {
    name,
    hasData: newPool !== accountedPool,
    open(limits: TransferLimits): Promise<BackendPair> {
      const directory = new PoolDirectory();
      const virtual = new VirtualClock();
      const clock = bytesPerMs === null ? realClock : virtual;
      const end = (instanceId: string) => {
        const pool = newPool();
        const pace = bytesPerMs === null ? {} : { bytesPerMs };
        const args = { instanceId, pool, directory, limits, clock, ...pace };
        return { pool, backend: new InProcessBackend(args) };
      };
      const source = end("source"), destination = end("destination");
      return Promise.resolve({
        source,
        destination,
        nowMs: () => clock.nowMs(),
        async settle<T>(promise: Promise<T>): Promise<T> {
          let isSettled = false;
          promise.then(() => isSettled = true, () => isSettled = true);
          if (clock === virtual) await virtual.runUntil(() => isSettled);
          return await promise;
        },
        close: async () => {
          await source.backend.close();
          await destination.backend.close();
        },
      });
    },
  };
}

testMigrationBackend(subject("in-process", arrayPool, null));
testMigrationBackend(subject("in-process, native memory", hostPool, null));
testMigrationBackend(subject("in-process, at a bandwidth", arrayPool, 1000));
testMigrationBackend(subject("simulated", accountedPool, 1000));

/**
 * Milliseconds that five blocks take at a block in 4 ms, in rounds of 2 blocks and a layer.
 * @param latestMs timers ring no earlier than so long after they were set
 */
async function transferMs(latestMs: number): Promise<number> {
  const clock = new VirtualClock();
  const directory = new PoolDirectory();
  const limits = { bufferBlocks: 2, numLayers: 1 };
  const newEnd = (instanceId: string) =>
    new InProcessBackend({
      instanceId,
      pool: accountedPool(),
      directory,
      limits,
      clock: {
        nowMs: () => clock.nowMs(),
        after: (delayMs, callback) => clock.after(Math.max(delayMs, latestMs), callback),
        soon: (callback) => clock.soon(callback),
      },
      bytesPerMs: bytes / 4,
    });
  const source = newEnd("a"), destination = newEnd("b");
  await destination.grant("m", [0, 1, 2, 3, 4]);
  let tookMs = -1;
  source.send({
    migrationId: "m",
    destination: { instanceId: "b", address: "inproc:b" },
    endpoint: destination.endpoint,
    sourceBlocks: [0, 1, 2, 3, 4],
    destinationBlocks: [4, 3, 2, 1, 0],
    deadlineMs: Infinity,
  }, new AbortController().signal).then((statistics) => tookMs = statistics.transferMs);
  await clock.runUntil(() => tookMs >= 0);
  assert.equal(clock.nowMs(), tookMs);
  return tookMs;
}

Deno.test("simulated backend: a transfer takes bytes / bandwidth", async () => {
  assert.equal(await transferMs(0), 20);
});

Deno.test("simulated backend: a transfer is late by one timer, not by one for each round", async () => {
  const ms = await transferMs(7);
  assert.ok(ms >= 20 && ms <= 27, `${ms} ms`);
});
