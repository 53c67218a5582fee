/** Prompts by cuBLASLt: on the software device, in products of 16 rows. */
import assert from "node:assert/strict";
import { loadCudaExecutor } from "../../../src/executor/cuda/load.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { layoutDifference } from "../../../src/kv/layout.ts";
import { configure, counts, directory } from "../../ffi/software_device/device.ts";
import { withModel } from "../cpu/fixtures.ts";
import { defaultOptions, Driver, randomPrompt, type TestSequence } from "../cpu/harness.ts";
import { cudaTest, settings } from "./support.ts";

const TILE_ROWS = 16, OUTPUT_TOKENS = 4;
/** Without a whole product, with one, with several and a rest. */
const prompts = [9, 16, 55, 33].map((length, i) => randomPrompt(i, length, 256));

function load(
  model: string,
  cudaPromptGemm: "own" | "cublaslt",
  given: { from?: string; deviceSettings?: string; maxModelLen?: number } = {},
): Promise<Executor> {
  // Results that differ from the own kernels' more than another order of sums would make them.
  const { from = directory!, deviceSettings = "skew-products=2", maxModelLen = 64 } = given;
  configure(`${settings},${deviceSettings}`);
  const options = {
    ...defaultOptions,
    ...{ device: "cuda", allowSharedDevice: true, dtype: "bfloat16", maxNumSeqs: 4 } as const,
    ...{ model, cudaPromptGemm, maxModelLen },
  };
  const spec = { device: "cuda", options, hostShare: 3 } as const;
  return loadCudaExecutor(spec, () => {}, { from }, undefined, TILE_ROWS);
}

async function run<T>(
  executor: Executor,
  use: (driver: Driver, sequences: TestSequence[]) => Promise<void>,
) {
  try {
    const driver = new Driver(executor, 7);
    const sequences = prompts.map((prompt) => driver.add(prompt, { logprobs: 320 }));
    await use(driver, sequences);
    return sequences.map(({ output, logprobs }) => ({ output, logprobs }));
  } finally {
    await executor.close();
  }
}

/** Each prompt in steps of its own. */
function runAlone(executor: Executor) {
  return run(executor, async (driver, sequences) => {
    for (const sequence of sequences) await driver.generate(sequence, OUTPUT_TOKENS);
  });
}

const family = "--family qwen2 --seed 11 --head-dim 32 --layers 1 --dtype f32";

cudaTest("prompts by cuBLASLt have the same bits alone, in pieces and recomputed", async () => {
  await withModel(family, async (model) => {
    const before = counts();
    const executor = await load(model, "cublaslt");
    assert.deepEqual(executor.info.warnings, []);
    const alone = await runAlone(executor);
    assert.deepEqual(counts(), before, "nothing is left");

    // A slice has 64 rows, so that steps of all prompts are cut within a product.
    const together = await run(await load(model, "cublaslt"), async (driver, sequences) => {
      await driver.prefill(...sequences);
      for (let i = 1; i < OUTPUT_TOKENS; i++) await driver.decode(...sequences);
    });
    assert.deepEqual(together, alone, "in a batch");

    const recomputed = await run(await load(model, "cublaslt"), async (driver, sequences) => {
      await driver.prefill(...sequences);
      for (let i = 1; i < OUTPUT_TOKENS; i++) {
        sequences.forEach((sequence) => driver.forget(sequence));
        await driver.prefill(...sequences);
      }
    });
    assert.deepEqual(recomputed, alone, "recomputed");

    const own = await runAlone(await load(model, "own"));
    assert.deepEqual(own[0], alone[0], "a prompt shorter than a product");
    const longer = (outcome: typeof own) => outcome.slice(1);
    assert.notDeepEqual(longer(own), longer(alone), "the library computes");
  });
});

cudaTest("instances that compute prompts otherwise exchange no blocks, and say why", async () => {
  await withModel(family, async (model) => {
    const executors = [
      await load(model, "cublaslt"),
      await load(model, "cublaslt"),
      await load(model, "own"),
    ];
    const [one, same, own] = executors.map(({ info }) => info.layout);
    for (const executor of executors) await executor.close();
    assert.equal(layoutDifference(one, same), null);
    assert.match(
      layoutDifference(own, one)!,
      /^promptProducts is undefined here and cuBLASLt 130000, 16 rows, algorithms \w{16} there$/,
    );
    assert.match(layoutDifference(one, own)!, /^promptProducts is cuBLASLt/);
  });
});

cudaTest("without cuBLASLt, or with one that fails its test, the own kernels serve", async () => {
  await withModel(family, async (model) => {
    const own = await runAlone(await load(model, "own"));
    const others = await Deno.makeTempDir();
    try {
      for (const { name } of Deno.readDirSync(directory!)) {
        if (!name.startsWith("libcublasLt")) {
          await Deno.symlink(`${directory}${name}`, `${others}/${name}`);
        }
      }
      const cases = [
        [{ from: `${others}/` }, /because cuBLASLt cannot: .*libcublasLt/],
        [
          { deviceSettings: "skew-products=1" },
          /libcublasLt.* gives equal rows of a layer of \d+ inputs and \d+ outputs different results$/,
        ],
      ] as const;
      for (const [given, warning] of cases) {
        const executor = await load(model, "cublaslt", given);
        const { warnings = [], layout } = executor.info;
        assert.equal(warnings.length, 1);
        assert.match(
          warnings[0],
          /^--cuda-prompt-gemm cublaslt: the program's own kernels compute/,
        );
        assert.match(warnings[0], warning);
        assert.equal(layout.promptProducts, undefined);
        assert.deepEqual(await runAlone(executor), own);
      }
    } finally {
      configure("skew-products=0");
      await Deno.remove(others, { recursive: true });
    }
  });
});
