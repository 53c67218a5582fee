/** Steps ahead of their results on a device that does its work as late as it may. */
import assert from "node:assert/strict";
import { realClock } from "../../../src/core/clock.ts";
import type { GenerateRequest } from "../../../src/core/protocol/generate.ts";
import type { Executor, StepInput } from "../../../src/executor/executor.ts";
import { Engine } from "../../../src/instance/engine/engine.ts";
import { counts } from "../../ffi/software_device/device.ts";
import { engineConfig, generateRequest } from "../../instance/support.ts";
import { cudaTest, load } from "./support.ts";

/** Requests of many kinds, some of which no step can run ahead of. */
function requests(withPenalties: boolean): GenerateRequest[] {
  const kinds = [
    {},
    { temperature: 0.9, topP: 0.9, seed: 5 },
    { temperature: 1.2, topK: 20, minP: 0.02, seed: 6, logprobs: 3 },
    {
      temperature: 1,
      seed: 7,
      minTokens: 6,
      stopTokenIds: Array.from({ length: 60 }, (_, i) => i),
    },
    { temperature: 0.7, seed: 8, logitBias: [[65, 5], [66, -5]] as const },
    withPenalties ? { temperature: 0.7, seed: 9, frequencyPenalty: 0.8 } : { maxTokens: 5 },
  ];
  return kinds.map((params, i) =>
    generateRequest(`r${i}`, 3 + 5 * i, { maxTokens: 20 + i, ...params })
  );
}

interface Outcome {
  readonly tokens: Map<string, number[]>;
  readonly logprobs: unknown[];
  readonly ends: Map<string, string>;
}

/** Runs the requests to their ends; one is aborted when it has some tokens. */
async function run(executor: Executor, all: readonly GenerateRequest[]): Promise<Outcome> {
  const tokens = new Map<string, number[]>(all.map(({ requestId }) => [requestId, []]));
  const ends = new Map<string, string>();
  const logprobs: unknown[] = [];
  const engine = new Engine({
    config: engineConfig({ maxModelLen: executor.info.maxModelLen }),
    executor,
    clock: realClock,
    onOutputs(addressed) {
      for (const output of addressed.flatMap(({ outputs }) => outputs)) {
        const { requestId, finish } = output;
        assert.equal(ends.has(requestId), false, "an output after the end");
        assert.equal(output.index, tokens.get(requestId)!.length, "once and in order");
        tokens.get(requestId)!.push(...output.tokenIds);
        if (output.logprobs) logprobs.push(output.logprobs);
        if (finish) ends.set(requestId, finish.reason);
        if (requestId === "r0" && tokens.get("r0")!.length === 9) engine.abort("r0");
      }
    },
    onFatal: (error) => {
      throw error;
    },
  });
  for (const request of all) engine.add(request);
  await engine.idle();
  engine.check();
  await engine.close();
  return { tokens, logprobs, ends };
}

/** The executor without its pipeline. */
function inTurn(executor: Executor): Executor {
  const { info, pool } = executor;
  const step = (input: StepInput) => executor.step(input);
  return { info, pool, step, close: () => executor.close() };
}

cudaTest(
  "steps ahead give the tokens of steps in turn, and are given before they can run",
  async () => {
    // Work that nobody waits for never runs.
    const options = { deviceSettings: "progress=0", maxNumSeqs: 8 };
    const all = requests(false);
    const expected = await run(inTurn(await load(options)), all);
    assert.deepEqual(new Set(expected.ends.values()), new Set(["abort", "length", "stop"]));
    assert.equal(expected.tokens.get("r0")!.length, 9);

    const executor = await load(options);
    const { start, follow, collect } = executor.pipeline!;
    const calls = { start: 0, follow: 0, collect: 0 };
    const ahead: Executor = {
      ...inTurn(executor),
      pipeline: {
        async start(input) {
          calls.start++;
          const before = counts().work;
          await start(input);
          assert.ok(counts().work > before, "a step that starts is not waited for");
        },
        async follow(input) {
          calls.follow++;
          const output = await follow(input);
          assert.ok(counts().work > 0, "the step that follows is under way");
          return output;
        },
        collect() {
          calls.collect++;
          return collect();
        },
      },
    };
    assert.deepEqual(await run(ahead, all), expected);
    assert.ok(calls.follow > 15 && calls.collect === calls.start, JSON.stringify(calls));
  },
);

cudaTest(
  "a sequence whose choice needs its tokens runs in turn, and so do the others",
  async () => {
    const all = requests(true);
    const expected = await run(inTurn(await load()), all);
    assert.deepEqual(await run(await load(), all), expected);
  },
);

cudaTest("steps of two ranks ahead give the tokens of one device", async () => {
  const options = { deviceSettings: "devices=2,progress=0", hostShare: 1, maxNumSeqs: 8 };
  const all = requests(false);
  const expected = await run(await load(options), all);
  const divided = await load({ ...options, tensorParallelSize: 2 });
  assert.ok(divided.pipeline !== undefined);
  assert.deepEqual(await run(divided, all), expected);
});
