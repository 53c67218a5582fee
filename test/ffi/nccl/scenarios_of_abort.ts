/** Scenarios of the abort: which end waits for the other, when blocks are free, and the event loop. */
import assert from "node:assert/strict";
import type { Scenario } from "./scenarios.ts";
import { lateness, sleep, TwoEnds, until } from "./two_ends.ts";

/** A transfer of `ends` that moves, and will not end by itself. */
async function stuck(ends: TwoEnds, leftMs = 10_000) {
  if (ends.a.pair.states.sending === "none") await ends.works();
  ends.set("MB_PER_S", 1);
  ends.set("SILENT_DEATH", 1); // the ends learn of each other's abort by a message, not by an error
  const controller = new AbortController();
  const { signal } = controller;
  const sending = ends.send([0, 1], { to: [3, 4], leftMs, signal });
  sending.catch(() => {});
  await until(() => ends.a.pair.states.sending === "moving", 2_000, "it moves");
  return { sending, abort: () => controller.abort() };
}

const incoming = (ends: TwoEnds) => ends.b.arrivals.at(-1)!;
const isOver = (ends: TwoEnds) =>
  ends.a.pair.states.sending === "none" && ends.b.pair.states.receiving === "none";

/** The event loop may be late while others use the CPU: the best of three counts. */
const LATE_MS = 20;

export const abortScenarios: readonly Scenario[] = [
  {
    name: "the source gives up: both ends abort, and the blocks are free",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      abort();
      await assert.rejects(sending, /was aborted/);
      await until(() => incoming(ends).isMoved === false, 500, "the blocks are free");
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the source gives up while it waits for its turn: the transfer before goes on",
    async run(ends) {
      ends.set("MB_PER_S", 20);
      ends.a.fill(0, 5);
      const first = ends.send([0], { to: [7] });
      const controller = new AbortController();
      const second = ends.send([1], { to: [6], signal: controller.signal });
      const third = ends.send([2], { to: [5], leftMs: 40 });
      controller.abort();
      await assert.rejects(second, /was aborted/);
      await assert.rejects(third, /an earlier transfer of the pair still runs/);
      await first;
      assert.ok(ends.b.has(7, 5));
      assert.equal(ends.b.arrivals.length, 1);
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the destination takes its blocks back",
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.b.pair.stopReceiving(new Error("the migration was revoked"));
      await assert.rejects(sending, /the migration was revoked/);
      await until(() => incoming(ends).isMoved === false, 500, "the blocks are free");
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the blocks are not free before the source's abort has returned",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", 150, 0);
      abort();
      await until(() => ends.b.pair.states.receiving === "none", 500, "the destination aborted");
      await sleep(50);
      assert.equal(incoming(ends).isMoved, null, "the source can still write");
      await assert.rejects(sending, /was aborted/);
      await until(() => incoming(ends).isMoved === false, 200, "the source told of its abort");
    },
  },
  {
    name: "the blocks are not free before the destination's abort has returned",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", 150, 1);
      abort();
      await assert.rejects(sending, /was aborted/);
      await sleep(50);
      assert.equal(incoming(ends).isMoved, null, "the destination's kernel can still write");
      await until(() => incoming(ends).isMoved === false, 500, "the abort returned");
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the next transfer waits for the destination's slow abort",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.faults.reset();
      ends.set("ABORT_MS", 150, 1);
      abort();
      await assert.rejects(sending, /was aborted/);
      await ends.works();
    },
  },
  {
    name: "the source's word of its abort is lost: the next transfer says as much",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      const arrival = incoming(ends);
      ends.swallowed.add("aborted");
      abort();
      await assert.rejects(sending, /was aborted/);
      await sleep(30);
      assert.equal(arrival.isMoved, null);
      ends.faults.reset();
      await ends.works();
      assert.equal(arrival.isMoved, false);
    },
  },
  {
    name: "an abort that waits for the peer's costs nothing, for both ends abort at once",
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.set("ABORT_WAITS_PEER", 2_000);
      const startMs = performance.now();
      ends.b.pair.stopReceiving(new Error("revoked"));
      await assert.rejects(sending, /revoked/);
      await until(() => isOver(ends), 1_000, "both have aborted");
      assert.ok(performance.now() - startMs < 1_000);
    },
  },
  {
    name: "two pairs are stuck, and abort waits for the device: they abort at once",
    async run(ends) {
      const others = new TwoEnds(ends.module, ends.libraries, 5_000);
      await others.works();
      const one = await stuck(ends);
      const two = await stuck(others);
      ends.set("ABORT_WAITS_DEVICE", 1);
      one.abort();
      await sleep(20);
      two.abort();
      await assert.rejects(one.sending, /was aborted/);
      await assert.rejects(two.sending, /was aborted/);
      await until(() => isOver(ends) && isOver(others), 1_000, "all have aborted");
      ends.faults.reset();
      await others.works();
      await Promise.all([others.a, others.b].map((end) => end.pair.close(1_000)));
    },
  },
  {
    name: "abort, destroy and finalize take long: the event loop does not wait",
    async run(ends) {
      let bestMs = Infinity;
      for (let i = 0; i < 3 && bestMs > LATE_MS; i++) {
        ends.faults.reset();
        const { sending, abort } = await stuck(ends);
        ends.set("ABORT_MS", 120);
        const lateMs = await lateness(async () => {
          abort();
          await assert.rejects(sending, /was aborted/);
          await until(() => isOver(ends), 1_000, "both have aborted");
        });
        bestMs = Math.min(bestMs, lateMs);
      }
      assert.ok(bestMs <= LATE_MS, `the event loop was ${bestMs.toFixed(1)} ms late`);
    },
  },
  {
    name: "opening and posting take long: the event loop does not wait",
    async run(ends) {
      let bestMs = Infinity;
      for (let i = 0; i < 3 && bestMs > LATE_MS; i++) {
        for (const fault of ["INIT_MS", "CONNECT_MS", "GROUP_MS", "KERNEL_MS"] as const) {
          ends.set(fault, 40);
        }
        const [block] = [0];
        bestMs = Math.min(bestMs, await lateness(() => ends.send([block], { to: [1] })));
        await ends.a.pair.closeSending(1_000);
      }
      assert.ok(bestMs <= LATE_MS, `the event loop was ${bestMs.toFixed(1)} ms late`);
    },
  },
  {
    name: "an abort that does not return in time: the pair is dead, and its blocks stay in use",
    abortLimitMs: 60,
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.set("ABORT_MS", 250, 1);
      let died = "";
      ends.b.pair.died.then((reason) => died = reason);
      ends.b.pair.stopReceiving(new Error("revoked"));
      await assert.rejects(sending, /revoked/);
      await until(() => died !== "", 500, "the destination is dead");
      assert.match(died, /restart the process/);
      assert.equal(incoming(ends).isMoved, null, "NCCL may still write them");
      await assert.rejects(ends.send([0], { leftMs: 2_000 }), /restart the process/);
      await sleep(250);
      assert.equal(incoming(ends).isMoved, null, "for good");
      ends.faults.reset();
      await ends.b.pair.close(100).catch(() => {});
      await ends.a.pair.close(100);
      await assert.rejects(ends.b.pair.close(100), /restart the process/);
      ends.b.pair.close = () => Promise.resolve();
    },
  },
  {
    name: "an abort that fails says nothing of NCCL's kernels: the pair is dead",
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.b.abortError = new Error("unhandled cuda error");
      ends.b.pair.stopReceiving(new Error("revoked"));
      await assert.rejects(sending, /revoked/);
      assert.match(await ends.b.pair.died, /unhandled cuda error/);
      assert.equal(incoming(ends).isMoved, null);
      ends.b.pair.close = () => Promise.resolve();
    },
  },
  {
    name: "the next transfer does not wait for a slow abort longer than its deadline",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", 300, 0);
      abort();
      const startMs = performance.now();
      await assert.rejects(ends.send([0], { leftMs: 60 }), /deadline has passed/);
      assert.ok(performance.now() - startMs < 200);
      await assert.rejects(sending, /was aborted/);
    },
  },
  {
    name: "an abort of the source that does not return in time: it sends nothing any more",
    abortLimitMs: 60,
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", 250, 0);
      abort();
      await assert.rejects(sending, { name: "PairDeadError" });
      await assert.rejects(ends.send([0]), { name: "PairDeadError" });
      assert.equal(incoming(ends).isMoved, null, "the source never said that it has aborted");
      ends.b.pair.peerDied();
      await until(() => incoming(ends).isMoved === false, 500, "the source's process was ended");
      await sleep(250);
      ends.a.pair.close = () => Promise.resolve();
    },
  },
  {
    name: "the channel is lost in mid-transfer: the blocks are free when it is there again",
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.isLost = true;
      for (const end of [ends.a, ends.b]) end.pair.lose(new Error("no heartbeat"));
      await assert.rejects(sending, /no heartbeat/);
      await until(() => isOver(ends), 500, "both have aborted");
      await sleep(30);
      assert.equal(incoming(ends).isMoved, null, "the source may still write");
      await assert.rejects(ends.send([0]), /the channel is lost/);
      ends.isLost = false;
      ends.a.pair.restore();
      await until(() => incoming(ends).isMoved === false, 200, "the source has said so");
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the channel is lost, and the source is dead",
    async run(ends) {
      const { sending } = await stuck(ends);
      ends.isLost = true;
      ends.b.pair.lose(new Error("no heartbeat"));
      await until(() => ends.b.pair.states.receiving === "none", 500, "the destination aborts");
      await sleep(30);
      assert.equal(incoming(ends).isMoved, null, "silent is not dead");
      ends.b.pair.peerDied();
      await until(() => incoming(ends).isMoved === false, 100, "the blocks are free");
      ends.a.pair.lose(new Error("no heartbeat"));
      await assert.rejects(sending, /no heartbeat/);
    },
  },
];
