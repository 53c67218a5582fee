/** Scenarios of the abort: which end waits for the other, when blocks are free, and the event loop. */
import assert from "node:assert/strict";
import type { Scenario } from "./scenarios.ts";
import { ENDLESS_MS, PATIENCE_MS, until, watch } from "../../patience.ts";
import { BLOCK_BYTES, turns, TwoEnds } from "./two_ends.ts";

/** A transfer of `ends` that moves, and will not end by itself. */
async function stuck(ends: TwoEnds) {
  if (ends.a.pair.states.sending === "none") await ends.works();
  ends.set("MB_PER_S", 1);
  ends.set("CUT_AFTER_BYTES", 4 * BLOCK_BYTES); // the first transfer had three blocks
  ends.set("SILENT_DEATH", 1); // the ends learn of each other's abort by a message, not by an error
  const controller = new AbortController();
  const { signal } = controller;
  const sending = ends.send([0, 1], { to: [3, 4], signal });
  sending.catch(() => {});
  await until(() => ends.a.pair.states.sending === "moving", "it moves");
  return { sending, abort: () => controller.abort() };
}

const incoming = (ends: TwoEnds) => ends.b.arrivals.at(-1)!;
const isOver = (ends: TwoEnds) =>
  ends.a.pair.states.sending === "none" && ends.b.pair.states.receiving === "none";

/** Lets aborts of a rank return, which `ABORT_MS` held back. */
const letAbort = (ends: TwoEnds, rank: 0 | 1) => ends.set("ABORT_MS", 0, rank);

export const abortScenarios: readonly Scenario[] = [
  {
    name: "the source gives up: both ends abort, and the blocks are free",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      abort();
      await assert.rejects(sending, /was aborted/);
      await until(() => incoming(ends).isMoved === false, "the blocks are free");
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
      const third = ends.send([2], { to: [5], leftMs: 1 });
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
      await until(() => incoming(ends).isMoved === false, "the blocks are free");
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the blocks are not free before the source's abort has returned",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", ENDLESS_MS, 0);
      abort();
      await until(() => ends.b.pair.states.receiving === "none", "the destination aborted");
      await turns();
      assert.equal(incoming(ends).isMoved, null, "the source can still write");
      letAbort(ends, 0);
      await assert.rejects(sending, /was aborted/);
      await until(() => incoming(ends).isMoved === false, "the source told of its abort");
    },
  },
  {
    name: "the blocks are not free before the destination's abort has returned",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", ENDLESS_MS, 1);
      abort();
      await assert.rejects(sending, /was aborted/);
      await turns();
      assert.equal(incoming(ends).isMoved, null, "the destination's kernel can still write");
      letAbort(ends, 1);
      await until(() => incoming(ends).isMoved === false, "the abort returned");
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
      await turns();
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
      ends.set("ABORT_WAITS_PEER", ENDLESS_MS);
      ends.b.pair.stopReceiving(new Error("revoked"));
      await assert.rejects(sending, /revoked/);
      await until(() => isOver(ends), "both have aborted");
    },
  },
  {
    name: "two pairs are stuck, and abort waits for the device: they abort at once",
    async run(ends) {
      const others = new TwoEnds(ends.module, ends.libraries);
      await others.works();
      const one = await stuck(ends);
      const two = await stuck(others);
      ends.set("ABORT_WAITS_DEVICE", 1);
      one.abort();
      await turns();
      two.abort();
      await assert.rejects(one.sending, /was aborted/);
      await assert.rejects(two.sending, /was aborted/);
      await until(() => isOver(ends) && isOver(others), "all have aborted");
      ends.faults.reset();
      await others.works();
      await Promise.all([others.a, others.b].map((end) => end.pair.close(PATIENCE_MS)));
    },
  },
  {
    name: "aborts take long: the event loop does not wait",
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", ENDLESS_MS);
      const state = watch(sending);
      abort();
      await turns();
      assert.ok(!state.isSettled, "the abort is under way");
      ends.set("ABORT_MS", 0);
      await assert.rejects(sending, /was aborted/);
      await until(() => isOver(ends), "both have aborted");
    },
  },
  {
    name: "opening and posting take long: the event loop does not wait",
    async run(ends) {
      const steps = ["INIT_MS", "CONNECT_MS", "GROUP_MS", "KERNEL_MS"] as const;
      for (const fault of steps) ends.set(fault, ENDLESS_MS);
      const sending = ends.send([0], { to: [1] });
      const state = watch(sending);
      const states = {
        INIT_MS: "opening",
        CONNECT_MS: "posting",
        GROUP_MS: "posting",
        KERNEL_MS: "moving",
      };
      for (const fault of steps) {
        await until(() => ends.a.pair.states.sending === states[fault], `it is ${states[fault]}`);
        await turns();
        assert.ok(!state.isSettled);
        ends.set(fault, 0);
      }
      await sending;
    },
  },
  {
    name: "an abort that does not return in time: the pair is dead, and its blocks stay in use",
    abortLimits: { b: 60 },
    async run(ends) {
      const { communicators } = ends.faults.counts();
      const { sending } = await stuck(ends);
      ends.set("ABORT_MS", ENDLESS_MS, 1);
      let died = "";
      ends.b.pair.died.then((reason) => died = reason);
      ends.b.pair.stopReceiving(new Error("revoked"));
      await assert.rejects(sending, /revoked/);
      await until(() => died !== "", "the destination is dead");
      assert.match(died, /restart the process/);
      assert.equal(incoming(ends).isMoved, null, "NCCL may still write them");
      await assert.rejects(ends.send([0]), /restart the process/);
      letAbort(ends, 1);
      await until(() => ends.faults.counts().communicators === communicators, "the abort returns");
      await turns();
      assert.equal(incoming(ends).isMoved, null, "for good");
      ends.faults.reset();
      await ends.b.pair.close(PATIENCE_MS).catch(() => {});
      await ends.a.pair.close(PATIENCE_MS);
      await assert.rejects(ends.b.pair.close(PATIENCE_MS), /restart the process/);
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
      ends.set("ABORT_MS", ENDLESS_MS, 0);
      abort();
      await assert.rejects(ends.send([0], { leftMs: 60 }), /deadline has passed/);
      letAbort(ends, 0);
      await assert.rejects(sending, /was aborted/);
    },
  },
  {
    name: "an abort of the source that does not return in time: it sends nothing any more",
    abortLimits: { a: 60 },
    async run(ends) {
      const { sending, abort } = await stuck(ends);
      ends.set("ABORT_MS", ENDLESS_MS, 0);
      abort();
      await assert.rejects(sending, { name: "PairDeadError" });
      await assert.rejects(ends.send([0]), { name: "PairDeadError" });
      assert.equal(incoming(ends).isMoved, null, "the source never said that it has aborted");
      ends.b.pair.peerDied();
      await until(() => incoming(ends).isMoved === false, "the source's process was ended");
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
      await until(() => isOver(ends), "both have aborted");
      await turns();
      assert.equal(incoming(ends).isMoved, null, "the source may still write");
      await assert.rejects(ends.send([0]), /the channel is lost/);
      ends.isLost = false;
      ends.a.pair.restore();
      await until(() => incoming(ends).isMoved === false, "the source has said so");
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
      await until(() => ends.b.pair.states.receiving === "none", "the destination aborts");
      await turns();
      assert.equal(incoming(ends).isMoved, null, "silent is not dead");
      ends.b.pair.peerDied();
      await until(() => incoming(ends).isMoved === false, "the blocks are free");
      ends.a.pair.lose(new Error("no heartbeat"));
      await assert.rejects(sending, /no heartbeat/);
    },
  },
];
