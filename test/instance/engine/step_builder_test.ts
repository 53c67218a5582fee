import assert from "node:assert/strict";
import type { Schedule } from "../../../src/instance/engine/scheduler.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import { StepBuilder } from "../../../src/instance/engine/step_builder.ts";
import { generateRequest } from "../support.ts";

function sequenceOf(id: string, prompt: number[], outputs: number[], blocks: number[]): Sequence {
  const tokens = { promptTokenIds: prompt, outputTokenIds: outputs };
  const sequence = new Sequence(generateRequest(id, 1, {}, tokens), 0);
  sequence.blocks.push(...blocks);
  return sequence;
}

function scheduleOf(kind: Schedule["kind"], sequences: Sequence[]): Schedule {
  const tokens = kind === "decode" ? 1 : 0;
  return {
    kind,
    isPartial: false,
    isLaterPiece: false,
    sequences,
    numBatchedTokens: sequences.reduce((sum, s) => sum + (tokens || s.lengthTokens), 0),
    swapOut: [5, 1],
    swapIn: [],
    failed: [],
    numPreempted: 0,
  };
}

Deno.test("StepBuilder: a prefill holds all tokens, prompt and output", () => {
  const a = sequenceOf("a", [10, 11, 12], [], [4, 9]);
  const b = sequenceOf("b", [20], [21, 22], [7]);
  const step = new StepBuilder().build(scheduleOf("prefill", [a, b]));
  assert.equal(step.stepId, 1);
  assert.deepEqual([...step.tokenIds], [10, 11, 12, 20, 21, 22]);
  assert.deepEqual([...step.queryStarts], [0, 3, 6]);
  assert.deepEqual([...step.contextLens], [3, 3]);
  assert.equal(step.maxBlocks, 2);
  assert.deepEqual([...step.blockTables].slice(0, 3), [4, 9, 7]);
  assert.deepEqual([...step.swapOut], [5, 1]);
  assert.deepEqual(step.added.map((start) => [start.handle, start.outputTokenIds]), [
    [0, []],
    [1, [21, 22]],
  ]);
});

Deno.test("StepBuilder: a decode holds the newest token of each", () => {
  const a = sequenceOf("a", [10, 11], [12], [4]), b = sequenceOf("b", [20], [21, 22], [7]);
  const step = new StepBuilder().build(scheduleOf("decode", [a, b]));
  assert.deepEqual([...step.tokenIds], [12, 22]);
  assert.deepEqual([...step.queryStarts], [0, 1, 2]);
  assert.deepEqual([...step.contextLens], [3, 3]);
});

Deno.test("StepBuilder: a sequence is announced once, and its name is free after the end", () => {
  const builder = new StepBuilder();
  const a = sequenceOf("a", [1], [], [0]), b = sequenceOf("b", [2], [], [1]);
  const c = sequenceOf("c", [3], [], [2]), never = sequenceOf("never", [4], [], []);
  builder.build(scheduleOf("prefill", [a, b]));
  const second = builder.build(scheduleOf("decode", [a, b]));
  assert.deepEqual([second.added, second.removed], [[], []]);
  builder.forget(a);
  builder.forget(never);
  const third = builder.build(scheduleOf("prefill", [c]));
  assert.deepEqual(third.removed, [0]);
  assert.equal(third.added[0].handle, 0);
  assert.deepEqual(builder.build(scheduleOf("decode", [b, c])).removed, []);
});
