import assert from "node:assert/strict";
import { type ProcessMemory, ProcessMemoryError } from "../../../../ffi/process_memory.ts";
import { bytesAt } from "../../../../ffi/memory.ts";
import { blockBytes } from "../../../../src/kv/layout.ts";
import { ArrayKvPool } from "../../../../src/kv/pool/array_kv_pool.ts";
import {
  BlockPuller,
  type PullOrder,
} from "../../../../src/kv/transfer/kvtransfer/block_puller.ts";
import {
  type HostProcess,
  thisProcess,
} from "../../../../src/kv/transfer/kvtransfer/host_process.ts";
import { SUITE_BLOCKS, suiteLayout } from "../../../conformance/migration_backend.ts";

const blocks = [4, 5, 6, 1, 9];

/** A system call that copies at most so many bytes, after `before`. */
function memoryOf(mostBytes: number, before = () => {}): ProcessMemory {
  const read: ProcessMemory["read"] = (_, from, into) => {
    before();
    // The bytes of the first place of each list, as far as both go.
    const length = Math.min(mostBytes, Number(from[1]), Number(into[1]));
    bytesAt(into[0], length).set(bytesAt(from[0], length));
    return length;
  };
  return { read } as ProcessMemory;
}

function setUp(memory: ProcessMemory, process: HostProcess = thisProcess()) {
  const from = new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
  const into = new ArrayKvPool(suiteLayout, SUITE_BLOCKS);
  from.bytes.forEach((_, i) => from.bytes[i] = i * 31 + (i >> 8));
  const puller = new BlockPuller(memory, { address: into.address, layout: suiteLayout });
  const order: PullOrder = {
    generation: "g",
    migrationId: "m",
    source: { process, address: from.address, ucx: null },
    sourceBlocks: blocks,
    destinationBlocks: blocks.toReversed(),
    timeoutMs: 10_000,
    isBackground: false,
  };
  return { from, into, puller, order };
}

Deno.test("block puller: copies that end early go on where they ended", async () => {
  const { from, into, puller, order } = setUp(memoryOf(1_000));
  await puller.pull(order);
  const bytes = blockBytes(suiteLayout);
  blocks.forEach((block, i) => {
    const place = (pool: ArrayKvPool, at: number) =>
      pool.bytes.subarray(at * bytes, (at + 1) * bytes);
    assert.deepEqual(place(into, order.destinationBlocks[i]), place(from, block));
  });
});

Deno.test("block puller: after a stop nothing is read, and the pull fails", async () => {
  let reads = 0;
  const { puller, order } = setUp(memoryOf(10, () => reads++));
  const pulling = puller.pull({ ...order, isBackground: true });
  await puller.stop("other");
  const stopping = puller.stop("m");
  const before = reads;
  await stopping;
  await assert.rejects(pulling, { name: "UnavailableError", message: "migration m was revoked" });
  assert.equal(reads, before);
});

Deno.test("block puller: at full speed another thread's stop ends a pull before its next piece", async () => {
  const stopWord = new Int32Array(new SharedArrayBuffer(4));
  let reads = 0;
  const stopAtThird = () => {
    if (++reads === 3) Atomics.store(stopWord, 0, 1);
  };
  const { puller, order } = setUp(memoryOf(10, stopAtThird));
  await assert.rejects(puller.pull({ ...order, stopWord }), /migration m was revoked/);
  assert.equal(reads, 3);
});

Deno.test("block puller: a long pull at full speed leaves its thread's event loop turns", async () => {
  let reads = 0;
  const readSlowly = () => {
    reads++;
    for (const endMs = performance.now() + 20; performance.now() < endMs;);
  };
  const { puller, order } = setUp(memoryOf(10, readSlowly));
  const pulling = puller.pull(order);
  const stopping = puller.stop("m");
  await assert.rejects(pulling, /migration m was revoked/);
  await stopping;
  assert.equal(reads, 1);
});

Deno.test("block puller: nothing is read after the deadline", async () => {
  const { puller, order } = setUp(memoryOf(10));
  await assert.rejects(puller.pull({ ...order, timeoutMs: -1 }), /deadline has passed/);
});

Deno.test("block puller: if the source ends meanwhile, what was read counts for nothing", async () => {
  const child = new Deno.Command("sleep", { args: ["600"] }).spawn();
  const stat = () => Deno.readTextFileSync(`/proc/${child.pid}/stat`).split(") ")[1].split(" ");
  const process = { ...thisProcess(), pid: child.pid, startTicks: Number(stat()[19]) };
  const kill = () => {
    if (stat()[0] === "Z") return;
    child.kill("SIGKILL");
    while (stat()[0] !== "Z"); // its parent, this process, does not run in between
  };
  // As if another process had got the number at once: reading goes on.
  const { puller, order } = setUp(memoryOf(1 << 20, kill), process);
  await assert.rejects(puller.pull(order), /process \d+, the source, has ended/);
  await child.status;
});

Deno.test("block puller: what the system forbids comes with advice", async () => {
  const forbid = () => {
    throw new ProcessMemoryError("forbidden", "cannot read: Operation not permitted");
  };
  const { puller, order } = setUp(memoryOf(1, forbid));
  await assert.rejects(puller.pull(order), /Operation not permitted .*kernel.yama.ptrace_scope/);
});
