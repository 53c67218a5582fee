import assert from "node:assert/strict";
import { BlockManager } from "../../../src/instance/engine/block_manager.ts";
import {
  type Schedule,
  Scheduler,
  type SchedulerConfig,
} from "../../../src/instance/engine/scheduler.ts";
import { Sequence } from "../../../src/instance/engine/sequence.ts";
import type { Priority } from "../../../src/core/protocol/generate.ts";
import { engineConfig, generateRequest } from "../support.ts";

/** A scheduler on blocks of 4 tokens, with verbs that name sequences by id. */
class Bench {
  readonly blocks: BlockManager;
  readonly scheduler: Scheduler;
  #order = 0;

  constructor(deviceBlocks: number, config: Partial<SchedulerConfig> = {}, swapBlocks = 0) {
    this.blocks = new BlockManager({ blockSize: 4, deviceBlocks, swapBlocks });
    this.scheduler = new Scheduler(engineConfig(config), this.blocks);
  }

  add(
    requestId: string,
    promptTokens: number,
    arrivalMs = this.#order,
    priority: Priority = "normal",
  ): Sequence {
    const request = generateRequest(requestId, promptTokens, {}, { arrivalMs, priority });
    const sequence = new Sequence(request, this.#order++);
    this.scheduler.add(sequence);
    return sequence;
  }

  /** Schedules, lets every sequence of the batch have a token, and describes the step. */
  step(nowMs = 0): string {
    const schedule = this.scheduler.schedule(nowMs);
    const line = describe(schedule);
    for (const sequence of schedule.sequences) {
      if (schedule.isPartial) sequence.numComputedTokens += schedule.numBatchedTokens;
      else sequence.numComputedTokens = sequence.lengthTokens;
      if (!schedule.isPartial) sequence.append(1);
    }
    const { waiting, running, swapped } = this.scheduler;
    this.blocks.check([...waiting, ...running, ...swapped]);
    return line;
  }

  finish(sequence: Sequence): void {
    this.scheduler.remove(sequence);
    this.blocks.free(sequence);
    sequence.status = "finished";
  }

  queues(): string {
    const { waiting, running, swapped } = this.scheduler;
    return [waiting, running, swapped].map(idsOf).join(" | ");
  }
}

function idsOf(sequences: readonly Sequence[]): string {
  return sequences.map((sequence) => sequence.requestId).join(" ");
}

function describe(schedule: Schedule): string {
  const failed = idsOf(schedule.failed.map(({ sequence }) => sequence));
  return `${schedule.isPartial ? "piece" : schedule.kind} [${
    idsOf(schedule.sequences)
  }] ${schedule.numBatchedTokens}` +
    (failed && ` failed [${failed}]`) +
    (schedule.numPreempted ? ` preempted ${schedule.numPreempted}` : "");
}

Deno.test("Scheduler: prompts before decodes, never both", () => {
  const bench = new Bench(100);
  bench.add("a", 5);
  bench.add("b", 6);
  assert.equal(bench.step(), "prefill [a b] 11");
  assert.equal(bench.step(), "decode [a b] 2");
  bench.add("c", 3);
  assert.equal(bench.step(), "prefill [c] 3");
  assert.equal(bench.step(), "decode [a b c] 3");
});

Deno.test("Scheduler: nothing to do is an empty decode", () => {
  assert.equal(new Bench(10).step(), "decode [] 0");
});

Deno.test("Scheduler: first come, first served by arrival, not by order of adding", () => {
  const bench = new Bench(100);
  bench.add("late", 4, 30);
  bench.add("early", 4, 10);
  bench.add("middle", 4, 20);
  bench.add("middle too", 4, 20);
  assert.equal(bench.step(), "prefill [early middle middle too late] 16");
});

Deno.test("Scheduler: a step holds maxNumBatchedTokens; the head of the queue is not overtaken", () => {
  const bench = new Bench(100, {
    maxNumBatchedTokens: 20,
    maxSharedPrefillTokens: 20,
    maxModelLen: 20,
  });
  bench.add("a", 12);
  bench.add("b", 10);
  bench.add("c", 1);
  assert.equal(bench.step(), "prefill [a] 12");
  assert.equal(bench.step(), "prefill [b c] 11");
});

Deno.test("Scheduler: maxNumSeqs sequences run", () => {
  const bench = new Bench(100, { maxNumSeqs: 2 });
  const a = bench.add("a", 2);
  bench.add("b", 2);
  bench.add("c", 2);
  assert.equal(bench.step(), "prefill [a b] 4");
  assert.equal(bench.step(), "decode [a b] 2");
  bench.finish(a);
  assert.equal(bench.step(), "prefill [c] 2");
});

Deno.test("Scheduler: a prompt waits for blocks, and those behind it wait too", () => {
  const bench = new Bench(10);
  const a = bench.add("a", 30);
  assert.equal(bench.step(), "prefill [a] 30");
  bench.add("b", 12);
  bench.add("c", 1);
  assert.equal(bench.step(), "decode [a] 1");
  bench.finish(a);
  assert.equal(bench.step(), "prefill [b c] 13");
});

Deno.test("Scheduler: an admission leaves the watermark, a decode may use it", () => {
  const bench = new Bench(200, { maxModelLen: 1000, maxNumBatchedTokens: 1000 });
  bench.add("a", 4 * 197);
  bench.add("b", 8);
  assert.equal(bench.step(), "prefill [a] 788");
  for (let i = 0; i < 12; i++) assert.equal(bench.step(), "decode [a] 1");
  assert.equal(bench.blocks.freeBlocks, 0);
});

Deno.test("Scheduler: what can never run fails with the reason, and the rest goes on", () => {
  const bench = new Bench(10, { maxModelLen: 39 });
  bench.add("too long", 40);
  bench.add("fine", 39);
  const schedule = bench.scheduler.schedule(0);
  assert.equal(describe(schedule), "prefill [fine] 39 failed [too long]");
  const [{ error }] = schedule.failed;
  assert.match(error.message, /The prompt has 40 tokens, the model's limit is 39\./);
});

for (const maxModelLen of [40, 60]) {
  Deno.test(`Scheduler: a limit of ${maxModelLen} tokens is not to blame where 40 fill the pool`, () => {
    const bench = new Bench(10, { maxModelLen });
    bench.add("too big", 41);
    bench.add("too big for both", 61);
    bench.add("fine", 40);
    const schedule = bench.scheduler.schedule(0);
    assert.equal(describe(schedule), "prefill [fine] 40 failed [too big too big for both]");
    const [one, both] = schedule.failed.map(({ error }) => error.message);
    assert.match(one, /41 tokens and needs 11 KV blocks of 4; the pool has 10 /);
    assert.match(both, /61 tokens and needs 16 KV blocks of 4; the pool has 10 /);
    assert.match(both, /more memory \(--num-gpu-blocks-override, --gpu-memory-utilization\)/);
  });
}

Deno.test("Scheduler: the latest arrival is preempted, recomputed in its turn", () => {
  const bench = new Bench(4);
  const a = bench.add("a", 8);
  const b = bench.add("b", 8);
  bench.add("c", 4);
  assert.equal(bench.step(), "prefill [a b] 16");
  assert.equal(bench.step(), "decode [a] 1 preempted 1");
  assert.ok(b.isPreempted);
  assert.equal(bench.queues(), "b c | a | ");
  assert.equal(b.blocks.length, 0);
  for (let i = 0; i < 3; i++) assert.equal(bench.step(), "decode [a] 1");
  bench.finish(a);
  assert.equal(bench.step(), "prefill [b c] 13", "b's 9 tokens, then c");
  assert.ok(!b.isPreempted);
});

Deno.test("Scheduler: several are preempted when one does not free a block", () => {
  const bench = new Bench(4);
  bench.add("a", 8);
  const b = bench.add("b", 4), c = bench.add("c", 4);
  assert.equal(bench.step(), "prefill [a b c] 16");
  // Both blocks stay taken: a transfer reads them.
  const moving = [...b.blocks, ...c.blocks];
  bench.blocks.retain(moving);
  assert.equal(describe(bench.scheduler.schedule(0)), "decode [] 0 preempted 3");
  bench.blocks.release(moving);
  assert.equal(bench.queues(), "a b c |  | ");
});

Deno.test("Scheduler: swapping keeps the blocks, and nothing new is admitted meanwhile", () => {
  const bench = new Bench(4, { preemptionMode: "swap" }, 4);
  const a = bench.add("a", 8);
  bench.add("b", 8);
  assert.equal(bench.step(), "prefill [a b] 16");
  const schedule = bench.scheduler.schedule(0);
  assert.equal(describe(schedule), "decode [a] 1 preempted 1");
  assert.equal(schedule.swapOut.length, 4);
  assert.equal(bench.queues(), " | a | b");
  bench.add("c", 1);
  a.append(1);
  assert.equal(bench.step(), "decode [a] 1", "c has to wait, although a block is free");
  bench.finish(a);
  const next = bench.scheduler.schedule(0);
  assert.equal(describe(next), "decode [b] 1");
  assert.equal(next.swapIn.length, 4);
  assert.equal(next.swapOut.length, 0);
  assert.equal(bench.step(), "prefill [c] 1");
});

Deno.test("Scheduler: too little swap space falls back to recomputation", () => {
  const bench = new Bench(4, { preemptionMode: "swap" }, 1);
  bench.add("a", 8);
  bench.add("b", 8);
  bench.step();
  assert.equal(bench.step(), "decode [a] 1 preempted 1");
  assert.equal(bench.queues(), "b | a | ");
});

Deno.test("Scheduler: a lone sequence fills the last block, then fails", () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const bench = new Bench(2, { preemptionMode }, 2);
    const a = bench.add("a", 7);
    assert.equal(bench.step(), "prefill [a] 7");
    assert.equal(bench.step(), "decode [a] 1");
    assert.equal(bench.step(), "decode [] 0 preempted 1");
    assert.equal(bench.step(), "decode [] 0 failed [a]");
    assert.equal(a.status, "finished");
    assert.equal(bench.blocks.freeBlocks + bench.blocks.freeSwapBlocks, 4);
  }
});

Deno.test("Scheduler: copies of a decision without a batch go with the next", () => {
  const bench = new Bench(2, { preemptionMode: "swap" }, 4);
  const a = bench.add("a", 3), b = bench.add("b", 3);
  bench.step();
  bench.step();
  // Neither finds a block, because the other's stays in use by a transfer.
  const moving = [...a.blocks, ...b.blocks];
  bench.blocks.retain(moving);
  assert.equal(bench.step(), "decode [] 0 preempted 2");
  bench.blocks.release(moving);
  const schedule = bench.scheduler.schedule(0);
  assert.equal(describe(schedule), "decode [a] 1");
  assert.equal(schedule.swapOut.length, 4);
  assert.equal(schedule.swapIn.length, 2);
});

Deno.test("Scheduler: prompts wait delayFactor times the last prefill, while something runs", () => {
  const bench = new Bench(100, { schedulerDelayFactor: 0.5 });
  bench.add("a", 4, 0);
  assert.equal(bench.step(0), "prefill [a] 4");
  bench.add("b", 4, 90);
  // The prefill took until 100: the next prompt is due after 50 ms.
  assert.equal(bench.step(100), "decode [a] 1");
  assert.equal(bench.step(140), "decode [a] 1");
  assert.equal(bench.step(141), "prefill [b] 4");
});

Deno.test("Scheduler: a sequence leaves whichever queue it is in", () => {
  const bench = new Bench(4, { preemptionMode: "swap" }, 4);
  const a = bench.add("a", 8), b = bench.add("b", 8), c = bench.add("c", 8);
  bench.step();
  bench.step();
  assert.equal(bench.queues(), "c | a | b");
  for (const sequence of [b, c, a]) bench.finish(sequence);
  assert.equal(bench.queues(), " |  | ");
  assert.equal(bench.blocks.freeBlocks, 4);
  assert.equal(bench.blocks.freeSwapBlocks, 4);
  assert.throws(
    () => bench.scheduler.remove(a),
    /request a is in no queue of the scheduler any more/,
  );
});

Deno.test("Scheduler: high priority first and by itself, by arrival within a priority", () => {
  const bench = new Bench(100, { maxNumBatchedTokens: 256 });
  bench.add("normal 1", 4, 10);
  bench.add("high 2", 4, 40, "high");
  bench.add("normal 2", 4, 20);
  bench.add("high 1", 4, 30, "high");
  assert.equal(bench.step(), "prefill [high 1 high 2] 8");
  assert.equal(bench.step(), "prefill [normal 1 normal 2] 8");
});

for (const preemptionMode of ["recompute", "swap"] as const) {
  Deno.test(`Scheduler: normal requests are preempted before any of high priority (${preemptionMode})`, () => {
    const bench = new Bench(6, { preemptionMode }, 6);
    bench.add("normal 1", 4, 10);
    bench.add("normal 2", 4, 20);
    bench.add("high", 4, 30, "high");
    assert.equal(bench.step(), "prefill [high] 4");
    assert.equal(bench.step(), "prefill [normal 1 normal 2] 8");
    const lines = Array.from({ length: 8 }, () => bench.step());
    const preempting = lines.filter((line) => line.includes("preempted"));
    assert.ok(preempting.length > 0);
    for (const line of lines) assert.match(line, /\[high/);
  });
}

for (const preemptionMode of ["recompute", "swap"] as const) {
  Deno.test(`Scheduler: the latest normal requests give way to one of high priority (${preemptionMode})`, () => {
    const bench = new Bench(6, { preemptionMode }, 6);
    bench.add("normal 1", 7, 10);
    bench.add("normal 2", 7, 20);
    bench.add("normal 3", 7, 30);
    assert.equal(bench.step(), "prefill [normal 1 normal 2 normal 3] 21");
    bench.add("high", 12, 40, "high");
    assert.equal(bench.step(), "prefill [high] 12 preempted 2");
    assert.equal(
      bench.queues(),
      preemptionMode === "swap"
        ? " | high normal 1 | normal 2 normal 3"
        : "normal 2 normal 3 | high normal 1 | ",
    );
    bench.add("high 2", 4, 50, "high");
    assert.equal(bench.step(), "prefill [high 2] 4", "before those that are swapped");
    assert.equal(bench.step(), "decode [high high 2] 2 preempted 1");
  });
}

Deno.test("Scheduler: nobody gives way where that makes too little room, or to a normal request", () => {
  const bench = new Bench(6);
  bench.add("high 1", 9, 10, "high");
  bench.add("normal 1", 9, 20);
  assert.equal(bench.step(), "prefill [high 1] 9");
  assert.equal(bench.step(), "prefill [normal 1] 9");
  bench.add("normal 2", 4, 30);
  assert.equal(bench.step(), "decode [high 1 normal 1] 2");
  bench.add("high 2", 16, 40, "high");
  assert.equal(bench.step(), "decode [high 1 normal 1] 2");
});

Deno.test("Scheduler: one of high priority takes a place where as many run as may", () => {
  const bench = new Bench(100, { maxNumSeqs: 2 });
  bench.add("normal 1", 4, 10);
  bench.add("normal 2", 4, 20);
  assert.equal(bench.step(), "prefill [normal 1 normal 2] 8");
  bench.add("high", 4, 30, "high");
  assert.equal(bench.step(), "prefill [high] 4 preempted 1");
  assert.equal(bench.queues(), "normal 2 | high normal 1 | ");
});

Deno.test("Scheduler: one of high priority waits for blocks that transfers still read", () => {
  const bench = new Bench(4);
  const normal = bench.add("normal", 12, 10);
  bench.step();
  const moving = [...normal.blocks];
  bench.blocks.retain(moving);
  bench.add("high", 12, 20, "high");
  assert.equal(bench.step(), "decode [] 0 preempted 1");
  assert.equal(bench.step(), "decode [] 0");
  bench.blocks.release(moving);
  assert.equal(bench.step(), "prefill [high] 12");
});

Deno.test("Scheduler: several prompts make a short step, a longer one runs alone", () => {
  const bench = new Bench(100, { maxSharedPrefillTokens: 20 });
  for (const [name, tokens] of [["a", 10], ["b", 10], ["c", 10], ["d", 30], ["e", 1]] as const) {
    bench.add(name, tokens);
  }
  const steps = Array.from({ length: 4 }, () => bench.step());
  assert.deepEqual(steps, [
    "prefill [a b] 20",
    "prefill [c] 10",
    "prefill [d] 30",
    "prefill [e] 1",
  ]);
});

/** As engines do at the end of a step: these have run their steps here. */
function haveRun(...sequences: Sequence[]): void {
  for (const sequence of sequences) {
    sequence.expectedSteps = 1;
    sequence.numSteps = 1;
  }
}

Deno.test("Scheduler: what has run its expected steps waits to leave, and goes on after a while", () => {
  const bench = new Bench(100, { prefillHoldMs: 500 });
  const a = bench.add("a", 5);
  bench.add("b", 6);
  bench.step();
  haveRun(a);
  assert.equal(bench.step(100), "decode [b] 1");
  assert.equal(bench.scheduler.heldUntilMs, 600);
  assert.equal(bench.step(599), "decode [b] 1");
  assert.equal(bench.step(600), "decode [a b] 2");
  assert.equal(bench.scheduler.heldUntilMs, Infinity);
});

Deno.test("Scheduler: what waits to leave keeps its blocks and its place", () => {
  const bench = new Bench(3, { maxNumSeqs: 2 });
  const a = bench.add("a", 8);
  bench.add("b", 8);
  bench.add("c", 1);
  assert.equal(bench.step(), "prefill [a] 8");
  haveRun(a);
  assert.equal(bench.step(), "decode [] 0");
  assert.equal(bench.queues(), "b c | a | ");
  bench.finish(a);
  assert.equal(bench.step(), "prefill [b c] 9");
});

Deno.test("Scheduler: prompts are not delayed for what only waits to leave", () => {
  const bench = new Bench(100, { schedulerDelayFactor: 10 });
  const a = bench.add("a", 5, 0);
  bench.step(0);
  bench.step(50);
  haveRun(a);
  bench.add("b", 5, 50);
  assert.equal(bench.step(51), "prefill [b] 5");
});

Deno.test("Scheduler: a long prompt comes in pieces, with a decode step of the others in between", () => {
  const bench = new Bench(100, { maxPieceTokens: 10 });
  bench.add("short", 4);
  assert.equal(bench.step(), "prefill [short] 4");
  bench.add("long", 25);
  assert.equal(bench.step(), "decode [short] 1");
  assert.equal(bench.step(), "piece [long] 10");
  assert.equal(bench.step(), "decode [short] 1");
  assert.equal(bench.step(), "piece [long] 10");
  assert.equal(bench.step(), "decode [short] 1");
  assert.equal(bench.step(), "prefill [long] 5");
  assert.equal(bench.step(), "decode [short long] 2");
});

Deno.test("Scheduler: prompts that fit one step overtake the pieces of a long one", () => {
  const bench = new Bench(100, { maxPieceTokens: 10 });
  bench.add("long", 35);
  assert.equal(bench.step(), "piece [long] 10");
  bench.add("a", 6);
  bench.add("b", 6);
  bench.add("long too", 11);
  assert.equal(bench.step(), "prefill [a] 6");
  assert.equal(bench.step(), "decode [a] 1");
  assert.equal(bench.step(), "piece [long] 10");
  assert.equal(bench.step(), "decode [a] 1");
  assert.equal(bench.step(), "prefill [b] 6");
  assert.equal(bench.step(), "decode [a b] 2");
  assert.equal(bench.step(), "piece [long] 10");
  assert.equal(bench.step(), "decode [a b] 2");
  assert.equal(bench.step(), "prefill [long] 5");
  assert.equal(bench.step(), "decode [long a b] 3");
  assert.equal(bench.step(), "piece [long too] 10");
});

Deno.test("Scheduler: short prompts do not wait for a long one of which a token takes long by now", () => {
  const bench = new Bench(100, { maxPieceTokens: 10 });
  const { pieces } = bench.scheduler;
  bench.add("long", 35);
  assert.equal(bench.step(), "piece [long] 10");
  pieces.note("prefill", 10, 10);
  assert.equal(bench.step(), "piece [long] 10");
  pieces.note("prefill", 10, 10_000, true);
  bench.add("short", 6);
  assert.equal(bench.step(), "prefill [short] 6");
  assert.equal(bench.step(), "decode [short] 1");
  assert.equal(bench.step(), "piece [long] 1");
  assert.equal(bench.step(), "decode [short] 1");
});

Deno.test("Scheduler: a prompt that is aborted between two pieces leaves no trace", () => {
  const bench = new Bench(100, { maxPieceTokens: 10 });
  const long = bench.add("long", 25);
  assert.equal(bench.step(), "piece [long] 10");
  bench.finish(long);
  bench.add("next", 12);
  assert.equal(bench.step(), "piece [next] 10");
  assert.equal(bench.scheduler.partialTokens, 2);
});

Deno.test("Scheduler: a prompt that is preempted between two pieces begins anew", () => {
  const bench = new Bench(8, { maxPieceTokens: 10, preemptionMode: "swap" }, 8);
  bench.add("long", 25);
  assert.equal(bench.step(), "piece [long] 10");
  bench.add("high", 8, 5, "high");
  assert.equal(bench.step(), "prefill [high] 8 preempted 1");
  assert.equal(bench.queues(), "long | high | ");
  assert.equal(bench.step(), "decode [high] 1");
});

Deno.test("Scheduler: a long prompt of high priority does not wait for the pieces of a normal one", () => {
  const bench = new Bench(100, { maxPieceTokens: 10 });
  bench.add("normal", 35);
  assert.equal(bench.step(), "piece [normal] 10");
  bench.add("high", 15, 5, "high");
  assert.equal(bench.step(), "piece [high] 10 preempted 1");
  assert.equal(bench.queues(), "normal | high | ");
  assert.equal(bench.step(), "prefill [high] 5");
  assert.equal(bench.step(), "decode [high] 1");
  assert.equal(bench.step(), "piece [normal] 10");
});
