/** Several devices' transfers as one: what the devices' backends do is made up here. */
import assert from "node:assert/strict";
import { realClock } from "../../../../src/core/clock.ts";
import { UnavailableError } from "../../../../src/core/errors.ts";
import type { BlockTransfer } from "../../../../src/kv/transfer/backend.ts";
import {
  type ShardBackend,
  ShardedNcclBackend,
} from "../../../../src/kv/transfer/nccl/sharded_nccl_backend.ts";
import { suiteLayout } from "../../../conformance/migration_backend.ts";

type Send = ShardBackend["send"];

/** A backend of as many devices as there are functions that send. */
function backendOf(sends: readonly Send[]): ShardedNcclBackend {
  const layout = { ...suiteLayout, shards: sends.length };
  const backends = sends.map((send, i): ShardBackend => ({
    endpoint: { model: "m", layout: suiteLayout, device: `GPU-${i}` },
    isReady: true,
    failed: new Promise(() => {}),
    calls: { migrate_backend: () => ({ data: null }) },
    join: () => Promise.resolve([]),
    grant: () => Promise.resolve(),
    revoke: () => Promise.resolve(),
    send,
    close: () => Promise.resolve(),
  }));
  return new ShardedNcclBackend({ model: "m", layout, clock: realClock, backends });
}

function sendOn(backend: ShardedNcclBackend, signal = new AbortController().signal) {
  const transfer: BlockTransfer = {
    migrationId: "m",
    destination: { instanceId: "b", address: "tcp:127.0.0.1:1" },
    endpoint: backend.endpoint,
    ...{ sourceBlocks: [1], destinationBlocks: [2], deadlineMs: Infinity },
  };
  return backend.send(transfer, signal);
}

Deno.test("sharded nccl: if one device fails, the others end before the blocks are free", async () => {
  let isReading = true;
  const backend = backendOf([
    () => Promise.reject(new UnavailableError("the first device failed")),
    async (_, signal) => {
      await new Promise((resolve) => signal.addEventListener("abort", resolve));
      await new Promise((resolve) => setTimeout(resolve, 5)); // NCCL aborts
      isReading = false;
      throw new UnavailableError("aborted");
    },
  ]);
  await assert.rejects(sendOn(backend), { message: "the first device failed" });
  assert.equal(isReading, false);
});

Deno.test("sharded nccl: each device gets its own endpoint, and what is sent is added up", async () => {
  const devices: unknown[] = [];
  const statistics = { bytes: 10, descriptors: 3, rounds: 1, transferMs: 4 };
  const send: Send = ({ endpoint }) => {
    devices.push(endpoint.device);
    return Promise.resolve(statistics);
  };
  const { bytes, descriptors, rounds } = await sendOn(backendOf([send, send]));
  assert.deepEqual(devices, ["GPU-0", "GPU-1"]);
  assert.deepEqual([bytes, descriptors, rounds], [20, 3, 1]);
});
