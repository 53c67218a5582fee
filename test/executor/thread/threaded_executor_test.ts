import assert from "node:assert/strict";
import type { SamplingParams } from "../../../src/core/protocol/generate.ts";
import { samplingDefaults } from "../../../src/core/sampling.ts";
import type { LoadProgress, StepInput } from "../../../src/executor/executor.ts";
import {
  loadThreadedExecutor,
  startEngineWorker,
} from "../../../src/executor/thread/threaded_executor.ts";
import { testExecutor } from "../../conformance/executor.ts";
import { engineOptions } from "../../instance/support.ts";
import { niceness } from "../niceness.ts";

/** Of Linux. */
const MAX_NICENESS = 19;

function startWorker(): Worker {
  return new Worker(new URL("../_null_worker.ts", import.meta.url), { type: "module" });
}

function load(model: string | null = null, onProgress?: (progress: LoadProgress) => void) {
  const spec = { device: "null" as const, options: engineOptions({ model }), hostShare: 1 };
  return loadThreadedExecutor(spec, {
    worker: startEngineWorker(startWorker),
    onProgress,
  });
}

const emptyStep: StepInput = {
  stepId: 1,
  kind: "decode",
  removed: [],
  added: [],
  swapOut: new Int32Array(),
  swapIn: new Int32Array(),
  handles: new Int32Array(),
  tokenIds: new Int32Array(),
  queryStarts: new Int32Array(1),
  contextLens: new Int32Array(),
  blockTables: new Int32Array(),
  maxBlocks: 0,
};

testExecutor("null executor on a worker", () => load());

Deno.test({
  name: "threaded executor: the thread that computes is nicer than those that answer",
  ignore: Deno.build.os !== "linux",
}, async () => {
  const options = engineOptions({ model: "tells how nice it is" });
  const load = (device: "cpu" | "null") =>
    loadThreadedExecutor({ device, options, hostShare: 1 }, {
      worker: startEngineWorker(startWorker),
    });
  for (const [device, difference] of [["cpu", 5], ["null", 0]] as const) {
    const executor = await load(device);
    const expected = Math.min(niceness() + difference, MAX_NICENESS);
    assert.equal(Number(executor.info.description), expected);
    await executor.close();
  }
});

Deno.test("threaded executor: the pool of the worker is opened on the main thread", async () => {
  const accounted = await load();
  assert.equal(accounted.pool?.memory, "none");
  assert.equal(accounted.pool.numBlocks, accounted.info.numBlocks);
  await accounted.close();
  const host = await load("has a cache in memory of the host");
  assert.ok(host.pool?.memory === "host");
  assert.ok(host.pool.run(1, 0, 1).every((byte) => byte === 77), "the very same memory");
  assert.ok(host.pool.run(0, 0, 1).every((byte) => byte === 0));
  await host.close();
  const unreachable = await load("has a cache that nobody reaches");
  assert.equal(unreachable.pool, null);
  await unreachable.close();
});

Deno.test("threaded executor: progress of the load arrives before its end", async () => {
  const progress: LoadProgress[] = [];
  const executor = await load(null, (p) => progress.push(p));
  assert.deepEqual(progress, [{ phase: "weights", doneBytes: 1, totalBytes: 2, detail: "half" }]);
  await executor.close();
});

Deno.test("threaded executor: a failed load keeps its kind of error", async () => {
  await assert.rejects(load("missing"), {
    name: "ModelError",
    message: "there is no such model",
  });
});

Deno.test("threaded executor: an error that nobody caught ends the load", async () => {
  const loading = load("throws while it loads");
  await assert.rejects(loading, /the engine worker died.*nobody catches this/);
});

Deno.test("threaded executor: a close that fails says so, each time", async () => {
  const executor = await load("rejects close");
  await executor.step(emptyStep);
  for (let i = 0; i < 2; i++) await assert.rejects(executor.close(), /the memory is upset/);
  await assert.rejects(executor.step(emptyStep), /the memory is upset/);
});

Deno.test("threaded executor: a step that fails is its last", async () => {
  const executor = await load("rejects");
  await assert.rejects(executor.step(emptyStep), { message: "the kernel is upset" });
  await assert.rejects(executor.step(emptyStep), { message: "the kernel is upset" });
  await executor.close();
});

Deno.test("threaded executor: an error that nobody caught in the worker ends the step, not us", async () => {
  const executor = await load("throws");
  await assert.rejects(executor.step(emptyStep), /the engine worker died.*nobody catches this/);
  await assert.rejects(executor.step(emptyStep), /the engine worker died/);
  await executor.close();
});

Deno.test("threaded executor: a step's arrays stay the caller's", async () => {
  const executor = await load();
  const blockTables = Int32Array.of(7, 8, 9);
  await executor.step({ ...emptyStep, blockTables: blockTables.subarray(1) });
  assert.deepEqual(blockTables, Int32Array.of(7, 8, 9));
  await executor.close();
});

Deno.test("threaded executor: small and large steps take turns", async () => {
  const executor = await load();
  const sizes = [1, 1 << 20, 1 << 20, 3, 1 << 20, 2];
  for (const [stepId, size] of sizes.entries()) {
    const output = await executor.step({ ...emptyStep, stepId, blockTables: new Int32Array(size) });
    assert.equal(output.stepId, stepId);
  }
  await executor.close();
});

Deno.test("threaded executor: answers in memory and as messages take turns", async () => {
  const executor = await load();
  const params: SamplingParams = {
    ...samplingDefaults,
    maxTokens: 1,
    seed: 1,
    eosTokenIds: [],
    logprobs: 1,
  };
  const asking = { handle: 0, params, promptTokenIds: [1], outputTokenIds: [] };
  for (let stepId = 0; stepId < 300; stepId++) {
    // In turn: who asks comes, runs once more, and has left.
    const isThere = stepId % 3 < 2;
    const output = await executor.step({
      ...emptyStep,
      stepId,
      added: stepId % 3 === 0 ? [asking] : [],
      removed: isThere ? [] : [0],
      ...(isThere && { handles: Int32Array.of(0), contextLens: Int32Array.of(1) }),
    });
    assert.equal(output.stepId, stepId);
    assert.equal(output.logprobs?.length, isThere ? 1 : undefined);
  }
  await executor.close();
});

Deno.test("threaded executor: close waits for the step that runs", async () => {
  const executor = await load();
  const step = executor.step(emptyStep);
  await executor.close();
  assert.equal((await step).stepId, 1);
});
