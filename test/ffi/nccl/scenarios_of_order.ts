/** Scenarios without a failure: agreement, order, lazy opening, orderly ends. */
import assert from "node:assert/strict";
import type { Scenario } from "./scenarios.ts";
import { PATIENCE_MS, until } from "../../patience.ts";
import { BLOCKS, turns } from "./two_ends.ts";

export const crossingScenarios: readonly Scenario[] = [
  {
    name: "nothing is opened before the first transfer, and one direction opens one communicator",
    async run(ends) {
      assert.equal(ends.faults.counts().communicators, 0);
      await ends.works();
      assert.deepEqual(ends.a.pair.states, { sending: "idle", receiving: "none" });
      assert.deepEqual(ends.b.pair.states, { sending: "none", receiving: "idle" });
      assert.equal(ends.faults.counts().communicators, 2, "a communicator at each end");
      await ends.works();
      assert.equal(ends.faults.counts().communicators, 2, "the same ones");
    },
  },
  {
    name: "init, connection, group and bytes are slow, and fast enough",
    async run(ends) {
      ends.set("INIT_MS", 40);
      ends.set("CONNECT_MS", 40);
      ends.set("GROUP_MS", 30);
      ends.set("KERNEL_MS", 20);
      ends.set("MB_PER_S", 40);
      await ends.works();
      await ends.works();
    },
  },
  {
    name: "transfers begun at once come over one after the other, each to its own blocks",
    async run(ends) {
      ends.set("MB_PER_S", 200);
      const blocks = [0, 1, 2, 3];
      blocks.forEach((block) => ends.a.fill(block, 100 + block));
      await Promise.all(blocks.map((block) => ends.send([block], { to: [BLOCKS - 1 - block] })));
      for (const block of blocks) assert.ok(ends.b.has(BLOCKS - 1 - block, 100 + block));
      assert.deepEqual(ends.b.arrivals.map(({ blocks }) => blocks[0]), [7, 6, 5, 4]);
    },
  },
  {
    name: "crossing transfers do not wait for each other",
    async run(ends) {
      ends.set("MB_PER_S", 100);
      for (let round = 0; round < 3; round++) {
        [0, 1].forEach((block) => ends.a.fill(block, 10 * round + block));
        [2, 3].forEach((block) => ends.b.fill(block, 10 * round + block));
        await Promise.all([
          ends.send([0, 1], { to: [6, 7] }),
          ends.send([2, 3], { from: ends.b, to: [4, 5] }),
        ]);
        assert.ok(ends.b.has(6, 10 * round) && ends.b.has(7, 10 * round + 1));
        assert.ok(ends.a.has(4, 10 * round + 2) && ends.a.has(5, 10 * round + 3));
      }
    },
  },
  {
    name: "the destination has runs of other sizes: refused, nothing moves, the pair lives on",
    async run(ends) {
      ends.b.claimOtherBytes = 1 << 20;
      await assert.rejects(ends.send([0]), /run 0: 1114112 bytes were offered for 1048576/);
      assert.equal(ends.b.arrivals.at(-1)?.isMoved, false, "released");
      ends.b.claimOtherBytes = null;
      await assert.rejects(ends.send([0, 1], { to: [2] }), /2 runs were offered for 1/);
      await assert.rejects(ends.send([0], { to: [BLOCKS] }), /no such block/);
      assert.equal(ends.a.pair.states.sending, "idle", "a refusal costs no communicator");
      await ends.works();
    },
  },
  {
    name: "a message twice, an old epoch, and nonsense",
    async run(ends) {
      await ends.works();
      const open = ends.a.sent.find(({ kind }) => kind === "open")!;
      const offer = ends.a.sent.find(({ kind }) => kind === "offer")!;
      ends.b.pair.receive({ ...offer, epoch: 7, number: 9 }); // of no epoch that has begun
      for (const nonsense of [null, 1, {}, { ...open, id: "00" }, { ...offer, bytes: [-1] }]) {
        assert.throws(() => ends.b.pair.receive(nonsense), /not a message of an NCCL pair/);
      }
      ends.b.pair.receive({ ...offer, bytes: [1] });
      // The same number twice is a fault of the source: both ends abort, and nothing moves.
      await until(() => ends.a.pair.states.sending === "none", "the source aborts");
      assert.equal(ends.b.arrivals.length, 1, "no runs were claimed for it");
      await ends.works();
      const late = { kind: "fail", epoch: 0, reason: "late" }; // epoch 0 is over
      ends.b.pair.receive(offer);
      ends.b.pair.receive({ ...late, from: "source" });
      ends.a.pair.receive({ ...late, from: "destination" });
      await turns();
      assert.equal(ends.a.pair.states.sending, "idle");
      assert.equal(ends.b.pair.states.receiving, "idle");
      await ends.works();
    },
  },
  {
    name: "an idle communicator is closed by both ends, and made again when it is needed",
    async run(ends) {
      for (let round = 0; round < 2; round++) {
        await ends.works();
        await ends.a.pair.closeSending(PATIENCE_MS);
        await until(() => ends.b.pair.states.receiving === "none", "b has closed, too");
        await ends.assertNothingLeft();
      }
      await ends.works();
    },
  },
  {
    name: "a close waits for the transfer under way",
    async run(ends) {
      ends.set("MB_PER_S", 20);
      ends.a.fill(0, 77);
      const sending = ends.send([0], { to: [7] });
      await until(() => ends.a.pair.states.sending === "moving", "it moves");
      const closing = ends.a.pair.closeSending(PATIENCE_MS);
      await Promise.all([sending, closing]);
      assert.ok(ends.b.has(7, 77));
      assert.equal(ends.a.pair.states.sending, "none");
    },
  },
];
