/** The CUDA executor on the software device: the suite of executors, and what must not change a bit. */
import assert from "node:assert/strict";
import { DeviceLostError } from "../../../ffi/cuda/errors.ts";
import type { EngineOptions } from "../../../src/core/options.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { readRuns, writeRuns } from "../../../src/kv/pool/copy_runs.ts";
import type { DevicePool } from "../../../src/kv/pool/pool.ts";
import { makeModel, parseMakeModelArgs } from "../../../scripts/make_model.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { configure, counts, directory, reset } from "../../ffi/software_device/device.ts";
import { quantizeCheckpoint } from "../../model/fp8_checkpoint.ts";
import { isLongRun } from "../../long.ts";
import { spoil, withModel } from "../cpu/fixtures.ts";
import { Driver, randomPrompt, type TestSequence } from "../cpu/harness.ts";
import { cudaTest, load } from "./support.ts";

if (directory !== null) {
  // One layer: the suite runs hundreds of steps, and the software device is slow.
  const model = Deno.makeTempDirSync({ prefix: "cuda-executor-" });
  addEventListener("unload", () => Deno.removeSync(model, { recursive: true }));
  const shape = ["--layers", "1", "--heads", "2", "--kv-heads", "1", "--hidden", "32"];
  makeModel(parseMakeModelArgs(["--out", model, ...shape, "--vocab", "264"]));
  testExecutor("cuda executor", () => load({ model }));
  if (isLongRun) {
    const narrow = { quantization: "fp8", kvCacheDtype: "fp8" } as const;
    testExecutor("cuda executor in bfloat16", () => load({ model, dtype: "bfloat16" }));
    testExecutor(
      "cuda executor in 8 bits",
      () => load({ model, dtype: "bfloat16", ...narrow }),
    );
  }
} else {
  cudaTest("passes the suite of executors", () => {});
}

const OUTPUT_TOKENS = 10;
const prompts = [1, 15, 33, 17].map((length, i) => randomPrompt(i, length, 256));

/** Tokens, and the bits of all logits, of each prompt. */
function outcome(sequences: readonly TestSequence[]) {
  return sequences.map(({ output, logprobs }) => ({ output, logprobs }));
}

/** Runs in an executor of its own. */
async function fresh<T>(
  options: Parameters<typeof load>[0],
  run: (executor: Executor, driver: Driver) => Promise<T>,
): Promise<T> {
  const executor = await load(options);
  try {
    return await run(executor, new Driver(executor, 7));
  } finally {
    await executor.close();
  }
}

const types: readonly Pick<EngineOptions, "dtype" | "quantization" | "kvCacheDtype">[] = [
  { dtype: "bfloat16", quantization: null, kvCacheDtype: "auto" },
  { dtype: "float16", quantization: null, kvCacheDtype: "auto" },
  { dtype: "bfloat16", quantization: "fp8", kvCacheDtype: "fp8" },
];

for (const type of types) {
  const name = Object.values(type).filter((value) => value !== null).join(", ");
  cudaTest(`the same bits alone, in a batch, recomputed and moved: ${name}`, async () => {
    await withModel(
      "--family qwen3 --seed 11 --head-dim 32 --layers 1 --dtype f32",
      async (model) => {
        const options = { model, ...type };
        const params = { logprobs: 320 };
        const alone = await fresh(options, async (_, driver) => {
          const sequences: TestSequence[] = [];
          for (const prompt of prompts) {
            sequences.push(driver.add(prompt, params));
            await driver.generate(sequences.at(-1)!, OUTPUT_TOKENS);
          }
          return outcome(sequences);
        });
        assert.ok(new Set(alone.flatMap(({ output }) => output)).size > 10, "outputs vary");
        const addAll = (driver: Driver) => prompts.map((prompt) => driver.add(prompt, params));

        const batched = await fresh(options, async (_, driver) => {
          const sequences = addAll(driver);
          await driver.prefill(...sequences);
          for (let i = 1; i < OUTPUT_TOKENS; i++) await driver.decode(...sequences);
          return outcome(sequences);
        });
        assert.deepEqual(batched, alone, "in a batch");

        const recomputed = await fresh(options, async (_, driver) => {
          const sequences = addAll(driver);
          await driver.prefill(...sequences);
          for (let i = 1; i < OUTPUT_TOKENS; i++) {
            // Its newest token comes from a prefill of all that precedes it.
            const lost = sequences[i % sequences.length];
            driver.forget(lost);
            await driver.prefill(lost);
            await driver.decode(...sequences.filter((sequence) => sequence !== lost));
          }
          return outcome(sequences);
        });
        assert.deepEqual(recomputed, alone, "recomputed");

        const moved = await fresh(
          options,
          (source, sourceDriver) =>
            fresh(options, async (destination, driver) => {
              const sequences = addAll(sourceDriver);
              await sourceDriver.prefill(...sequences);
              for (let i = 1; i < 5; i++) await sourceDriver.decode(...sequences);
              const arrived = sequences.map(({ prompt, output, logprobs }) => {
                const sequence = driver.add(prompt, params);
                driver.arrive(sequence, output);
                sequence.logprobs.push(...logprobs);
                return sequence;
              });
              await copyBlocks(
                source.pool as DevicePool,
                sequences.flatMap(({ blocks }) => blocks),
                destination.pool as DevicePool,
                arrived.flatMap(({ blocks }) => blocks),
              );
              while (arrived[0].output.length < OUTPUT_TOKENS) await driver.decode(...arrived);
              return outcome(arrived);
            }),
        );
        assert.deepEqual(moved, alone, "moved");
      },
    );
  });
}

cudaTest("a checkpoint in 8 bits gives the bits of the model that it was made of", async () => {
  const shape = "--seed 3 --layers 1 --dtype bf16";
  await withModel(shape, (model) =>
    withModel(shape, async (checkpoint) => {
      quantizeCheckpoint(checkpoint, { scales: "output" });
      const run = (model: string) =>
        fresh({ model, quantization: "fp8" }, async (_, driver) => {
          const sequence = driver.add(randomPrompt(1, 20, 256), { logprobs: 320 });
          await driver.generate(sequence, 3);
          return outcome([sequence]);
        });
      assert.deepEqual(await run(checkpoint), await run(model));
    }));
});

async function copyBlocks(
  source: DevicePool,
  from: readonly number[],
  destination: DevicePool,
  to: readonly number[],
): Promise<void> {
  assert.equal(from.length, to.length);
  const whole = (block: number) => ({
    ...{ block, firstLayer: 0, numLayers: source.layout.numLayers },
  });
  await writeRuns(destination, to.map(whole), await readRuns(source, from.map(whole)));
}

cudaTest("a context that gets a second part, and a batch longer than a slice", async () => {
  const options = { maxModelLen: 270, maxNumSeqs: 4 }; // a slice has 270 rows
  const prompts = [252, 40].map((length, i) => randomPrompt(5 + i, length, 256));
  const alone = await fresh(options, async (_, driver) => {
    const sequences = prompts.map((prompt) => driver.add(prompt, { logprobs: 3 }));
    for (const sequence of sequences) await driver.generate(sequence, 8);
    return outcome(sequences);
  });
  const together = await fresh(options, async (_, driver) => {
    const sequences = prompts.map((prompt) => driver.add(prompt, { logprobs: 3 }));
    await driver.prefill(...sequences);
    for (let i = 1; i < 8; i++) await driver.decode(...sequences);
    return outcome(sequences);
  });
  assert.deepEqual(together, alone);
});

cudaTest("a piece of a prompt is in the cache when its step has ended", async () => {
  await fresh({}, async (executor) => {
    const tokens = 16, { layout } = executor.info;
    await executor.step({
      ...{ stepId: 1, kind: "prefill", isPartial: true, removed: [], added: [] },
      ...{ swapOut: new Int32Array(), swapIn: new Int32Array(), handles: Int32Array.of(0) },
      tokenIds: new Int32Array(tokens).fill(5),
      queryStarts: Int32Array.of(0, tokens),
      contextLens: Int32Array.of(tokens),
      ...{ blockTables: Int32Array.of(3), maxBlocks: 1 },
    });
    const run = { block: 3, firstLayer: 0, numLayers: layout.numLayers };
    const values = new Float32Array((await readRuns(executor.pool!, [run])).buffer);
    assert.ok(values.every(Number.isFinite), "fresh memory of the device is NaN");
  });
});

cudaTest("a model that computes garbage fails the sequence", async () => {
  await withModel("--dtype f32", (model) => {
    spoil(`${model}/model.safetensors`, "model.embed_tokens.weight", 7);
    return fresh({ model }, async (_, driver) => {
      const { failures, tokenIds } = await driver.prefill(
        driver.add([1, 2, 7]),
        driver.add([1, 2, 3]),
      );
      assert.deepEqual(failures!.map((failure) => failure?.kind), ["model", undefined]);
      assert.match(failures![0]!.message, /NaN: the model computed garbage/);
      assert.ok(tokenIds[1] >= 0);
    });
  });
});

for (const type of types) {
  const name = Object.values(type).filter((value) => value !== null).join(", ");
  cudaTest(`garbage in its blocks does not reach the next sequence: ${name}`, async () => {
    await withModel("--family qwen3 --seed 11 --layers 1 --dtype f32", async (model) => {
      spoil(`${model}/model.safetensors`, "model.embed_tokens.weight", 7);
      const run = (deviceSettings: string, use: (driver: Driver) => Promise<void>) =>
        fresh(
          { model, ...type, numGpuBlocksOverride: 4, maxModelLen: 64, deviceSettings },
          async (_, driver) => {
            await use(driver);
            const sequence = driver.add(randomPrompt(1, 20, 6), { logprobs: 320 });
            await driver.generate(sequence, 14); // into a third block
            return outcome([sequence]);
          },
        );
      const clean = await run("poison=0", () => Promise.resolve());
      assert.ok(clean[0].output.every((token) => token >= 0));
      assert.deepEqual(await run("poison=1", () => Promise.resolve()), clean, "fresh blocks");
      const reused = await run("poison=1", async (driver) => {
        const spoiled = driver.add(new Array(64).fill(7)); // all four blocks
        const { failures } = await driver.prefill(spoiled);
        assert.equal(failures![0]?.kind, "model");
        driver.remove(spoiled);
      });
      assert.deepEqual(reused, clean, "blocks that hold NaN");
    });
  });
}

cudaTest("nothing is left when it is closed", async () => {
  const before = counts();
  await fresh({}, (_, driver) => driver.prefill(driver.add([1, 2, 3], { logprobs: 1 })));
  assert.deepEqual(counts(), before);
});

cudaTest(
  "a kernel that fails ends the step with error 700, and close frees what it can",
  async () => {
    const executor = await load();
    const driver = new Driver(executor);
    await driver.prefill(driver.add([1, 2, 3]));
    configure("fail-work=5");
    await assert.rejects(
      driver.prefill(driver.add([4, 5, 6])),
      (error: Error) => error instanceof DeviceLostError && error.code === 700,
    );
    await executor.close();
    reset();
  },
);
