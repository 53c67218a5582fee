import assert from "node:assert/strict";
import type { RequestOutput } from "../../../src/core/protocol/generate.ts";
import { EngineCore } from "../../../src/instance/engine/engine_core.ts";
import { NullExecutor } from "../../../src/executor/null/null_executor.ts";
import { expectedOutput, PagedModel } from "../paged_model.ts";
import { engineConfig, engineOptions, generateRequest, takeOutputs } from "../support.ts";

function coreOf(config = {}, shape = {}) {
  const model = new PagedModel({ blockSize: 4, numBlocks: 32, numSwapBlocks: 8, ...shape });
  return { model, core: new EngineCore(engineConfig(config), model.info) };
}

/** Steps until nothing runs any more; all outputs in order. */
function runAll(core: EngineCore, model: PagedModel): RequestOutput[] {
  for (let step = core.begin(0); step; step = core.begin(0)) core.end(model.stepNow(step));
  return takeOutputs(core);
}

Deno.test("EngineCore: a request's tokens, one a step, the last with its end", () => {
  const { core, model } = coreOf();
  const request = generateRequest("a", 5, { maxTokens: 3, seed: 8 });
  core.add(request);
  const [x, y, z] = expectedOutput(request.promptTokenIds, 8, 3);
  assert.deepEqual(runAll(core, model), [
    { requestId: "a", index: 0, tokenIds: [x], prefillMs: 0 },
    { requestId: "a", index: 1, tokenIds: [y] },
    { requestId: "a", index: 2, tokenIds: [z], finish: { reason: "length" } },
  ]);
  assert.ok(core.isIdle);
  core.check();
});

Deno.test("EngineCore: a request of which the model makes garbage fails alone, and its blocks are free", () => {
  const { core, model } = coreOf();
  const requests = ["a", "b"].map((id) => generateRequest(id, 5, { maxTokens: 3, seed: 8 }));
  for (const request of requests) core.add(request);
  const result = model.stepNow(core.begin(0)!);
  const error = { kind: "model", message: "garbage" } as const;
  core.end({ ...result, failures: [error, null] });
  core.check();
  const outputs = [...takeOutputs(core), ...runAll(core, model)];
  const of = (id: string) => outputs.filter(({ requestId }) => requestId === id);
  assert.deepEqual(of("a"), [
    { requestId: "a", index: 0, tokenIds: [], finish: { reason: "error", error } },
  ]);
  const expected = expectedOutput(requests[1].promptTokenIds, 8, 3);
  assert.deepEqual(of("b").flatMap(({ tokenIds }) => tokenIds), expected);
  assert.ok(core.isIdle);
  assert.equal(core.info(0).freeBlocks, 32);
});

Deno.test("EngineCore: outputs name the API server of their request", () => {
  const { core, model } = coreOf();
  core.add(generateRequest("a", 5, { maxTokens: 1 }, { frontendId: "x" }));
  core.add(generateRequest("b", 5, { maxTokens: 1 }, { frontendId: "y" }));
  core.end(model.stepNow(core.begin(0)!));
  assert.deepEqual(core.takeOutputs().map((o) => [o.frontendId, o.outputs[0].requestId]), [
    ["x", "a"],
    ["y", "b"],
  ]);
});

Deno.test("EngineCore: a resumed request goes on at its index with the same tokens", () => {
  const { core, model } = coreOf();
  const fresh = generateRequest("a", 9, { maxTokens: 10, seed: 3 });
  const all = expectedOutput(fresh.promptTokenIds, 3, 10);
  core.add({ ...fresh, outputTokenIds: all.slice(0, 4) });
  const outputs = runAll(core, model);
  assert.equal(outputs[0].index, 4);
  assert.deepEqual(outputs.flatMap((output) => output.tokenIds), all.slice(4));
});

Deno.test("EngineCore: a resumed request that was complete ends without a step", () => {
  const { core } = coreOf();
  core.add(generateRequest("a", 4, { maxTokens: 2 }, { outputTokenIds: [1, 2] }));
  assert.equal(core.begin(0), null);
  assert.deepEqual(takeOutputs(core), [
    { requestId: "a", index: 2, tokenIds: [], finish: { reason: "length" } },
  ]);
});

Deno.test("EngineCore: what can never be served is refused and leaves no trace", () => {
  const { core } = coreOf({ maxModelLen: 200 });
  const cases: [Parameters<typeof generateRequest>, RegExp][] = [
    [["a", 0], /The prompt is empty\./],
    [["a", 129], /needs 33 KV blocks of 4; the pool has 32/],
    [["a", 1, {}, { promptTokenIds: [128] }], /Token 128 is not in the vocabulary.*0 to 127/],
    [["a", 1, {}, { promptTokenIds: [-1] }], /Token -1 is not/],
    [["a", 1, {}, { promptTokenIds: [1.5] }], /Token 1\.5 is not/],
    [["a", 1, {}, { outputTokenIds: [NaN] }], /Token NaN is not/],
  ];
  for (const [args, message] of cases) {
    assert.throws(() => core.add(generateRequest(...args)), { name: "RequestError", message });
  }
  assert.ok(core.isIdle);
  core.add(generateRequest("a", 4));
  assert.throws(() => core.add(generateRequest("a", 4)), {
    name: "RequestError",
    message: "Request a is being served already.",
  });
});

Deno.test("EngineCore: the queue is bounded", () => {
  const { core } = coreOf({ maxWaitingRequests: 2 });
  core.add(generateRequest("a", 4));
  core.add(generateRequest("b", 4));
  assert.throws(() => core.add(generateRequest("c", 4)), {
    name: "OverloadedError",
    message: "2 requests are waiting on i0, its limit. Try again later.",
  });
  core.begin(0);
  core.add(generateRequest("c", 4));
});

Deno.test("EngineCore: an abort in mid-step ends the request now and frees its blocks later", () => {
  const { core, model } = coreOf();
  core.add(generateRequest("a", 5));
  core.add(generateRequest("b", 5, { maxTokens: 1 }));
  const step = core.begin(0)!;
  const usedBlocks = core.info(0).usedBlocks;
  core.abort("a");
  core.abort("a");
  assert.deepEqual(takeOutputs(core), [
    { requestId: "a", index: 0, tokenIds: [], finish: { reason: "abort" } },
  ]);
  assert.equal(core.info(0).usedBlocks, usedBlocks);
  // The name is free again at once.
  core.add(generateRequest("a", 6, { maxTokens: 1 }));
  core.end(model.stepNow(step));
  assert.deepEqual(takeOutputs(core).map(({ requestId }) => requestId), ["b"]);
  assert.equal(core.info(0).usedBlocks, 0);
  core.check();
  assert.equal(runAll(core, model).length, 1);
  assert.equal(model.numHandles, 1, "only the last one is still to be removed");
});

Deno.test("EngineCore: aborts of unknown and of finished requests are ignored", () => {
  const { core, model } = coreOf();
  core.abort("nobody");
  core.add(generateRequest("a", 4, { maxTokens: 1 }));
  runAll(core, model);
  core.abort("a");
  assert.deepEqual(core.takeOutputs(), []);
});

Deno.test("EngineCore: a sequence that outgrows the pool ends with an error that says so", () => {
  const { core, model } = coreOf({}, { numBlocks: 3, numSwapBlocks: 0 });
  core.add(generateRequest("a", 10, { maxTokens: 50 }));
  const outputs = runAll(core, model);
  const last = outputs.pop()!;
  assert.equal(outputs.length, 3, "12 slots, and the newest token needs none");
  assert.equal(last.finish?.reason, "error");
  assert.equal(last.finish?.error?.kind, "invalid_request");
  assert.match(last.finish!.error!.message, /has 13 tokens and needs 4 KV blocks of 4; the pool/);
  core.check();
});

Deno.test("EngineCore: fail ends everything once", () => {
  const { core } = coreOf();
  core.add(generateRequest("a", 4));
  core.begin(0);
  core.add(generateRequest("b", 4));
  core.fail({ kind: "internal", message: "broken" });
  const finish = (kind: string) => ({ reason: "error", error: { kind, message: "broken" } });
  assert.deepEqual(takeOutputs(core).map((o) => [o.requestId, o.finish]), [
    ["b", finish("unavailable")], // the step was not its own
    ["a", finish("internal")],
  ]);
  assert.equal(core.numRequests, 0);
});

Deno.test("EngineCore: info has every field of a report", () => {
  const { core, model } = coreOf({ maxNumSeqs: 2 }, { numBlocks: 200 });
  core.add(generateRequest("a", 5, {}, { arrivalMs: 1 }));
  core.add(generateRequest("b", 10, { maxTokens: 1 }, { arrivalMs: 2 }));
  core.add(generateRequest("c", 6, {}, { arrivalMs: 30 }));
  core.add(generateRequest("d", 3, {}, { arrivalMs: 40 }));
  assert.equal(core.info(50).lastStepKind, "idle");
  core.end({ ...model.stepNow(core.begin(50)!), latencyMs: 7 });
  assert.deepEqual(core.info(100), {
    instanceId: "i0",
    instanceType: "both",
    timestampMs: 100,
    stepId: 1,
    totalBlocks: 200,
    freeBlocks: 198,
    usedBlocks: 2,
    watermarkBlocks: 2,
    runningRequests: 1,
    runningHighPriorityRequests: 0,
    leavingRequests: 0,
    waitingRequests: 2,
    killedRequests: 0,
    firstWaitingBlocks: 1.5,
    waiting: [
      { requestId: "c", blocks: 1.5, arrivalMs: 30 },
      { requestId: "d", blocks: 0.75, arrivalMs: 40 },
    ],
    allWaitingBlocks: 2.25,
    prefillBlocks: 0,
    firstWaitingMs: 70,
    lastRunningBlocks: 2,
    lastStepKind: "prefill",
    lastStepBatchedTokens: 15,
    lastStepSequences: 2,
    lastStepContextTokens: 15,
    lastStepLatencyMs: 7,
    runningSequenceLengths: [6],
    maxOutputTokens: 16,
    finishedRequestIds: ["b"],
    receivedRequestIds: ["a", "b", "c", "d"],
    totals: { promptTokens: 15, outputTokens: 2, preemptions: 0 },
  });
});

Deno.test("EngineCore: an abort in mid-step is among the finished at the step's end", () => {
  const { core, model } = coreOf({ maxNumSeqs: 2 });
  core.add(generateRequest("a", 5));
  core.add(generateRequest("b", 5));
  const step = core.begin(0)!;
  core.abort("a");
  core.end(model.stepNow(step));
  assert.deepEqual(core.info(0).finishedRequestIds, ["a"]);
});

Deno.test("EngineCore: info counts the running requests of high priority", () => {
  const { core, model } = coreOf({ maxNumSeqs: 3 });
  const high = { priority: "high" } as const;
  core.add(generateRequest("a", 5, {}, high));
  core.add(generateRequest("b", 5));
  core.add(generateRequest("c", 5, {}, high));
  assert.equal(core.info(0).runningHighPriorityRequests, 0);
  core.end(model.stepNow(core.begin(0)!));
  core.end(model.stepNow(core.begin(0)!));
  assert.equal(core.info(0).runningRequests, 3);
  assert.equal(core.info(0).runningHighPriorityRequests, 2);
});

Deno.test("EngineCore: info counts the prompts that the running step computes", () => {
  const { core, model } = coreOf({ maxNumSeqs: 2 }, { numBlocks: 200 });
  core.add(generateRequest("a", 5));
  core.add(generateRequest("b", 10));
  core.add(generateRequest("c", 4));
  assert.equal(core.info(0).prefillBlocks, 0);
  const prefill = core.begin(0)!;
  assert.equal(core.info(0).prefillBlocks, 15 / 4);
  core.end(model.stepNow(prefill));
  assert.equal(core.info(0).prefillBlocks, 0);
  assert.ok(core.begin(0));
  assert.equal(core.info(0).prefillBlocks, 0, "a decode step");
});

Deno.test("EngineCore: info counts a prompt that was aborted until its step ends", () => {
  const { core, model } = coreOf();
  core.add(generateRequest("a", 10));
  const prefill = core.begin(0)!;
  core.abort("a");
  assert.equal(core.info(0).prefillBlocks, 10 / 4);
  core.end(model.stepNow(prefill));
  assert.equal(core.info(0).prefillBlocks, 0);
});

Deno.test("EngineCore: info counts no prompt while what was swapped in decodes", () => {
  const { core, model } = coreOf({ preemptionMode: "swap" }, { numBlocks: 4, numSwapBlocks: 4 });
  core.add(generateRequest("a", 8, { maxTokens: 4 }));
  core.add(generateRequest("b", 8, { maxTokens: 4 }, { arrivalMs: 1 }));
  let numSwappedIn = 0;
  for (let step = core.begin(0); step !== null; step = core.begin(0)) {
    numSwappedIn += step.swapIn.length;
    assert.equal(core.info(0).prefillBlocks > 0, step.kind === "prefill");
    core.end(model.stepNow(step));
  }
  assert.ok(numSwappedIn > 0);
});

Deno.test("EngineCore: what has run its expected steps runs on only when it is told to stay", () => {
  const { core, model } = coreOf({ maxNumSeqs: 3 });
  core.add(generateRequest("a", 5, {}, { expectedSteps: 1 }));
  core.end(model.stepNow(core.begin(0)!));
  assert.equal(core.info(0).leavingRequests, 1);
  assert.equal(core.begin(0), null);
  core.clearExpectedSteps();
  assert.equal(core.info(0).leavingRequests, 0);
  core.end(model.stepNow(core.begin(0)!));
  assert.equal(core.info(0).totals.outputTokens, 2);
});

Deno.test("EngineCore: a taken info tells of received and finished requests once, refused ones too", () => {
  const { core, model } = coreOf({ maxNumSeqs: 2 });
  const take = () => {
    const { receivedRequestIds, finishedRequestIds } = core.takeInfo(0);
    return [receivedRequestIds, finishedRequestIds];
  };
  core.add(generateRequest("a", 5, { maxTokens: 1 }));
  assert.throws(() => core.add(generateRequest("empty", 0)));
  const step = core.begin(0)!;
  assert.deepEqual(core.info(0).receivedRequestIds, ["a", "empty"], "only looked at");
  assert.deepEqual(take(), [["a", "empty"], []]);
  assert.deepEqual(take(), [[], []]);
  core.add(generateRequest("b", 5));
  core.end(model.stepNow(step));
  core.begin(0);
  core.abort("b");
  assert.deepEqual(
    take(),
    [["b"], ["a", "b"]],
    "also what came in mid-step or before another info",
  );
});

Deno.test("EngineCore: killed requests are those preempted, swapped or to be recomputed", () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const { core, model } = coreOf({ preemptionMode }, { numBlocks: 4 });
    core.add(generateRequest("a", 8));
    core.add(generateRequest("b", 8));
    core.end(model.stepNow(core.begin(0)!));
    core.begin(0);
    const { killedRequests, waitingRequests, runningRequests } = core.info(0);
    assert.deepEqual([killedRequests, runningRequests], [1, 1]);
    assert.equal(waitingRequests, preemptionMode === "swap" ? 0 : 1);
  }
});

Deno.test("EngineCore: log probabilities are passed on; those of the prompt once", async () => {
  const options = engineOptions({ numGpuBlocksOverride: 2, blockSize: 4 });
  const model = new NullExecutor({ device: "null", options, hostShare: 1 });
  const core = new EngineCore(engineConfig(), model.info);
  const asking = { logprobs: 2, promptLogprobs: 1, maxTokens: 3 };
  core.add(generateRequest("plain", 3));
  core.add(generateRequest("asking", 3, asking, { arrivalMs: 1 }));
  for (let step = core.begin(0); step; step = core.begin(0)) core.end(await model.step(step));
  const outputs = takeOutputs(core);
  const ofAsking = outputs.filter(({ requestId }) => requestId === "asking");
  assert.deepEqual(ofAsking.map(({ index }) => index), [0, 1, 2]);
  for (const { logprobs, tokenIds } of ofAsking) assert.equal(logprobs![0].tokenId, tokenIds[0]);
  assert.deepEqual(ofAsking.map((output) => output.promptLogprobs?.length), [
    3,
    undefined,
    undefined,
  ]);
  for (const output of outputs) {
    if (output.requestId === "plain") assert.ok(!("logprobs" in output));
  }
});

Deno.test("EngineCore: a result of another step is an error", () => {
  const { core, model } = coreOf();
  core.add(generateRequest("a", 4));
  const result = model.stepNow(core.begin(0)!);
  assert.throws(() => core.end({ ...result, stepId: 9 }), /result of step 9, expected 1/);
});
