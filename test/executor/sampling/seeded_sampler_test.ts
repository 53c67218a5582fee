import assert from "node:assert/strict";
import type { StepInput } from "../../../src/executor/executor.ts";
import { SeededSampler } from "../../../src/executor/sampling/seeded_sampler.ts";
import { samplingParams } from "../../instance/support.ts";

/** A decode step of one sequence per seed at a position of its output. */
function step(seeds: readonly number[], position: number, isFirst: boolean): StepInput {
  const promptTokenIds = [1, 2, 3];
  return {
    stepId: position,
    kind: "decode",
    removed: [],
    added: isFirst
      ? seeds.map((seed, handle) => ({
        handle,
        params: samplingParams({ seed }),
        promptTokenIds,
        outputTokenIds: [],
      }))
      : [],
    swapOut: new Int32Array(0),
    swapIn: new Int32Array(0),
    handles: Int32Array.from(seeds.keys()),
    tokenIds: new Int32Array(seeds.length),
    queryStarts: Int32Array.from({ length: seeds.length + 1 }, (_, i) => i),
    contextLens: new Int32Array(seeds.length).fill(promptTokenIds.length + position),
    blockTables: new Int32Array(seeds.length),
    maxBlocks: 1,
  };
}

/** [positions][seeds] */
function tokensOf(seeds: readonly number[], numPositions: number): number[][] {
  const sampler = new SeededSampler();
  return Array.from(
    { length: numPositions },
    (_, position) => [...sampler.sample(step(seeds, position, position === 0), 0).tokenIds],
  );
}

Deno.test("seeded tokens: every printable one, about equally often, for neighbouring seeds too", () => {
  const counts = new Map<number, number>();
  const seeds = Array.from({ length: 95 }, (_, seed) => seed);
  for (const tokens of tokensOf(seeds, 1000)) {
    for (const token of tokens) counts.set(token, (counts.get(token) ?? 0) + 1);
  }
  assert.deepEqual([...counts.keys()].sort((a, b) => a - b), seeds.map((seed) => 32 + seed));
  for (const [token, count] of counts) {
    assert.ok(Math.abs(count - 1000) < 6 * Math.sqrt(1000), `${token}: ${count}`);
  }
});

Deno.test("seeded tokens: all of a seed's 53 bits count", () => {
  const seeds = [5, 5 + 2 ** 32, 5 + 2 ** 52, 6];
  const sequences = new Set<string>();
  const tokens = tokensOf(seeds, 40);
  for (const i of seeds.keys()) sequences.add(tokens.map((row) => row[i]).join());
  assert.equal(sequences.size, seeds.length);
});

Deno.test("a sequence that was never announced is an error", () => {
  assert.throws(
    () => new SeededSampler().sample(step([1], 0, false), 0),
    /handle 0 was never added/,
  );
});
