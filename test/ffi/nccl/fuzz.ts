/**
 * Transfers in both directions with random faults at random times, from a seed. Each transfer must settle
 * in time; the bytes of each success must be right; released memory must not change. In the end the pair
 * must work, and nothing may be left behind.
 */
import assert from "node:assert/strict";
import type { Fault, PairModule } from "./software_nccl.ts";
import { pause as sleep, until } from "../../patience.ts";
import { type End, type Libraries, TwoEnds } from "./two_ends.ts";

const TRANSFERS = 14;
const MAX_LEFT_MS = 500;
/** What comes on top of a deadline: aborts of both ends, an id that is used up. */
const GRACE_MS = 1_000;

/** What may be broken for a while, by the values that it may have. */
const faults: readonly (readonly [Fault, readonly number[]])[] = [
  ["INIT_MS", [20, 120]],
  ["CONNECT_MS", [20, 60_000]],
  ["GROUP_MS", [10, 150, 60_000]],
  ["KERNEL_MS", [10, 80, 60_000]],
  ["MB_PER_S", [2, 30, 200]],
  ["SILENT_DEATH", [1]],
  ["LATE_ERROR_GROUP", [1, 2, 3]],
  ["LATE_ERROR_ENDS", [1]],
  ["CUT_AFTER_BYTES", [100_000, 3_000_000]],
  ["BREAK_AFTER_BYTES", [100_000, 3_000_000]],
  ["ABORT_MS", [30, 150]],
  ["ABORT_WAITS_PEER", [100]],
];
const kinds = ["prepare", "ready", "open", "offer", "posting", "done", "fail", "aborted"];

/** xorshift32. */
class Random {
  #state: number;
  constructor(seed: number) {
    this.#state = (seed * 2654435761 | 1) >>> 0;
  }
  below(bound: number): number {
    this.#state ^= this.#state << 13;
    this.#state ^= this.#state >>> 17;
    this.#state ^= this.#state << 5;
    return (this.#state >>> 0) % bound;
  }
  of<T>(values: readonly T[]): T {
    return values[this.below(values.length)];
  }
}

/** What a seed came to. */
export interface FuzzOutcome {
  readonly moved: number;
  readonly failed: number;
}

export async function fuzz(
  seed: number,
  module: PairModule,
  libraries: Libraries,
): Promise<FuzzOutcome> {
  const random = new Random(seed);
  const ends = new TwoEnds(module, libraries);
  const watch = [watchReleases(ends.a), watchReleases(ends.b)];
  repair(ends);
  let moved = 0, failed = 0, isOver = false;

  const transfers = Array.from({ length: TRANSFERS }, async (_, i) => {
    const from = i % 2 === 0 ? ends.a : ends.b, to = i % 2 === 0 ? ends.b : ends.a;
    // Transfers that may wait at the same time read from blocks of their own.
    const source = (i >> 1) % 4, target = 4 + random.below(4);
    const leftMs = 60 + random.below(MAX_LEFT_MS), pattern = seed * 100 + i;
    const controller = new AbortController();
    const cancelMs = random.below(4) === 0 ? random.below(leftMs) : null;
    await sleep((i >> 1) * 150 + random.below(100));
    await (i >= 8 ? previous[i - 8] : null);
    from.fill(source, pattern);
    const cancel = cancelMs === null ? 0 : setTimeout(() => controller.abort(), cancelMs);
    const startMs = performance.now();
    const { signal } = controller;
    try {
      await ends.send([source], { from, to: [target], leftMs, signal });
      assert.ok(to.has(target, pattern), `seed ${seed}: transfer ${i} moved other bytes`);
      moved++;
    } catch (error) {
      if (error instanceof assert.AssertionError) throw error;
      failed++;
    } finally {
      clearTimeout(cancel);
    }
    const tookMs = performance.now() - startMs;
    assert.ok(
      tookMs < leftMs + GRACE_MS,
      `seed ${seed}: transfer ${i} took ${tookMs.toFixed(0)} ms`,
    );
  });
  const previous = transfers;

  const breaking = (async () => {
    while (!isOver) {
      await sleep(random.below(120));
      breakSomething(ends, random);
      await sleep(random.below(150));
      repair(ends);
    }
  })();

  await Promise.all(transfers);
  isOver = true;
  await breaking;
  repair(ends);
  await settle(ends);
  for (const stop of watch) await stop();
  await ends.works();
  await ends.close(); // resets the faults
  return { moved, failed };
}

function breakSomething(ends: TwoEnds, random: Random): void {
  const reason = new Error("the fuzzer");
  switch (random.below(8)) {
    case 0:
      ends.swallowed.add(random.of(kinds));
      break;
    case 1:
      ends.isLost = true;
      for (const end of [ends.a, ends.b]) end.pair.lose(reason);
      break;
    case 2:
      random.of([ends.a, ends.b]).pair.stopReceiving(reason);
      break;
    default:
      for (let count = 1 + random.below(2); count > 0; count--) {
        const [fault, values] = random.of(faults);
        ends.set(fault, random.of(values), random.below(2) as 0 | 1);
      }
  }
}

/** Also without a fault, bytes move for a while, and go on moving for a while after an abort began. */
function repair(ends: TwoEnds): void {
  ends.faults.reset();
  ends.set("MB_PER_S", 30);
  ends.set("ABORT_MS", 25);
  ends.swallowed.clear();
  ends.isLost = false;
  for (const end of [ends.a, ends.b]) end.pair.restore();
}

/** Both directions come to rest: a lost "fail" leaves one end open until the next transfer. */
async function settle(ends: TwoEnds): Promise<void> {
  for (const from of [ends.a, ends.b]) {
    const attempt = () =>
      ends.send([0], { from, to: [4], leftMs: 1_000 }).then(() => true, () => false);
    const isMoved = await attempt() || await attempt();
    assert.ok(isMoved, "two transfers in a row fail without a fault");
  }
  const isReleased = () =>
    [ends.a, ends.b].every(({ arrivals }) => arrivals.every(({ isMoved }) => isMoved !== null));
  await until(isReleased, "all runs are released");
}

/**
 * Marks blocks that were released after a failure, and checks later that nothing has written them but a
 * newer transfer.
 */
function watchReleases(end: End): () => Promise<void> {
  const MARK = 7_777_777;
  let seen = 0, isOver = false;
  const marked = new Map<number, number>();
  const check = () => {
    for (const [block, arrivals] of marked) {
      const isClaimed = end.arrivals.slice(arrivals).some(({ blocks }) => blocks.includes(block));
      if (!isClaimed) {
        assert.ok(end.has(block, MARK), `block ${block} was written after its release`);
      }
      marked.delete(block);
    }
  };
  const watching = (async () => {
    while (!isOver) {
      const [next] = end.arrivals.slice(seen);
      if (next === undefined || next.isMoved === null) await sleep(1);
      else {
        seen++;
        const [block] = next.blocks;
        const isClaimedAgain = end.arrivals.slice(seen).some(({ blocks }) =>
          blocks.includes(block)
        );
        if (next.isMoved || isClaimedAgain) continue;
        end.fill(block, MARK);
        marked.set(block, end.arrivals.length);
        await sleep(20);
        check();
      }
    }
  })();
  return async () => {
    isOver = true;
    await watching;
  };
}
