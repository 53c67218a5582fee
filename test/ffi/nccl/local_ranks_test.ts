/** The ranks of one process, over the software NCCL. */
import assert from "node:assert/strict";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { LocalRanks } from "../../../ffi/nccl/local_ranks.ts";
import { bytesAt } from "../../../ffi/memory.ts";
import { configure, directory } from "../software_device/device.ts";
import { ncclTest } from "./device.ts";

for (const count of [2, 4]) {
  ncclTest(
    `local ranks: each of ${count} receives what all send, in the order of its stream`,
    async (libraries) => {
      const BYTES = 12, ROUNDS = 3;
      configure("devices=4,progress=0"); // a rank that is not waited for gets on for its peers alone
      const { nccl, faults } = libraries, before = faults.counts();
      const cuda = openCuda({ from: directory! });
      const devices = Array.from({ length: count }, (_, device) => device);
      const ranks = new LocalRanks(nccl, devices);
      const buffers = devices.map((device) => {
        cuda.setDevice(device);
        const from = cuda.malloc(BYTES), to = cuda.malloc(BYTES * count);
        return { from, to, stream: cuda.createStream() };
      });
      for (let round = 0; round < ROUNDS; round++) {
        buffers.forEach(({ from, stream }, rank) => {
          cuda.setDevice(rank);
          cuda.memset(from, 16 * round + rank, BYTES, stream);
        });
        ranks.allGather(buffers, BYTES);
      }
      const last = 16 * (ROUNDS - 1);
      const expected = devices.flatMap((rank) => Array(BYTES).fill(last + rank));
      buffers.forEach(({ to, stream }, rank) => {
        cuda.setDevice(rank);
        const at = cuda.hostAlloc(BYTES * count);
        cuda.copy(at, to, BYTES * count, stream);
        cuda.synchronizeStream(stream);
        assert.deepEqual([...bytesAt(at, BYTES * count)], expected, `rank ${rank}`);
        cuda.hostFree(at);
      });
      await ranks.close();
      buffers.forEach(({ from, to, stream }) => {
        for (const address of [from, to]) cuda.free(address);
        cuda.destroyStream(stream);
      });
      const { communicators, kernels, sockets, misuses } = faults.counts();
      assert.deepEqual({ communicators, kernels, sockets, misuses }, {
        ...{ communicators: before.communicators, kernels: before.kernels },
        ...{ sockets: before.sockets, misuses: before.misuses },
      });
    },
  );
}

ncclTest("local ranks: memory of another device is refused", async ({ nccl }) => {
  configure("devices=2");
  const cuda = openCuda({ from: directory! });
  const ranks = new LocalRanks(nccl, [0, 1]);
  cuda.setDevice(0);
  const memory = [cuda.malloc(64), cuda.malloc(64)];
  const streams = [0, 1].map((device) => {
    cuda.setDevice(device);
    return cuda.createStream();
  });
  const buffers = streams.map((stream, i) => ({ from: memory[i], to: memory[i], stream }));
  assert.throws(() => ranks.allGather(buffers, 8), /unhandled cuda error/);
  await ranks.close();
  for (const stream of streams) cuda.destroyStream(stream);
  for (const address of memory) cuda.free(address);
});

ncclTest("local ranks: a device that is named twice is refused", ({ nccl }) => {
  configure("devices=2");
  assert.throws(() => new LocalRanks(nccl, [0, 0]), /invalid usage.*Duplicate GPU detected/);
  return Promise.resolve();
});

Deno.test("local ranks: if one cannot be ended, the others have ended when that is told", async () => {
  const second = Promise.withResolvers<void>();
  let isTold = false;
  const ranks = new LocalRanks({
    initAll: () => [1n, 2n],
    ...{ groupStart: () => "success", groupEnd: () => "success", allGather: () => "success" },
    abort: (handle) => handle === 1n ? Promise.reject(new Error("no device")) : second.promise,
  }, [0, 1]);
  const closing = assert.rejects(ranks.close(), /no device/).then(() => isTold = true);
  await new Promise((resolve) => setTimeout(resolve));
  assert.ok(!isTold, "the second one still uses its device");
  second.resolve();
  await closing;
});
