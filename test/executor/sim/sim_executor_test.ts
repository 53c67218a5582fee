import assert from "node:assert/strict";
import type { StepInput } from "../../../src/executor/executor.ts";
import {
  decodeMs,
  type ModelProfile,
  prefillMs,
  transferMs,
} from "../../../src/executor/sim/profile.ts";
import { SimExecutor } from "../../../src/executor/sim/sim_executor.ts";
import { resolveSimulation } from "../../../src/executor/sim/simulation.ts";
import { blockBytes } from "../../../src/kv/layout.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { engineOptions, samplingParams } from "../../instance/support.ts";

const simulation = resolveSimulation(engineOptions({ device: "sim", model: "llama-7b" }));

function simExecutor(
  waits: number[] = [],
  speedup = 1,
  profile: Partial<ModelProfile> = {},
): SimExecutor {
  const wait = (delayMs: number) => {
    waits.push(delayMs);
    return Promise.resolve();
  };
  return new SimExecutor({
    simulation: { ...simulation, profile: { ...simulation.profile, ...profile } },
    ...{ speedup, wait },
  });
}

/** A step whose sequences have these contexts; all of a context is new in a prefill. */
function step(kind: StepInput["kind"], contexts: readonly number[], swaps = 0): StepInput {
  const queryLens = contexts.map((length) => kind === "prefill" ? length : 1);
  const queryStarts = [0];
  for (const length of queryLens) queryStarts.push(queryStarts.at(-1)! + length);
  return {
    stepId: 1,
    kind,
    removed: [],
    added: contexts.map((_, handle) => ({
      handle,
      params: samplingParams(),
      promptTokenIds: [1],
      outputTokenIds: [],
    })),
    swapOut: new Int32Array(2 * swaps),
    swapIn: new Int32Array(0),
    handles: Int32Array.from(contexts.keys()),
    tokenIds: new Int32Array(queryStarts.at(-1)!),
    queryStarts: Int32Array.from(queryStarts),
    contextLens: Int32Array.from(contexts),
    blockTables: new Int32Array(contexts.length),
    maxBlocks: 1,
  };
}

testExecutor("simulated executor", () => Promise.resolve(simExecutor()));

Deno.test("a step waits for as long as the profile says", async () => {
  const waits: number[] = [];
  const executor = simExecutor(waits);
  const { profile, layout } = simulation;
  const prefill = await executor.step(step("prefill", [100, 57]));
  const decode = await executor.step(step("decode", [500, 700, 20]));
  const swapping = await executor.step(step("decode", [8], 12));
  const swapMs = transferMs(profile.swap, 12 * blockBytes(layout));
  const expected = [
    prefillMs(profile, 157),
    decodeMs(profile, 3, 1220),
    decodeMs(profile, 1, 8) + swapMs,
  ];
  assert.deepEqual(waits, expected);
  assert.deepEqual([prefill, decode, swapping].map((output) => output.latencyMs), expected);
  assert.ok(swapMs > 0);
});

Deno.test("a later piece of a prompt pays for its attention to all before it", async () => {
  const prefill = { msPerSquaredToken: 0.01, msPerToken: 1, msPerStep: 0, source: "" };
  const executor = simExecutor([], 1, { alignment: 1, maxPieceTokens: 60, prefill });
  assert.equal(executor.info.maxPieceTokens, 60);
  const whole = await executor.step(step("prefill", [100]));
  const two = await executor.step(step("prefill", [100, 100]));
  const first = await executor.step({ ...step("prefill", [60]), isPartial: true });
  assert.deepEqual([...first.tokenIds], [-1]);
  const later = await executor.step({
    ...step("prefill", [100]),
    queryStarts: Int32Array.of(0, 40),
  });
  const near = (actual: number, expected: number) =>
    assert.ok(Math.abs(actual - expected) < 1e-9, `${actual}, not ${expected}`);
  near(whole.latencyMs, 200);
  near(two.latencyMs, 400);
  near(first.latencyMs + later.latencyMs, 200);
});

Deno.test("a speed-up divides the time of steps", async () => {
  const waits: number[] = [];
  const executor = simExecutor(waits, 10);
  const { latencyMs } = await executor.step(step("prefill", [64]));
  assert.equal(latencyMs, prefillMs(simulation.profile, 64) / 10);
  assert.deepEqual(waits, [latencyMs]);
  assert.equal(executor.info.description, "sim (a10, 10 times faster)");
});
