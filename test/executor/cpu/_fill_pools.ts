/** Loads `llumnix-tiny` as an instance does and writes every block of both pools. */
import { engineDefaults } from "../../../src/cli/arguments/tables.ts";
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";
import { loadCpuExecutor } from "../../../src/executor/cpu/load.ts";
import { blockBytes } from "../../../src/kv/layout.ts";

const lines: string[] = [];
const executor = await loadCpuExecutor({
  device: "cpu",
  // Contexts so long and so many that nothing but the memory bounds the pools.
  options: {
    ...engineDefaults(),
    model: "llumnix-tiny",
    device: "cpu",
    cpuThreads: 1,
    preemptionMode: "swap",
    swapSpace: 0.125,
    maxNumSeqs: 100_000,
  },
  hostShare: 1,
}, ({ phase, totalBytes }) => lines.push(`${phase} ${totalBytes}`));
const { layout, numBlocks, numSwapBlocks } = executor.info;
const { blockSize } = layout;

/** Blocks that one prompt fills. */
const PROMPT_BLOCKS = 32;
const params: SamplingParams = {
  ...samplingDefaults,
  maxTokens: 1,
  temperature: 0,
  seed: 0,
  eosTokenIds: [],
};
let stepId = 0;

/** Computes a prompt into blocks of the device pool, after copying them out to the swap pool. */
async function write(blocks: readonly number[], swapOut: readonly number[] = []): Promise<void> {
  const numTokens = blocks.length * blockSize;
  const promptTokenIds: number[] = new Array(numTokens).fill(1);
  await executor.step({
    stepId,
    kind: "prefill",
    removed: stepId === 0 ? [] : [0],
    added: [{ handle: 0, params, promptTokenIds, outputTokenIds: [] }],
    swapOut: Int32Array.from(swapOut),
    swapIn: new Int32Array(),
    handles: Int32Array.of(0),
    tokenIds: Int32Array.from(promptTokenIds),
    queryStarts: Int32Array.of(0, numTokens),
    contextLens: Int32Array.of(numTokens),
    blockTables: Int32Array.from(blocks),
    maxBlocks: blocks.length,
  });
  stepId++;
}

for (let first = 0; first < numBlocks; first += PROMPT_BLOCKS) {
  const count = Math.min(PROMPT_BLOCKS, numBlocks - first);
  await write(Array.from({ length: count }, (_, i) => first + i));
}
await write([0], Array.from({ length: numSwapBlocks }, (_, i) => [i % numBlocks, i]).flat());
const poolBytes = (numBlocks + numSwapBlocks) * blockBytes(layout);
console.log(JSON.stringify({ numBlocks, numSwapBlocks, poolBytes, lines }));
await executor.close();
