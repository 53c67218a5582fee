import assert from "node:assert/strict";
import { setImmediate } from "node:timers/promises";
import { realClock } from "../../../src/core/clock.ts";
import type { RequestOutput } from "../../../src/core/protocol/generate.ts";
import type { InstanceInfo } from "../../../src/core/protocol/instance_info.ts";
import type { StepInput, StepOutput } from "../../../src/executor/executor.ts";
import { Engine } from "../../../src/instance/engine/engine.ts";
import { expectedOutput, PagedModel } from "../paged_model.ts";
import { engineConfig, generateRequest } from "../support.ts";

/** A model whose steps end when the test says so. */
class ManualModel extends PagedModel {
  isClosed = false;
  #pending: { resolve: () => void; reject: (error: Error) => void } | null = null;

  override step(input: StepInput): Promise<StepOutput> {
    assert.equal(this.#pending, null, "steps do not overlap");
    return new Promise((resolve, reject) => {
      this.#pending = { resolve: () => resolve(this.stepNow(input)), reject };
    });
  }

  override close(): Promise<void> {
    assert.equal(this.#pending, null, "closed during a step");
    this.isClosed = true;
    return Promise.resolve();
  }

  async beginStep(): Promise<void> {
    while (!this.#pending) await setImmediate();
  }

  /** Waits for a step to begin, then ends it. */
  async finishStep(error?: Error): Promise<void> {
    await this.beginStep();
    const { resolve, reject } = this.#pending!;
    this.#pending = null;
    if (error) reject(error);
    else resolve();
    await setImmediate();
  }
}

const shape = { blockSize: 4, numBlocks: 32, numSwapBlocks: 8 };

function start<M extends PagedModel>(executor: M, config = {}) {
  const calls: RequestOutput[][] = [];
  const infos: InstanceInfo[] = [];
  const fatal: unknown[] = [];
  const engine = new Engine({
    config: engineConfig(config),
    executor,
    clock: realClock,
    onOutputs: (addressed) => calls.push(addressed.flatMap(({ outputs }) => outputs)),
    onInfo: (info) => infos.push(info),
    onFatal: (error) => fatal.push(error),
  });
  return { engine, executor, calls, infos, fatal };
}

function tokensOf(calls: RequestOutput[][], requestId: string): number[] {
  return calls.flat().filter((output) => output.requestId === requestId)
    .flatMap((output) => output.tokenIds);
}

Deno.test("Engine: serves what is added, one call of outputs per step, then idles", async () => {
  const { engine, calls, infos } = start(new PagedModel(shape));
  const a = generateRequest("a", 5, { seed: 1, maxTokens: 4 });
  const b = generateRequest("b", 6, { seed: 2, maxTokens: 4 });
  engine.add(a);
  engine.add(b);
  await engine.idle();
  engine.check();
  assert.deepEqual(tokensOf(calls, "a"), expectedOutput(a.promptTokenIds, 1, 4));
  assert.deepEqual(tokensOf(calls, "b"), expectedOutput(b.promptTokenIds, 2, 4));
  assert.deepEqual(calls.map((outputs) => outputs.length), [2, 2, 2, 2]);
  assert.equal(infos.at(-1)?.usedBlocks, 0);
  assert.ok(infos.some((info) => info.runningRequests === 2));
  await engine.close();
});

Deno.test("Engine: idle resolves at once when nothing is there, and again after more work", async () => {
  const { engine, calls } = start(new PagedModel(shape));
  await engine.idle();
  for (const id of ["a", "b"]) {
    engine.add(generateRequest(id, 3, { maxTokens: 2 }));
    await engine.idle();
    assert.equal(calls.flat().at(-1)?.requestId, id);
    assert.deepEqual(calls.flat().at(-1)?.finish, { reason: "length" });
  }
  await engine.close();
});

Deno.test("Engine: requests that arrive during a step join the next", async () => {
  const { engine, executor, calls } = start(new ManualModel(shape));
  engine.add(generateRequest("a", 3, { maxTokens: 5 }));
  await executor.beginStep();
  engine.add(generateRequest("b", 3, { maxTokens: 5 }));
  for (let i = 0; i < 3; i++) await executor.finishStep();
  await executor.beginStep();
  assert.deepEqual(calls.map((outputs) => outputs.map(({ requestId }) => requestId)), [
    ["a"],
    ["b"],
    ["a", "b"],
  ]);
  engine.abort("a");
  engine.abort("b");
  await executor.finishStep();
  await engine.close();
});

Deno.test("Engine: a step that hangs ends all requests, and what it answers late means nothing", async () => {
  const executor = new ManualModel(shape);
  const { engine, calls, fatal } = start(executor, { stepTimeoutMs: 40 });
  engine.add(generateRequest("a", 3));
  engine.add(generateRequest("b", 4));
  await executor.beginStep();
  await engine.idle();
  const message = "a step (prefill, 2 sequences, 7 tokens) did not end in 0.04 s (--step-timeout)";
  assert.equal((fatal[0] as Error).message, message);
  const error = { kind: "internal", message: `the engine failed: ${message}` };
  assert.deepEqual(calls.flat().map(({ finish }) => finish), [
    { reason: "error", error },
    { reason: "error", error },
  ]);
  await executor.finishStep();
  assert.equal(calls.flat().length, 2);
  assert.equal(fatal.length, 1);
  assert.throws(() => engine.add(generateRequest("c", 3)), { name: "UnavailableError" });
  await engine.close();
});

Deno.test("Engine: an abort during a step ends the request; blocks come back after it", async () => {
  const { engine, executor, calls } = start(new ManualModel(shape));
  engine.add(generateRequest("a", 5));
  await executor.beginStep();
  engine.abort("a");
  assert.equal(engine.info().usedBlocks, 2);
  const idle = engine.idle();
  await executor.finishStep();
  await idle;
  assert.equal(engine.info().usedBlocks, 0);
  engine.check();
  assert.deepEqual(calls.flat(), [
    { requestId: "a", index: 0, tokenIds: [], finish: { reason: "abort" } },
  ]);
  await engine.close();
});

Deno.test("Engine: what a listener adds in the middle of a decision is not forgotten", async () => {
  const executor = new PagedModel(shape);
  const ended: string[] = [];
  const engine: Engine = new Engine({
    config: engineConfig(),
    executor,
    clock: realClock,
    onOutputs([{ outputs }]) {
      for (const { requestId, finish } of outputs) {
        if (!finish) continue;
        ended.push(requestId);
        if (ended.length < 5) engine.add(generateRequest(`r${ended.length}`, 2, { maxTokens: 1 }));
        if (ended.length === 3) engine.abort("r3");
      }
    },
    onFatal: (error) => assert.fail(String(error)),
  });
  engine.add(generateRequest("r0", 2, { maxTokens: 1 }));
  await engine.idle();
  assert.deepEqual(ended, ["r0", "r1", "r2", "r3", "r4"]);
  await engine.close();
});

Deno.test("Engine: what a listener adds as the engine comes to rest begins one step only", async () => {
  const executor = new ManualModel(shape);
  const engine: Engine = new Engine({
    config: engineConfig(),
    executor,
    clock: realClock,
    onOutputs([{ outputs }]) {
      if (outputs[0].requestId === "r0") engine.add(generateRequest("r1", 2));
    },
    onFatal: (error) => assert.fail(String(error)),
  });
  engine.add(generateRequest("r0", 2));
  engine.abort("r0");
  await executor.beginStep(); // a second one would be an assertion
  for (let i = 0; i < 5; i++) await setImmediate();
  engine.abort("r1");
  await executor.finishStep();
  await engine.close();
});

Deno.test("Engine: when the executor dies every request ends with an error, and onFatal hears", async () => {
  const { engine, executor, calls, fatal } = start(new ManualModel(shape));
  engine.add(generateRequest("a", 5));
  await executor.beginStep();
  engine.add(generateRequest("b", 5));
  const idle = engine.idle();
  const death = new Error("out of memory");
  await executor.finishStep(death);
  await idle;
  assert.deepEqual(fatal, [death]);
  const message = "the engine failed: out of memory";
  const finish = (kind: string) => ({ reason: "error", error: { kind, message } });
  // Only what is in the step may be the cause; others hear of it first.
  assert.deepEqual(calls.flat().map((output) => [output.requestId, output.finish]), [
    ["b", finish("unavailable")],
    ["a", finish("internal")],
  ]);
  assert.throws(() => engine.add(generateRequest("c", 5)), {
    name: "UnavailableError",
    message: "the engine failed: out of memory",
  });
  engine.abort("a");
  await engine.close();
  assert.equal(calls.flat().length, 2);
});

Deno.test("Engine: close ends what is left, waits for the step, closes the executor, once", async () => {
  const { engine, executor, calls, fatal } = start(new ManualModel(shape));
  engine.add(generateRequest("a", 5));
  await executor.beginStep();
  const closing = Promise.all([engine.close(), engine.close()]);
  assert.throws(() => engine.add(generateRequest("b", 5)), {
    name: "UnavailableError",
    message: "the instance is stopping",
  });
  await setImmediate();
  assert.ok(!executor.isClosed);
  await executor.finishStep();
  await closing;
  assert.ok(executor.isClosed);
  const error = { kind: "unavailable", message: "the instance is stopping" };
  assert.deepEqual(calls.flat(), [
    { requestId: "a", index: 0, tokenIds: [], finish: { reason: "error", error } },
  ]);
  assert.deepEqual(fatal, []);
  assert.equal(engine.info().usedBlocks, 0);
});

Deno.test("Engine: preemption and swapping leave no trace in the tokens", async () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const { engine, calls, infos } = start(
      new PagedModel({ blockSize: 4, numBlocks: 12, numSwapBlocks: 8 }),
      { preemptionMode },
    );
    const requests = Array.from(
      { length: 6 },
      (_, i) => generateRequest(`r${i}`, 4 + i, { seed: i, maxTokens: 20 }, { arrivalMs: i }),
    );
    for (const request of requests) engine.add(request);
    await engine.idle();
    engine.check();
    assert.ok(infos.some((info) => info.killedRequests > 0));
    for (const { requestId, promptTokenIds, params } of requests) {
      const expected = expectedOutput(promptTokenIds, params.seed, 20);
      assert.deepEqual(tokensOf(calls, requestId), expected);
    }
    await engine.close();
  }
});
