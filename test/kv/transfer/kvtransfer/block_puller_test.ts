import assert from "node:assert/strict";
import { setImmediate as turn } from "node:timers/promises";
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
import { until, watch } from "../../../patience.ts";

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
  const readBeside: ProcessMemory["readBeside"] = async (...words) => {
    const copied = read(...words);
    await turn();
    return copied;
  };
  return { read, readBeside } as ProcessMemory;
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
  const pulling = puller.pull(order);
  await puller.stop("other");
  const stopping = puller.stop("m");
  const before = reads;
  await stopping;
  await assert.rejects(pulling, { name: "UnavailableError", message: "migration m was revoked" });
  assert.equal(reads, before);
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

/** A read that is under way until it is ended; nothing is copied. */
interface HeldRead {
  readonly first: number;
  readonly bytes: number;
  end(failure?: Error): void;
}

/** A pull of blocks of 4 MiB, each a piece, of which a test ends the reads. */
function setUpHeld() {
  const layout = { ...suiteLayout, numLayers: 4, numKvHeads: 8, headDim: 128, blockSize: 128 };
  assert.equal(blockBytes(layout), 4 << 20);
  const reads: HeldRead[] = [];
  const readBeside: ProcessMemory["readBeside"] = (_, from, into) => {
    const held = Promise.withResolvers<number>();
    const bytes = Number(into[1]);
    assert.deepEqual([from.length, into.length, Number(from[1])], [2, 2, bytes]);
    reads.push({
      ...{ first: Number(into[0]), bytes },
      end: (failure) => failure === undefined ? held.resolve(bytes) : held.reject(failure),
    });
    return held.promise;
  };
  const puller = new BlockPuller({ readBeside } as ProcessMemory, { address: 1n << 30n, layout });
  const { order } = setUp(memoryOf(1));
  const sourceBlocks = [0, 1, 2, 3, 4];
  const pulling = puller.pull({
    ...order,
    source: { ...order.source, address: 1n << 40n },
    ...{ sourceBlocks, destinationBlocks: sourceBlocks },
  });
  pulling.catch(() => {});
  return { pulling, reads, puller };
}

const hasLanes = { ignore: navigator.hardwareConcurrency < 2 };

Deno.test(
  "block puller: at full speed two threads copy, and each block once",
  hasLanes,
  async () => {
    const { pulling, reads } = setUpHeld();
    await until(() => reads.length === 2, "two reads are under way");
    for (let ended = 0; ended < 3; ended++) {
      reads[ended].end();
      await until(() => reads.length === ended + 3, "the next read is under way");
      for (let i = 0; i < 5; i++) await turn();
      assert.equal(reads.length, ended + 3);
    }
    for (const read of reads) read.end();
    await pulling;
    const places = reads.map(({ first, bytes }) => [first - 2 ** 30, bytes]).sort(([a], [b]) =>
      a - b
    );
    assert.deepEqual(places, [0, 1, 2, 3, 4].map((block) => [block * (4 << 20), 4 << 20]));
  },
);

Deno.test(
  "block puller: a pull that failed ends when no thread writes any more",
  hasLanes,
  async () => {
    const { pulling, reads, puller } = setUpHeld();
    await until(() => reads.length === 2, "two reads are under way");
    reads[0].end(new ProcessMemoryError("gone", "No such process"));
    const ends = [watch(pulling), watch(puller.stop("m"))];
    for (let i = 0; i < 20; i++) await turn();
    assert.deepEqual(ends.map(({ isSettled }) => isSettled), [false, false]);
    reads[1].end();
    await assert.rejects(pulling, { name: "UnavailableError", message: "No such process" });
    assert.equal(reads.length, 2);
  },
);
