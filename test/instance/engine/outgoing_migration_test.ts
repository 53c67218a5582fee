import assert from "node:assert/strict";
import { EngineCore } from "../../../src/instance/engine/engine_core.ts";
import { expectedOutput, PagedModel } from "../paged_model.ts";
import { engineConfig, generateRequest, takeOutputs } from "../support.ts";

/** A core on blocks of 4 tokens, stepped by hand. */
function coreOf(config = {}, shape = {}) {
  const model = new PagedModel({ blockSize: 4, numBlocks: 32, numSwapBlocks: 8, ...shape });
  const events: string[] = [];
  const core = new EngineCore(engineConfig(config), model.info, () => events.push("moved"));
  const step = () => {
    const input = core.begin(0);
    if (input) core.end(model.stepNow(input));
    core.check();
    return input !== null;
  };
  const outputs = () => takeOutputs(core);
  return { model, core, step, outputs, events };
}

Deno.test("OutgoingMigration: only what waits or has computed its prompt can leave", () => {
  const { core, model } = coreOf();
  assert.equal(core.beginOutgoing("a"), null);
  core.add(generateRequest("a", 9));
  assert.equal(core.beginOutgoing("a")?.isWaiting, true);
  const step = core.begin(0)!;
  assert.equal(core.beginOutgoing("a"), null, "its prompt is being computed");
  core.end(model.stepNow(step));
  assert.equal(core.beginOutgoing("a")?.isWaiting, false);
});

Deno.test("OutgoingMigration: blocks are settled once they are full and computed", () => {
  const { core, model, step } = coreOf();
  core.add(generateRequest("a", 7, { maxTokens: 20 }));
  step();
  const outgoing = core.beginOutgoing("a")!;
  // 8 tokens, the newest is in no block yet.
  assert.deepEqual([outgoing.numBlocks, outgoing.numSettledBlocks], [2, 1]);
  const input = core.begin(0)!;
  assert.deepEqual([outgoing.numBlocks, outgoing.numSettledBlocks], [2, 1]);
  core.end(model.stepNow(input));
  assert.deepEqual([outgoing.numBlocks, outgoing.numSettledBlocks], [2, 2]);
  core.begin(0);
  assert.deepEqual([outgoing.numBlocks, outgoing.numSettledBlocks], [3, 2], "a slot is taken");
});

Deno.test("OutgoingMigration: what is computed again, or swapped in, is not settled before its step ends", () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const { core, model, step } = coreOf({ preemptionMode }, { numBlocks: 5 });
    core.add(generateRequest("a", 8, { maxTokens: 4 }));
    core.add(generateRequest("b", 8, { maxTokens: 20 }, { arrivalMs: 1 }));
    step();
    const outgoing = core.beginOutgoing("b")!;
    while (outgoing.loss === null) step();
    assert.equal(outgoing.loss, "preempted");
    assert.equal(outgoing.numSettledBlocks, 0);
    for (let steps = 0; steps < 20; steps++) {
      const input = core.begin(0)!;
      const isBack = outgoing.numBlocks > 0 && !core.queues().running[0].isDecoding;
      if (isBack) {
        assert.equal(outgoing.numSettledBlocks, 0);
        core.end(model.stepNow(input));
        assert.ok(outgoing.numSettledBlocks > 0);
        assert.equal(outgoing.loss, "preempted", "it is not what it was");
        break;
      }
      core.end(model.stepNow(input));
      assert.ok(steps < 19, "it never came back");
    }
  }
});

Deno.test("OutgoingMigration: an instance is not empty while a suspended request is its own", () => {
  const { core, step } = coreOf({ maxNumSeqs: 1 });
  core.add(generateRequest("a", 7, { maxTokens: 20 }));
  step();
  core.add(generateRequest("b", 6, { maxTokens: 20 }, { arrivalMs: 1 }));
  const migrations = ["a", "b"].map((requestId) => core.beginOutgoing(requestId)!);
  for (const outgoing of migrations) outgoing.suspend(() => {});
  const info = core.info(0);
  assert.deepEqual([info.runningRequests, info.waitingRequests], [1, 1]);
  assert.deepEqual(info.runningSequenceLengths, [8]);
  assert.equal(info.allWaitingBlocks, 1.5);
  for (const outgoing of migrations) outgoing.release();
  assert.deepEqual([core.info(0).runningRequests, core.info(0).waitingRequests], [0, 0]);
});

Deno.test("OutgoingMigration: pinned blocks stay in use whatever becomes of the request", () => {
  const { core, step, events } = coreOf({}, { numBlocks: 4 });
  core.add(generateRequest("a", 12, { maxTokens: 3 }));
  step();
  const outgoing = core.beginOutgoing("a")!;
  const pinned = outgoing.pin(0, outgoing.numSettledBlocks);
  assert.equal(pinned.length, 3);
  assert.throws(() => outgoing.pin(0, 1), /a transfer is under way/);
  core.abort("a");
  assert.equal(outgoing.loss, "ended");
  assert.equal(core.info(0).freeBlocks, 1);
  core.check();
  core.add(generateRequest("b", 8));
  assert.equal(step(), false, "b needs two blocks");
  events.length = 0;
  outgoing.unpin();
  assert.deepEqual(events, ["moved"], "the engine has to hear of it");
  assert.ok(step());
});

Deno.test("OutgoingMigration: suspended at once between steps, else as the step ends", () => {
  const { core, model, step, outputs } = coreOf();
  const request = generateRequest("a", 9, { maxTokens: 20, seed: 5 });
  core.add(request);
  step();
  const outgoing = core.beginOutgoing("a")!;
  const seen: boolean[] = [];
  const input = core.begin(0)!;
  outgoing.suspend((isSuspended) => seen.push(isSuspended));
  assert.equal(seen.length, 0);
  core.end(model.stepNow(input));
  assert.deepEqual(seen, [true]);
  assert.ok(outgoing.isSuspended);
  core.check();
  assert.equal(step(), false, "it does not run");
  assert.deepEqual(outgoing.snapshot(4), {
    ...request,
    outputTokenIds: expectedOutput(request.promptTokenIds, 5, 2),
    priority: "normal",
    epoch: 4,
    timestamps: false,
  });
  outgoing.resume();
  assert.ok(step());
  outgoing.suspend((isSuspended) => seen.push(isSuspended));
  assert.deepEqual(seen, [true, true]);
  outgoing.resume(7);
  outgoing.resume(9);
  outputs();
  step();
  assert.deepEqual(outputs().map(({ epoch, index }) => [epoch, index]), [[7, 3]]);
});

Deno.test("OutgoingMigration: resumed under another epoch it says so at once", () => {
  const { core, step, outputs } = coreOf();
  core.add(generateRequest("a", 9));
  step();
  const outgoing = core.beginOutgoing("a")!;
  outgoing.suspend(() => {});
  outputs();
  outgoing.resume(2);
  assert.deepEqual(outputs(), [{ requestId: "a", index: 1, tokenIds: [], epoch: 2 }]);
  assert.equal(core.epochOf("a"), 2);
});

Deno.test("OutgoingMigration: a request that ends in its last step, or is aborted, is not suspended", () => {
  for (const isAborted of [true, false]) {
    const { core, model, step } = coreOf();
    core.add(generateRequest("a", 9, { maxTokens: 2 }));
    step();
    const outgoing = core.beginOutgoing("a")!;
    const input = core.begin(0)!;
    let wasSuspended: boolean | null = null;
    outgoing.suspend((isSuspended) => wasSuspended = isSuspended);
    if (isAborted) core.abort("a");
    core.end(model.stepNow(input));
    assert.equal(wasSuspended, false);
    assert.equal(outgoing.loss, "ended");
    outgoing.resume();
    assert.equal(outgoing.release(), false);
    assert.equal(core.numRequests, 0);
    assert.equal(core.info(0).usedBlocks, 0);
    core.check();
  }
});

Deno.test("OutgoingMigration: an abort ends a suspended request, once, and its place is free", () => {
  const { core, step, outputs } = coreOf({ maxNumSeqs: 1 });
  core.add(generateRequest("a", 9));
  step();
  const outgoing = core.beginOutgoing("a")!;
  outgoing.suspend(() => {});
  core.add(generateRequest("b", 4));
  assert.equal(step(), false, "its place is kept");
  outputs();
  core.abort("a");
  core.abort("a");
  assert.deepEqual(outputs().map(({ requestId, finish }) => [requestId, finish?.reason]), [
    ["a", "abort"],
  ]);
  assert.ok(!outgoing.isSuspended);
  core.check();
  assert.ok(step());
});

Deno.test("OutgoingMigration: released it is gone without an output; its blocks when no transfer has them", () => {
  const { core, step, outputs, model } = coreOf();
  core.add(generateRequest("a", 9));
  step();
  const outgoing = core.beginOutgoing("a")!;
  outgoing.suspend(() => {});
  outgoing.pin(0, 2);
  outputs();
  assert.equal(outgoing.release(), true);
  assert.equal(outgoing.release(), false);
  assert.equal(core.info(0).usedBlocks, 2);
  outgoing.unpin();
  assert.equal(core.info(0).usedBlocks, 0);
  core.check();
  assert.ok(core.isIdle);
  assert.deepEqual(outputs(), []);
  assert.deepEqual(core.info(0).finishedRequestIds, [], "it has not finished");
  core.add(generateRequest("b", 4));
  step();
  assert.equal(model.numHandles, 1, "the executor has forgotten it");
});

Deno.test("OutgoingMigration: a waiting request that comes back has its place in the queue", () => {
  const { core, step, outputs } = coreOf({ maxNumSeqs: 1 });
  for (const [i, id] of ["a", "b", "c"].entries()) {
    core.add(generateRequest(id, 4, { maxTokens: 3 }, { arrivalMs: i }));
  }
  step();
  const outgoing = core.beginOutgoing("b")!;
  assert.deepEqual([outgoing.numBlocks, outgoing.numRequiredBlocks], [0, 1]);
  outgoing.suspend(() => {});
  assert.deepEqual(core.queues().waiting.map(({ requestId }) => requestId), ["c"]);
  outgoing.resume();
  assert.deepEqual(core.queues().waiting.map(({ requestId }) => requestId), ["b", "c"]);
  while (step());
  const order = outputs().filter(({ finish }) => finish).map(({ requestId }) => requestId);
  assert.deepEqual(order, ["a", "b", "c"]);
});

Deno.test("OutgoingMigration: a waiting request that the scheduler admits meanwhile stays", () => {
  const { core, step } = coreOf();
  core.add(generateRequest("a", 4));
  const outgoing = core.beginOutgoing("a")!;
  step();
  assert.equal(outgoing.loss, "admitted");
});

Deno.test("EngineCore: says which requests may leave", () => {
  const { core, step } = coreOf({ maxNumSeqs: 2 });
  core.add(generateRequest("a", 4, {}, { arrivalMs: 1, expectedSteps: 1, priority: "high" }));
  core.add(generateRequest("b", 6, {}, { arrivalMs: 2 }));
  core.add(generateRequest("c", 6, {}, { arrivalMs: 3 }));
  assert.deepEqual(core.queues().waiting.map(({ wasTried }) => wasTried), [false, false, false]);
  step();
  step();
  const { running, waiting } = core.queues();
  assert.deepEqual(waiting, [
    { requestId: "c", arrivalMs: 3, blocks: 2, wasTried: true, isMigrating: false },
  ]);
  assert.deepEqual(running, [
    {
      requestId: "a",
      priority: "high",
      arrivalMs: 1,
      lengthTokens: 5,
      blocks: 1,
      isDecoding: true,
      hasReachedExpectedSteps: true,
      isMigrating: false,
    },
    {
      requestId: "b",
      priority: "normal",
      arrivalMs: 2,
      lengthTokens: 7,
      blocks: 2,
      isDecoding: true,
      hasReachedExpectedSteps: false,
      isMigrating: false,
    },
  ]);
});
