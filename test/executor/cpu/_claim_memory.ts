/** Loads the built-in model as an instance does, prints its blocks and bytes, and stays until stdin ends. */
import { engineDefaults } from "../../../src/cli/arguments/tables.ts";
import { loadCpuExecutor } from "../../../src/executor/cpu/load.ts";
import { blockBytes } from "../../../src/kv/layout.ts";

const executor = await loadCpuExecutor({
  device: "cpu",
  // Contexts so many that nothing but the memory bounds the pool.
  options: { ...engineDefaults(), device: "cpu", cpuThreads: 1, maxNumSeqs: 1_000_000 },
  hostShare: 1,
}, () => {});
const { layout, numBlocks } = executor.info;
console.log(numBlocks * blockBytes(layout));
await Deno.stdin.readable.pipeTo(new WritableStream());
Deno.exit(0);
