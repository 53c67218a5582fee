/**
 * Every decision of the scheduler, under random requests, ends and transfers in flight, against the
 * rules that the queues have to keep.
 */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { BlockManager } from "../../src/instance/engine/block_manager.ts";
import { Scheduler } from "../../src/instance/engine/scheduler.ts";
import { Sequence } from "../../src/instance/engine/sequence.ts";
import { engineConfig, generateRequest } from "../instance/support.ts";
import { isLongRun } from "../long.ts";

const NUM_STEPS = 400;

function snapshot({ waiting, running, swapped }: Scheduler) {
  return { waiting: [...waiting], running: [...running], swapped: [...swapped] };
}

function isByTurn(queue: readonly Sequence[]): boolean {
  return queue.every((sequence, i) => i === 0 || queue[i - 1].compareTurn(sequence) < 0);
}

/** Every one of `first` has its turn before every one of `second`. */
function goesBefore(first: readonly Sequence[], second: readonly Sequence[]): boolean {
  return first.every((a) => second.every((b) => a.compareTurn(b) < 0));
}

function outrank(first: readonly Sequence[], second: readonly Sequence[]): boolean {
  return first.every((a) => second.every((b) => a.outranks(b)));
}

function simulate(seed: number) {
  const random = new Random(seed);
  const blockSize = 1 + random.below(6);
  const deviceBlocks = 10 + random.below(120);
  const config = engineConfig({
    maxNumSeqs: 1 + random.below(10),
    maxModelLen: 60,
    maxNumBatchedTokens: 60 + random.below(40),
    maxSharedPrefillTokens: 20 + random.below(40),
    preemptionMode: random.below(2) === 0 ? "recompute" : "swap",
  });
  const swapBlocks = random.below(40);
  const blocks = new BlockManager({ blockSize, deviceBlocks, swapBlocks });
  const scheduler = new Scheduler(config, blocks);
  const transfers: number[][] = [];
  const counts = {
    prefill: 0,
    decode: 0,
    preempted: 0,
    displaced: 0,
    swappedIn: 0,
    failed: 0,
    blocked: 0,
  };
  let order = 0;

  function add(nowMs: number): void {
    const request = generateRequest(`r${order}`, 1 + random.below(50), {}, {
      arrivalMs: nowMs - random.below(20),
      priority: random.below(4) === 0 ? "high" : "normal",
    });
    const sequence = new Sequence(request, order++);
    if (scheduler.admissionOf(sequence) !== "never") scheduler.add(sequence);
  }

  function end(sequence: Sequence): void {
    scheduler.remove(sequence);
    blocks.free(sequence);
    sequence.status = "finished";
  }

  function disturb(nowMs: number): void {
    if (random.below(4) === 0) { for (let i = random.below(4); i > 0; i--) add(nowMs); }
    const { running, waiting, swapped } = scheduler;
    const queue = [running, waiting, swapped][random.below(3)];
    if (queue.length > 0 && random.below(30) === 0) end(queue[random.below(queue.length)]);
    if (running.length > 0 && random.below(10) === 0) {
      const moving = [...running[random.below(running.length)].blocks];
      blocks.retain(moving);
      transfers.push(moving);
    }
    if (transfers.length > 0 && random.below(6) === 0) blocks.release(transfers.shift()!);
  }

  function checkPrefill(before: ReturnType<typeof snapshot>, batch: Sequence[], tokens: number) {
    counts.prefill++;
    const { waiting, running } = scheduler;
    assert.ok(outrank(batch, before.swapped), "swapped sequences go before prompts");
    const victims = before.running.filter((sequence) => !running.includes(sequence));
    counts.displaced += victims.length;
    // A victim may come back at once, when a larger one made more room than was needed.
    const admitted = batch.filter((sequence) => before.waiting.includes(sequence));
    const back = batch.filter((sequence) => before.running.includes(sequence));
    assert.equal(admitted.length + back.length, batch.length);
    assert.ok(victims.length + back.length === 0 || admitted[0].priority === "high");
    assert.ok(victims.every(({ priority }) => priority === "normal"), "a high one is a victim");
    const kept = before.running.filter((sequence) => !victims.includes(sequence));
    assert.deepEqual(new Set(running), new Set([...kept, ...batch]));
    assert.ok(goesBefore(batch, waiting), "a prompt was overtaken");
    assert.equal(tokens, batch.reduce((sum, { lengthTokens }) => sum + lengthTokens, 0));
    assert.ok(batch.length === 1 || tokens <= config.maxSharedPrefillTokens);
  }

  function checkDecode(before: ReturnType<typeof snapshot>, batch: Sequence[], tokens: number) {
    counts.decode++;
    const { running, waiting, swapped } = scheduler;
    assert.deepEqual(new Set(batch), new Set(running), "every running sequence decodes");
    assert.equal(tokens, batch.length);
    const victims = before.running.filter((sequence) => sequence.status !== "running");
    const back = running.filter((sequence) => !before.running.includes(sequence));
    counts.preempted += victims.length;
    counts.swappedIn += back.length;
    assert.ok(goesBefore(running, victims), "the last in turn are preempted");
    assert.ok(victims.length === 0 || back.length === 0, "out and in at once");
    assert.ok(goesBefore(back, swapped), "a swapped sequence was overtaken");
    const head = before.swapped.length > 0 ? swapped[0] : waiting[0];
    const hasRoom = victims.length === 0 && running.length < config.maxNumSeqs;
    if (head && hasRoom) {
      assert.notEqual(scheduler.admissionOf(head), "yes", "it could run and does not");
    }
  }

  for (let nowMs = 0; nowMs < NUM_STEPS; nowMs++) {
    disturb(nowMs);
    const before = snapshot(scheduler);
    const schedule = scheduler.schedule(nowMs);
    const { sequences, kind, numBatchedTokens, failed } = schedule;
    counts.failed += failed.length;
    if (kind === "prefill") checkPrefill(before, sequences, numBatchedTokens);
    else checkDecode(before, sequences, numBatchedTokens);
    assert.ok(numBatchedTokens <= config.maxNumBatchedTokens);
    assert.ok(scheduler.running.length <= config.maxNumSeqs);

    const after = snapshot(scheduler);
    const everywhere = [...after.waiting, ...after.running, ...after.swapped];
    const gone = failed.map(({ sequence }) => sequence);
    assert.deepEqual(
      new Set([...everywhere, ...gone]),
      new Set([...before.waiting, ...before.running, ...before.swapped]),
      "nobody gets lost",
    );
    for (const queue of [after.waiting, after.running, after.swapped]) {
      assert.ok(isByTurn(queue), "queues are in the order of turns");
    }
    const hasProgress = sequences.length + gone.length + schedule.numPreempted > 0;
    if (everywhere.length > 0 && !hasProgress) {
      counts.blocked++;
      assert.ok(transfers.length > 0, "nothing runs, and no transfer holds the blocks");
    }
    blocks.check(everywhere);
    for (const sequence of [...sequences]) {
      sequence.append(1);
      if (sequence.lengthTokens >= config.maxModelLen || random.below(25) === 0) end(sequence);
    }
  }
  return counts;
}

Deno.test("random use: order of arrival, budgets, work conservation, blocks", () => {
  const sums: Record<string, number> = {};
  for (let seed = 1; seed <= (isLongRun ? 40 : 15); seed++) {
    for (const [name, count] of Object.entries(simulate(seed))) {
      sums[name] = (sums[name] ?? 0) + count;
    }
  }
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
});
