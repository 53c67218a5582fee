/** Scenarios in which one thing fails: both ends give up in time, and the next transfer works. */
import assert from "node:assert/strict";
import type { Scenario } from "./scenarios.ts";
import { PATIENCE_MS, until } from "../../patience.ts";
import { turns, type TwoEnds } from "./two_ends.ts";

/** Of transfers that run into their deadline. */
const DEADLINE_MS = 150;

let seeds = 1_000;

/** Sends two blocks, which must fail for `reason`; both ends are free again then. */
async function fails(ends: TwoEnds, reason: RegExp, leftMs = DEADLINE_MS): Promise<void> {
  const seed = seeds += 2;
  [0, 1].forEach((block) => ends.a.fill(block, seed + block));
  await assert.rejects(ends.send([0, 1], { to: [3, 4], leftMs }), reason);
  const isFree = () =>
    ends.a.pair.states.sending === "none" && ends.b.pair.states.receiving === "none" &&
    ends.b.arrivals.every(({ isMoved }) => isMoved !== null);
  await until(isFree, "both ends have aborted and the blocks are free");
  const [arrival] = ends.b.arrivals.slice(-1);
  if (arrival?.blocks[0] === 3 && arrival.blocks[1] === 4 && arrival.isMoved) {
    assert.ok(ends.b.has(3, seed) && ends.b.has(4, seed + 1), "said to have moved");
  }
}

/** A failure of one kind, then the fault is gone, and the pair works. */
function failure(
  name: string,
  reason: RegExp,
  inject: (ends: TwoEnds) => void,
  { opened = false, leftMs = DEADLINE_MS } = {},
): Scenario {
  return {
    name,
    async run(ends) {
      if (opened) await ends.works();
      inject(ends);
      await fails(ends, reason, leftMs);
      ends.faults.reset();
      ends.swallowed.clear();
      await ends.assertNothingLeft();
      await ends.works();
    },
  };
}

/** The end whose deadline passes first tells the other one, or the broken connection does. */
const deadline = /deadline has passed|remote process exited/;
const remote = /remote process exited/;

export const failureScenarios: readonly Scenario[] = [
  failure("the destination does not answer", deadline, (ends) => ends.swallowed.add("ready")),
  {
    name: "the destination does not hear: no id is made for it",
    async run(ends) {
      ends.swallowed.add("prepare");
      const failing = fails(ends, deadline);
      await turns();
      assert.equal(ends.faults.counts().roots, 0);
      await failing;
      ends.swallowed.clear();
      await ends.works();
    },
  },
  failure(
    "the destination says that it is ready, and never joins: the id is used up all the same",
    deadline,
    (ends) => ends.swallowed.add("open"),
  ),
  failure(
    "the destination is late to join",
    deadline,
    (ends) => ends.set("INIT_MS", 250, 1),
    { leftMs: 60 },
  ),
  failure(
    "the source is late to join its own id",
    deadline,
    (ends) => ends.set("INIT_MS", 250, 0),
    { leftMs: 60 },
  ),
  failure(
    "the destination does not post: state 7 for long, an empty stream",
    deadline,
    (ends) => ends.set("GROUP_MS", 60_000, 1),
    { opened: true },
  ),
  failure(
    "the first connection does not come about",
    deadline,
    (ends) => ends.set("CONNECT_MS", 60_000, 0),
  ),
  failure(
    "the bytes are too slow",
    deadline,
    (ends) => ends.set("MB_PER_S", 1),
    { opened: true },
  ),
  failure(
    "the network is cut, and nobody is told",
    deadline,
    (ends) => ends.set("CUT_AFTER_BYTES", 4_000_000),
    { opened: true },
  ),
  failure(
    "the connection breaks",
    remote,
    (ends) => ends.set("BREAK_AFTER_BYTES", 4_000_000),
    { opened: true, leftMs: PATIENCE_MS },
  ),
  failure(
    "an error of the destination's kernel, which hangs; the source's sees nothing",
    remote,
    (ends) => (ends.set("LATE_ERROR_GROUP", 2, 1), ends.set("SILENT_DEATH", 1)),
    { opened: true, leftMs: PATIENCE_MS },
  ),
  failure(
    "an error of the destination's kernel, which ends without data",
    remote,
    (ends) => {
      ends.set("LATE_ERROR_GROUP", 2, 1);
      ends.set("LATE_ERROR_ENDS", 1, 1);
      ends.set("KERNEL_MS", 30, 1);
    },
    { opened: true, leftMs: PATIENCE_MS },
  ),
  failure(
    "an error of the source's kernel, which ends",
    remote,
    (ends) => (ends.set("LATE_ERROR_GROUP", 2, 0), ends.set("LATE_ERROR_ENDS", 1, 0)),
    { opened: true, leftMs: PATIENCE_MS },
  ),
  failure(
    "both ends are on one device",
    /Duplicate GPU/,
    (ends) => ends.set("DEVICE", 42),
    { leftMs: PATIENCE_MS },
  ),
  {
    name:
      "small sends end before their receives: the source waits for the destination all the same",
    async run(ends) {
      await ends.works();
      ends.set("KERNEL_MS", 80, 1);
      const small = (end: TwoEnds["a"]) => end.runs([0], 1_000);
      ends.b.claimOtherBytes = 1_000;
      ends.a.fill(0, 500);
      await ends.a.pair.send(small(ends.a), { note: { blocks: [0] }, leftMs: PATIENCE_MS });
      assert.deepEqual(ends.b.memory.slice(0, 1_000), ends.a.memory.slice(0, 1_000));
      ends.set("LATE_ERROR_GROUP", 3, 1); // its receive fails, after the send has ended
      await assert.rejects(
        ends.a.pair.send(small(ends.a), { note: { blocks: [0] }, leftMs: PATIENCE_MS }),
        remote,
      );
      ends.b.claimOtherBytes = null;
      ends.faults.reset();
      await ends.works();
    },
  },
  {
    name: "the destination does not close: the source aborts at the deadline, and is not dead",
    async run(ends) {
      await ends.works();
      ends.swallowed.add("close");
      const startMs = performance.now();
      await ends.a.pair.closeSending(DEADLINE_MS);
      assert.ok(performance.now() - startMs >= DEADLINE_MS, "it waited for the destination");
      assert.equal(ends.a.pair.states.sending, "none");
      ends.swallowed.clear();
      await ends.works();
    },
  },
  {
    name: "NCCL refuses one send of a group: the group is ended, and the next one is a group again",
    async run(ends) {
      await ends.works();
      let sends = 0;
      ends.a.onSend = () => {
        if (++sends === 2) throw new Error("refused");
      };
      await fails(ends, /refused/, PATIENCE_MS);
      ends.a.onSend = () => {};
      await ends.works();
    },
  },
  {
    name: "an error comes with the event: the state that is read after the event counts",
    async run(ends) {
      await ends.works();
      ends.a.onEventDone = () => ends.a.asyncError = new Error("lost at the last moment");
      await assert.rejects(ends.send([0]), /lost at the last moment/);
      ends.a.onEventDone = () => {};
      ends.a.asyncError = null;
      await ends.works();
    },
  },
  {
    name: "many failures in a row leave nothing behind",
    async run(ends) {
      for (let round = 0; round < 3; round++) {
        ends.set("GROUP_MS", 60_000, round % 2 === 0 ? 0 : 1);
        await fails(ends, deadline, 100);
        ends.faults.reset();
      }
      await ends.assertNothingLeft();
      await ends.works();
    },
  },
];
