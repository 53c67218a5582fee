/** Steps by CUDA graphs: the same bits as launches one by one, and which steps have a graph. */
import assert from "node:assert/strict";
import type { GraphDriver } from "../../../ffi/cuda/graphs.ts";
import { DecodeGraphs } from "../../../src/executor/cuda/decode_graphs.ts";
import type { SequencePart } from "../../../src/executor/transformer/slices.ts";
import { isLongRun } from "../../long.ts";
import { counts } from "../../ffi/software_device/device.ts";
import { Driver, randomPrompt } from "../cpu/harness.ts";
import { cudaTest, load } from "./support.ts";

/** Rows of sequences with these contexts. */
function slice(contextLens: readonly number[], numRows = 1): SequencePart[] {
  return contextLens.map((contextLen, index) => ({
    ...{ index, firstRow: index, numRows, contextLen, isLast: true },
  }));
}

Deno.test("decode graphs: rows and contexts are rounded up", () => {
  const captured: string[] = [], launched: bigint[] = [], destroyed: bigint[] = [];
  const driver = {
    capture(_stream: bigint, enqueue: () => void) {
      enqueue();
      return BigInt(captured.length);
    },
    launch: (graph: bigint) => launched.push(graph),
    destroy: (graph: bigint) => destroyed.push(graph),
  };
  const graphs = new DecodeGraphs(driver as unknown as GraphDriver, 5n, {
    maxRows: 100,
    maxContextLen: 3000,
  });
  const roomFor = (contextLens: readonly number[], numRows?: number) => {
    const room = graphs.roomFor(slice(contextLens, numRows));
    return room === null ? null : [room.rows, room.contextLen];
  };
  assert.deepEqual(roomFor([1]), [1, 256]);
  assert.deepEqual(roomFor([256, 3, 257]), [4, 1024]);
  assert.deepEqual(roomFor(new Array(33).fill(1025)), [64, 3000]);
  assert.deepEqual(roomFor([3000]), [1, 3000]);
  assert.equal(roomFor([3001]), null, "longer than what is captured");
  assert.equal(roomFor([20], 2), null, "a prompt");
  assert.equal(roomFor(new Array(65).fill(9)), null, "more rows than a slice may have");
  for (const rows of [1, 2, 1]) {
    graphs.run({ rows, contextLen: 256 }, () => captured.push(`${rows}`));
  }
  assert.deepEqual(captured, ["1", "2"]);
  assert.deepEqual(launched, [1n, 2n, 1n]);
  graphs.close();
  assert.deepEqual([destroyed, graphs.size], [[1n, 2n], 0]);
});

cudaTest("graphs and launches one by one give the same bits", async () => {
  const prompts = [250, 3, 40].map((length, i) => randomPrompt(i, length, 256));
  const before = counts();
  const run = async (options: { enforceEager?: boolean; maxSeqLenToCapture?: number }) => {
    // On the software device tensor cores are slow.
    const executor = await load({
      ...{ dtype: isLongRun ? "bfloat16" : "auto", maxModelLen: 300, maxNumSeqs: 4 },
      ...options,
    });
    const driver = new Driver(executor);
    const sequences = prompts.map((prompt) => driver.add(prompt, { logprobs: 261 }));
    await driver.prefill(...sequences);
    // The longest gets a second part, and a row of the graph is empty.
    for (let i = 0; i < 9; i++) await driver.decode(...sequences);
    const { graphs } = counts();
    await executor.close();
    const outputs = sequences.map(({ output, logprobs }) => ({ output, logprobs }));
    return { graphs: graphs - before.graphs, outputs };
  };
  const eager = await run({ enforceEager: true });
  assert.equal(eager.graphs, 0);
  const recorded = await run({});
  assert.equal(recorded.graphs, 2, "4 rows, contexts up to 256 and up to 300");
  assert.deepEqual(recorded.outputs, eager.outputs);
  const some = await run({ maxSeqLenToCapture: 256 });
  assert.equal(some.graphs, 1, "longer contexts run eagerly");
  assert.deepEqual(some.outputs, eager.outputs);
  assert.deepEqual(counts(), before);
});
