import assert from "node:assert/strict";
import { EngineCore } from "../../../src/instance/engine/engine_core.ts";
import { expectedOutput, PagedModel } from "../paged_model.ts";
import { engineConfig, generateRequest, takeOutputs } from "../support.ts";

function coreOf(config = {}, shape = {}) {
  const model = new PagedModel({ blockSize: 4, numBlocks: 32, numSwapBlocks: 8, ...shape });
  const core = new EngineCore(engineConfig(config), model.info);
  const step = () => {
    const input = core.begin(0);
    if (input) core.end(model.stepNow(input));
    core.check();
    return input;
  };
  return { model, core, step };
}

const coming = { requestId: "r", arrivalMs: 5, lengthTokens: 10, isWaiting: false };

/** What `reserve` gives at once; undefined when it has not answered yet. */
function reserve(incoming: ReturnType<EngineCore["beginIncoming"]>, count: number) {
  let answer: readonly number[] | null | undefined;
  incoming.reserve(count, (blocks) => answer = blocks);
  return answer as readonly number[] | null | undefined;
}

Deno.test("IncomingMigration: reserved blocks are used and not available; given up they are free", () => {
  const { core } = coreOf();
  const incoming = core.beginIncoming(coming);
  assert.equal(reserve(incoming, 3)?.length, 3);
  assert.equal(reserve(incoming, 2)?.length, 2);
  assert.equal(new Set(incoming.blocks).size, 5);
  const { freeBlocks, usedBlocks } = core.info(0);
  assert.deepEqual([freeBlocks, usedBlocks], [27, 5]);
  core.check();
  incoming.cancel();
  incoming.cancel();
  assert.equal(core.info(0).freeBlocks, 32);
  assert.equal(reserve(incoming, 1), null, "it is over");
  core.check();
});

Deno.test("IncomingMigration: the watermark is left free", () => {
  const { core } = coreOf({}, { numBlocks: 200 });
  const incoming = core.beginIncoming(coming);
  assert.equal(core.info(0).watermarkBlocks, 2);
  assert.equal(reserve(incoming, 199), null);
  assert.equal(reserve(incoming, 198)?.length, 198);
});

Deno.test("IncomingMigration: an adopted request goes on from its blocks, in its place by arrival", () => {
  const source = new PagedModel({ blockSize: 4, numBlocks: 8, numSwapBlocks: 0 });
  const there = new EngineCore(engineConfig(), source.info);
  const request = generateRequest("r", 8, { maxTokens: 9, seed: 3 }, { arrivalMs: 5 });
  there.add(request);
  for (let i = 0; i < 3; i++) there.end(source.stepNow(there.begin(0)!));
  const outgoing = there.beginOutgoing("r")!;
  outgoing.suspend(() => {});

  const { core, model, step } = coreOf();
  core.add(generateRequest("early", 4, {}, { arrivalMs: 1 }));
  core.add(generateRequest("late", 4, {}, { arrivalMs: 9 }));
  step();
  const incoming = core.beginIncoming({ ...coming, lengthTokens: outgoing.lengthTokens });
  const blocks = reserve(incoming, outgoing.numBlocks)!;
  for (const [i, block] of outgoing.pin(0, outgoing.numBlocks).entries()) {
    model.pool.run(blocks[i], 0, 2).set(source.pool.run(block, 0, 2));
  }
  incoming.adopt(outgoing.snapshot(1));
  core.announce("r");
  core.check();
  const input = step()!;
  assert.equal(input.kind, "decode", "nothing is computed again");
  assert.equal(input.handles.length, 3);
  assert.equal(input.contextLens[1], 11, "between early and late");
  while (step());
  const outputs = takeOutputs(core)
    .filter(({ requestId }) => requestId === "r");
  assert.deepEqual(outputs[0], { requestId: "r", index: 3, tokenIds: [], epoch: 1 });
  assert.ok(outputs.every(({ epoch }) => epoch === 1));
  const tokens = outputs.flatMap(({ tokenIds }) => tokenIds);
  assert.deepEqual(tokens, expectedOutput(request.promptTokenIds, 3, 9).slice(3));
  assert.equal(core.info(0).usedBlocks, 0);
});

Deno.test("IncomingMigration: a place among maxNumSeqs is kept until it comes or not", () => {
  const { core, step } = coreOf({ maxNumSeqs: 2 });
  core.add(generateRequest("a", 4));
  step();
  const incoming = core.beginIncoming(coming);
  assert.throws(() => core.beginIncoming({ ...coming, requestId: "s" }), {
    name: "OverloadedError",
    message: "i0 runs as many sequences as it may (--max-num-seqs)",
  });
  core.add(generateRequest("b", 4));
  assert.equal(step()!.handles.length, 1, "b has to wait");
  incoming.cancel();
  assert.equal(step()!.kind, "prefill");
});

Deno.test("IncomingMigration: blocks are taken at once while a step runs that copies nothing", () => {
  const { core, model } = coreOf({}, { numBlocks: 4 });
  core.add(generateRequest("r", 4));
  const input = core.begin(0)!;
  let taken: readonly number[] | null = null;
  const incoming = core.beginIncoming({
    requestId: "s",
    arrivalMs: 1,
    lengthTokens: 5,
    isWaiting: false,
  });
  incoming.reserve(2, (blocks) => taken = blocks);
  assert.equal(taken!.length, 2);
  core.check();
  core.end(model.stepNow(input));
  core.check();
});

Deno.test("IncomingMigration: blocks are not taken while a step swaps out, for it still copies from free ones", () => {
  const { core, model, step } = coreOf({ preemptionMode: "swap" }, { numBlocks: 4 });
  core.add(generateRequest("a", 8, { maxTokens: 2 }));
  core.add(generateRequest("b", 4, { maxTokens: 9 }, { arrivalMs: 1 }));
  core.add(generateRequest("c", 4, { maxTokens: 9 }, { arrivalMs: 2 }));
  step();
  const input = core.begin(0)!;
  assert.ok(input.swapOut.length > 0);
  const incoming = core.beginIncoming({ ...coming, lengthTokens: 2 });
  let answer: readonly number[] | null | undefined;
  incoming.reserve(1, (blocks) => answer = blocks);
  assert.equal(answer, undefined);
  core.end(model.stepNow(input));
  assert.notEqual(answer, undefined);
  core.check();
});

Deno.test("IncomingMigration: no block is taken while copies wait for a step to go with", () => {
  const { core, step } = coreOf({ preemptionMode: "swap" }, { numBlocks: 4 });
  core.add(generateRequest("a", 4));
  step();
  // What it leaves behind is still being read: nothing runs, and its swapping has to wait.
  core.add(generateRequest("b", 12, { maxTokens: 9 }, { arrivalMs: 1 }));
  step();
  const outgoing = core.beginOutgoing("a")!;
  outgoing.pin(0, 1);
  const other = core.beginOutgoing("b")!;
  other.pin(0, other.numSettledBlocks);
  while (step());
  assert.equal(core.info(0).killedRequests, 2);
  // One block comes free that a's copy has still to be read from.
  outgoing.unpin();
  const incoming = core.beginIncoming({ ...coming, lengthTokens: 2 });
  assert.equal(core.info(0).freeBlocks, 1);
  assert.equal(reserve(incoming, 1), null);
  other.unpin();
  incoming.cancel();
  while (step());
  assert.equal(core.info(0).freeBlocks, 4);
});

Deno.test("IncomingMigration: what cannot come is refused", () => {
  const { core } = coreOf({ maxWaitingRequests: 1, maxModelLen: 50 });
  core.add(generateRequest("here", 4, {}, { arrivalMs: 4 }));
  assert.throws(() => core.beginIncoming({ ...coming, requestId: "here" }), {
    name: "RequestError",
    message: "here is being served on i0 already",
  });
  assert.throws(() => core.beginIncoming({ ...coming, lengthTokens: 50 }), /serves at most 50/);
  const waiting = { ...coming, isWaiting: true };
  assert.throws(() => core.beginIncoming(waiting), /requests that arrived earlier wait on i0/);
  assert.throws(
    () => core.beginIncoming({ ...waiting, arrivalMs: 3 }),
    /1 requests wait on i0, its limit/,
  );
  core.check();
  core.fail({ kind: "internal", message: "broken" });
  assert.throws(() => core.beginIncoming(coming), { name: "UnavailableError", message: "broken" });
});

Deno.test("IncomingMigration: a waiting request is queued by arrival, its reservation given back", () => {
  const { core, step } = coreOf({ maxNumSeqs: 1 });
  core.add(generateRequest("runs", 4, { maxTokens: 2 }, { arrivalMs: 1 }));
  step();
  core.add(generateRequest("later", 4, {}, { arrivalMs: 9 }));
  const incoming = core.beginIncoming({ ...coming, isWaiting: true });
  assert.equal(reserve(incoming, 3)?.length, 3);
  const request = generateRequest("r", 10, { maxTokens: 2 }, { arrivalMs: 5, epoch: 1 });
  incoming.adopt(request);
  assert.equal(core.info(0).usedBlocks, 1);
  assert.deepEqual(core.queues().waiting.map(({ requestId }) => requestId), ["r", "later"]);
  core.check();
});

Deno.test("IncomingMigration: another request, or other blocks than it needs, are refused", () => {
  const { core } = coreOf();
  const incoming = core.beginIncoming(coming);
  reserve(incoming, 2);
  const nine = generateRequest("r", 8, {}, { outputTokenIds: [1] });
  assert.throws(() => incoming.adopt({ ...nine, requestId: "x" }), /were reserved for r/);
  assert.throws(
    () => incoming.adopt({ ...nine, outputTokenIds: [1, 2] }),
    /r of 10 tokens needs 3 blocks, but 2 were reserved/,
  );
  assert.throws(() => incoming.adopt({ ...nine, outputTokenIds: [999] }), /not in the vocabulary/);
  core.check();
  incoming.adopt(nine);
  assert.equal(core.numRequests, 1);
  incoming.cancel();
  assert.equal(core.info(0).usedBlocks, 2);
  core.check();
});

Deno.test("IncomingMigration: the engine fails while a reservation waits: there is none", () => {
  const { core, step } = coreOf({ preemptionMode: "swap" }, { numBlocks: 4 });
  core.add(generateRequest("a", 8, { maxTokens: 2 }));
  core.add(generateRequest("b", 4, { maxTokens: 9 }, { arrivalMs: 1 }));
  core.add(generateRequest("c", 4, { maxTokens: 9 }, { arrivalMs: 2 }));
  step();
  assert.ok(core.begin(0)!.swapOut.length > 0);
  const incoming = core.beginIncoming({ ...coming, lengthTokens: 2 });
  let answer: readonly number[] | null | undefined;
  incoming.reserve(1, (blocks) => answer = blocks);
  core.fail({ kind: "internal", message: "broken" });
  assert.equal(answer, null);
  incoming.cancel();
});
