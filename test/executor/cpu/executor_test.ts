/** What must not change a sequence's tokens: company, preemption, where its blocks are. */
import assert from "node:assert/strict";
import type { DType } from "../../../src/core/dtype.ts";
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import { Random } from "../../../src/core/random.ts";
import type { Executor } from "../../../src/executor/executor.ts";
import { spoil, withModel } from "./fixtures.ts";
import { Driver, kernelSets, load, randomPrompt, type TestSequence } from "./harness.ts";

const dtypes: readonly DType[] = ["float32", "float16", "bfloat16"];

/** Eight prompts of different lengths; half of them sampled, half greedy. */
const requests = Array.from({ length: 8 }, (_, i) => ({
  prompt: randomPrompt(i, [1, 15, 16, 17, 40, 7, 64, 33][i], 256),
  params: (i % 2 ? { temperature: 1, topP: 0.9, seed: i } : {}) as Partial<SamplingParams>,
}));
const outputTokens = 40;

async function aloneTokens(executor: Executor): Promise<number[][]> {
  const driver = new Driver(executor);
  const outputs: number[][] = [];
  for (const { prompt, params } of requests) {
    const sequence = driver.add(prompt, params);
    outputs.push(await driver.generate(sequence, outputTokens));
    driver.remove(sequence);
  }
  await driver.prefill(driver.add([1])); // Delivers the last removal.
  return outputs;
}

function outputs(sequences: readonly TestSequence[]): number[][] {
  return sequences.map((sequence) => sequence.output);
}

for (const cpuKernels of kernelSets) {
  for (const dtype of dtypes) {
    Deno.test(`same tokens alone, batched, swapped and recomputed: ${dtype} on ${cpuKernels}`, async () => {
      await withModel("--family qwen3 --seed 11 --head-dim 32 --dtype f32", async (model) => {
        const alone = await runFresh(aloneTokens);
        assert.ok(new Set(alone.flat()).size > 40, "outputs vary");
        assert.deepEqual(await runFresh(batched), alone, "in a batch of 8");
        assert.deepEqual(await runFresh(swapped), alone, "after swapping");
        assert.deepEqual(await runFresh(recomputed), alone, "after recomputation");

        async function runFresh(run: (executor: Executor) => Promise<number[][]>) {
          const executor = await load({ model, cpuKernels, dtype });
          const tokens = await run(executor);
          await executor.close();
          return tokens;
        }
      });
    });
  }
}

async function batched(executor: Executor): Promise<number[][]> {
  const driver = new Driver(executor, 2);
  const sequences = requests.map(({ prompt, params }) => driver.add(prompt, params));
  await driver.prefill(...sequences);
  for (let i = 1; i < outputTokens; i++) await driver.decode(...sequences);
  return outputs(sequences);
}

/** At random times sequences leave for the swap pool and come back to other blocks. */
async function swapped(executor: Executor): Promise<number[][]> {
  const driver = new Driver(executor, 3);
  const random = new Random(3);
  const sequences = requests.map(({ prompt, params }) => driver.add(prompt, params));
  await driver.prefill(...sequences);
  let swaps = 0;
  for (;;) {
    const unfinished = sequences.filter((sequence) => sequence.output.length < outputTokens);
    if (unfinished.length === 0) break;
    for (const sequence of unfinished) {
      if (sequence.swapped.length > 0) driver.swapIn(sequence);
      else if (random.below(8) === 0) {
        driver.swapOut(sequence);
        swaps++;
      }
    }
    const running = unfinished.filter((sequence) => sequence.swapped.length === 0);
    if (running.length > 0) await driver.decode(...running);
  }
  assert.ok(swaps > 10);
  return outputs(sequences);
}

/** At random times sequences lose their blocks and are prefilled again, outputs included. */
async function recomputed(executor: Executor): Promise<number[][]> {
  const driver = new Driver(executor, 4);
  const random = new Random(4);
  const sequences = requests.map(({ prompt, params }) => driver.add(prompt, params));
  await driver.prefill(...sequences);
  for (;;) {
    const unfinished = sequences.filter((sequence) => sequence.output.length < outputTokens);
    if (unfinished.length === 0) break;
    const lost = unfinished.filter(() => random.below(8) === 0);
    lost.forEach((sequence) => driver.forget(sequence));
    if (lost.length > 0) await driver.prefill(...lost);
    else await driver.decode(...unfinished);
  }
  return outputs(sequences);
}

// WASM threads are workers of the program's main module, which in a test is the test.
const threadedSets = kernelSets.filter((set) => set !== "wasm");

Deno.test({
  name: "same tokens on one thread and on two",
  ignore: threadedSets.length === 0,
  async fn() {
    const tokens = async (cpuThreads: number) => {
      const executor = await load({ cpuKernels: threadedSets[0], cpuThreads });
      const result = await aloneTokens(executor);
      await executor.close();
      return result;
    };
    assert.deepEqual(await tokens(2), await tokens(1));
  },
});

Deno.test("a prompt longer than a slice: where it is cut does not matter", async () => {
  const options = { maxModelLen: 1024, numGpuBlocksOverride: 192 };
  const prompt = randomPrompt(5, 700, 256);
  const params = { logprobs: 3, promptLogprobs: 3 };
  const executor = await load(options);
  const driver = new Driver(executor);
  const alone = driver.add(prompt, params);
  await driver.generate(alone, 8);
  assert.equal(alone.promptLogprobs!.length, prompt.length);
  assert.equal(alone.promptLogprobs![0], null);
  assert.deepEqual(
    alone.promptLogprobs!.slice(1).map((entry) => entry!.tokenId),
    prompt.slice(1),
  );

  const first = driver.add(randomPrompt(6, 301, 256));
  const second = driver.add(prompt, params);
  await driver.prefill(first, second);
  for (let i = 1; i < 8; i++) await driver.decode(first, second);
  assert.deepEqual(second.output, alone.output);
  assert.deepEqual(second.logprobs, alone.logprobs);
  assert.deepEqual(second.promptLogprobs, alone.promptLogprobs);

  driver.forget(second);
  const { promptLogprobs } = await driver.prefill(second);
  assert.equal(promptLogprobs, undefined, "a recomputed prefill scores nothing again");
  await executor.close();
});

Deno.test("float16 and bfloat16 are close to float32", async () => {
  await withModel("--family llama --seed 12 --dtype f32", async (model) => {
    const scores: Record<string, number[]> = {};
    for (const dtype of dtypes) {
      const executor = await load({ model, dtype });
      const driver = new Driver(executor);
      const sequence = driver.add(randomPrompt(1, 48, 320), { promptLogprobs: 0 });
      await driver.prefill(sequence);
      scores[dtype] = sequence.promptLogprobs!.slice(1).map((entry) => entry!.logprob!);
      assert.equal(executor.info.dtype, dtype);
      assert.equal(executor.info.layout.dtype, dtype);
      await executor.close();
    }
    const worst = (dtype: DType) =>
      Math.max(...scores[dtype].map((score, i) => Math.abs(score - scores.float32[i])));
    assert.ok(worst("float16") < 0.02, `float16 differs by ${worst("float16")}`);
    assert.ok(worst("bfloat16") < 0.2, `bfloat16 differs by ${worst("bfloat16")}`);
    assert.ok(worst("float16") > 0 && worst("bfloat16") > worst("float16"), "they were rounded");
  });
});

Deno.test("a step that no scheduler may give is an error", async () => {
  const executor = await load({});
  const { vocabSize, numBlocks } = executor.info;
  const step = (tokenId: number, block: number, swapIn: number[] = []) =>
    executor.step({
      stepId: 0,
      kind: "prefill",
      removed: [1],
      added: [{
        handle: 1,
        params: new Driver(executor).add([]).params,
        promptTokenIds: [0],
        outputTokenIds: [],
      }],
      swapOut: new Int32Array(),
      swapIn: Int32Array.from(swapIn),
      handles: Int32Array.of(1),
      tokenIds: Int32Array.of(tokenId),
      queryStarts: Int32Array.of(0, 1),
      contextLens: Int32Array.of(1),
      blockTables: Int32Array.of(block),
      maxBlocks: 1,
    });
  await assert.rejects(step(vocabSize, 0), /token 261 of a vocabulary of 261/);
  await assert.rejects(step(-1, 0), /token -1/);
  await assert.rejects(step(0, numBlocks), /block 128 of 128/);
  await assert.rejects(step(0, 0, [0, numBlocks]), /copy of block 0 of \d+ to 128 of 128/);
  assert.equal((await step(0, 0)).tokenIds.length, 1);
  await executor.close();
});

Deno.test("a model that computes garbage fails the sequence, also a greedy one", async () => {
  // All logits of a row, and that of token 0 alone.
  for (const tensor of ["model.norm.weight", "lm_head.weight"]) {
    await withModel("--dtype f32", async (model) => {
      spoil(`${model}/model.safetensors`, tensor);
      for (const cpuKernels of kernelSets) {
        const executor = await load({ model, cpuKernels });
        const driver = new Driver(executor);
        const { failures } = await driver.prefill(driver.add([1, 2, 3]));
        assert.equal(failures!.length, 1);
        assert.equal(failures![0]!.kind, "model");
        assert.match(failures![0]!.message, /^logit of token 0 is NaN: the model computed garbage/);
        await executor.close();
      }
    });
  }
});

Deno.test("sequences with a token of which the model makes garbage fail alone", async () => {
  await withModel("--dtype f32", async (model) => {
    const all = { temperature: 1, logprobs: 2, promptLogprobs: 1 };
    const run = async (bad: number) => {
      const executor = await load({ model });
      const driver = new Driver(executor);
      const output = await driver.prefill(
        driver.add([1, 2, bad]),
        driver.add([1, 2, 3]),
        driver.add([bad, 2, 3], all),
        driver.add([4, 2, 3], all),
      );
      await executor.close();
      return output;
    };
    const sound = await run(5);
    assert.equal(sound.failures, undefined);
    spoil(`${model}/model.safetensors`, "model.embed_tokens.weight", 7);
    const { failures, tokenIds, logprobs, promptLogprobs } = await run(7);
    assert.deepEqual(failures!.map((failure) => failure?.kind), [
      "model",
      undefined,
      "model",
      undefined,
    ]);
    for (const row of [1, 3]) {
      assert.equal(tokenIds[row], sound.tokenIds[row]);
      assert.deepEqual(logprobs![row], sound.logprobs![row]);
      assert.deepEqual(promptLogprobs![row], sound.promptLogprobs![row]);
    }
  });
});

Deno.test("blocks that garbage was written to are as good as others", async () => {
  await withModel("--dtype f32", async (model) => {
    for (const cpuKernels of kernelSets) {
      const run = async (first: number) => {
        const executor = await load({
          model,
          cpuKernels,
          numGpuBlocksOverride: 4,
          maxModelLen: 64,
        });
        const driver = new Driver(executor);
        const filling = driver.add(new Array(4 * executor.info.layout.blockSize).fill(first));
        const { failures } = await driver.prefill(filling);
        driver.remove(filling);
        const tokens = await driver.generate(driver.add([1, 2, 3]), 40);
        await executor.close();
        return { failures, tokens };
      };
      const sound = await run(5);
      spoil(`${model}/model.safetensors`, "model.embed_tokens.weight", 7);
      const spoilt = await run(7);
      assert.ok(spoilt.failures?.[0]);
      assert.deepEqual(spoilt.tokens, sound.tokens, cpuKernels);
    }
  });
});
