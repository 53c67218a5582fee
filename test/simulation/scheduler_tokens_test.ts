/**
 * The engine's core on a model that notices every misplaced block, driven by random operations:
 * requests, aborts between and during steps, pools so small that most sequences are preempted.
 */
import assert from "node:assert/strict";
import type { StepInput, StepOutput } from "../../src/executor/executor.ts";
import type { GenerateRequest, RequestOutput } from "../../src/core/protocol/generate.ts";
import { Random } from "../../src/core/random.ts";
import { RequestError } from "../../src/core/errors.ts";
import { EngineCore } from "../../src/instance/engine/engine_core.ts";
import { engineConfig, samplingParams } from "../instance/support.ts";
import { expectedOutput, PagedModel } from "../instance/paged_model.ts";
import { isLongRun } from "../long.ts";

interface Tracked {
  readonly request: GenerateRequest;
  readonly tokens: number[];
  isAborted: boolean;
  finish: RequestOutput["finish"] | null;
}

/** One seeded run; returns what happened, so that tests can see that they test something. */
function simulate(
  seed: number,
  arePrompts: "whole" | "cut",
  steps: "in turn" | "ahead" = "in turn",
) {
  const random = new Random(seed);
  const blockSize = [1, 4, 8][random.below(3)];
  const numBlocks = Math.ceil((20 + random.below(200)) / blockSize);
  const numSwapBlocks = random.below(3) * Math.ceil(60 / blockSize);
  const maxNumSeqs = 1 + random.below(8);
  const maxPieceTokens = arePrompts === "cut" ? 1 + random.below(30) : undefined;
  const config = engineConfig({
    maxNumSeqs,
    maxModelLen: 40 + random.below(60),
    maxNumBatchedTokens: 100 + random.below(50),
    maxSharedPrefillTokens: 20 + random.below(80),
    schedulerDelayFactor: random.below(2) * 0.5,
    preemptionMode: random.below(2) === 0 ? "recompute" : "swap",
    maxPieceTokens,
  });
  const model = new PagedModel({ blockSize, numBlocks, numSwapBlocks, maxPieceTokens });
  const core = new EngineCore(config, model.info);
  const requests = new Map<string, Tracked>();
  const counts = {
    steps: 0,
    killed: 0,
    swapped: 0,
    pieces: 0,
    errors: 0,
    refused: 0,
    aborted: 0,
    finished: 0,
    ahead: 0,
  };
  let nowMs = 0;

  function add(): void {
    const promptTokenIds = Array.from({ length: 1 + random.below(40) }, () => random.below(97));
    const params = samplingParams({
      seed: random.below(1e9),
      maxTokens: 1 + random.below(50),
      // Ends that nobody can foresee while the next step is under way.
      ...(steps === "ahead" && { stopTokenIds: [random.below(128), random.below(128)] }),
    });
    const resumed = random.below(8) === 0 ? random.below(params.maxTokens) : 0;
    const request: GenerateRequest = {
      requestId: `r${requests.size}`,
      frontendId: "f",
      promptTokenIds,
      outputTokenIds: expectedOutput(promptTokenIds, params.seed, resumed),
      params,
      arrivalMs: nowMs - random.below(5),
    };
    const tracked = {
      request,
      tokens: [...request.outputTokenIds],
      isAborted: false,
      finish: null,
    };
    try {
      core.add(request);
    } catch (error) {
      assert.ok(error instanceof RequestError, String(error));
      counts.refused++;
      tracked.isAborted = true;
    }
    requests.set(request.requestId, tracked);
  }

  function abortOne(): void {
    const tracked = requests.get(`r${random.below(Math.max(1, requests.size))}`);
    if (!tracked) return;
    tracked.isAborted = true;
    core.abort(tracked.request.requestId);
  }

  function disturb(): void {
    const dice = random.below(10);
    if (dice < 3) { for (let i = random.below(4); i >= 0; i--) add(); }
    if (dice === 9) abortOne();
  }

  function takeOutputs(): void {
    for (const output of core.takeOutputs().flatMap(({ outputs }) => outputs)) {
      const tracked = requests.get(output.requestId)!;
      assert.equal(tracked.finish, null, "output after the end");
      assert.equal(output.index, tracked.tokens.length, "tokens come once and in order");
      tracked.tokens.push(...output.tokenIds);
      if (output.finish) tracked.finish = output.finish;
    }
  }

  let ahead: StepInput | null = null;

  /** Runs a step; the next one may be decided before it has. */
  function runStep(step: StepInput): StepOutput {
    const input = structuredClone(step);
    ahead = steps === "ahead" && random.below(4) > 0 ? structuredClone(core.beginAhead()) : null;
    if (ahead !== null && random.below(3) === 0) abortOne();
    core.check();
    const output = model.stepNow(input);
    ahead?.tokenIds.forEach((token, i, tokenIds) => {
      if (token < 0) tokenIds[i] = output.tokenIds[-1 - token];
    });
    return output;
  }

  for (let round = 0; round < 300 || core.numRequests > 0; round++) {
    if (round < 300) disturb();
    const step = core.begin(nowMs);
    if (step) {
      counts.steps++;
      counts.swapped += step.swapOut.length / 2;
      assert.ok(step.tokenIds.length <= config.maxNumBatchedTokens, "token budget");
      assert.ok(step.handles.length <= maxNumSeqs, "sequence budget");
      if (step.isPartial) counts.pieces++;
      const isLongPrefill = step.kind === "prefill" &&
        step.tokenIds.length > (maxPieceTokens ?? Infinity);
      assert.ok(!isLongPrefill, "a piece is longer than asked for");
      let result = runStep(step);
      if (round < 300) disturb();
      core.end(result);
      // Each step ahead was given before the output of the one before it was known.
      for (; ahead !== null; counts.ahead++) {
        takeOutputs();
        core.check();
        result = runStep(ahead);
        if (round < 300) disturb();
        core.end(result);
      }
    } else {
      assert.equal(core.numRequests, 0, "nothing runs although requests are there");
    }
    nowMs += random.below(10);
    takeOutputs();
    core.check();
    const info = core.info(nowMs);
    counts.killed += info.killedRequests;
    assert.equal(info.freeBlocks + info.usedBlocks, info.totalBlocks);
    assert.equal(info.runningSequenceLengths.length, info.runningRequests);
  }
  takeOutputs();
  assert.equal(core.info(nowMs).freeBlocks, numBlocks, "all blocks are back");

  for (const { request, tokens, isAborted, finish } of requests.values()) {
    const { promptTokenIds, params } = request;
    const wanted = expectedOutput(promptTokenIds, params.seed, tokens.length);
    assert.deepEqual(tokens, wanted, `tokens of ${request.requestId}, seed ${seed}`);
    if (isAborted) {
      counts.aborted++;
      continue;
    }
    assert.ok(finish, `${request.requestId} never ended`);
    const limit = Math.min(params.maxTokens, config.maxModelLen - promptTokenIds.length);
    if (finish.reason === "error") {
      counts.errors++;
      const needed = Math.ceil((promptTokenIds.length + tokens.length) / blockSize);
      assert.ok(needed > numBlocks, `${request.requestId} failed but fits the pool`);
    } else {
      counts.finished++;
      if (finish.reason === "stop") {
        const ends = tokens.map((token) => params.stopTokenIds.includes(token));
        assert.equal(
          ends.indexOf(true, Math.max(0, request.outputTokenIds.length - 1)),
          tokens.length - 1,
        );
        continue;
      }
      assert.equal(finish.reason, "length");
      assert.equal(tokens.length, Math.max(limit, request.outputTokenIds.length));
    }
  }
  return counts;
}

const NUM_SEEDS = isLongRun ? 40 : 10;

function simulateAll(
  arePrompts: "whole" | "cut",
  steps: "in turn" | "ahead" = "in turn",
  seeds = NUM_SEEDS,
): Record<string, number> {
  const sums: Record<string, number> = {};
  for (let seed = 1; seed <= seeds; seed++) {
    for (const [name, count] of Object.entries(simulate(seed, arePrompts, steps))) {
      sums[name] = (sums[name] ?? 0) + count;
    }
  }
  return sums;
}

Deno.test("random requests on tiny pools: right tokens, once, in order; every block comes back", () => {
  const { pieces, ahead, ...sums } = simulateAll("whole");
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
  assert.deepEqual([pieces, ahead], [0, 0]);
});

Deno.test("random requests on tiny pools, prompts cut into pieces: the same holds", () => {
  const { ahead, ...sums } = simulateAll("cut");
  assert.equal(ahead, 0);
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
});

Deno.test("random requests on tiny pools, steps ahead of their results: the same holds", () => {
  const sums = simulateAll("cut", "ahead", 12);
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
});
