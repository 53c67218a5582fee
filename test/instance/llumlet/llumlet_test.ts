import assert from "node:assert/strict";
import type { AnyPeer } from "../../../src/bus/transport.ts";
import { generateRequest } from "../support.ts";
import { type InstanceShape, pair } from "./world.ts";

Deno.test("llumlet: a running request moves in stages, and its tokens are as if it had not", async () => {
  const { world, a, b } = await pair();
  const request = generateRequest("r", 40, { maxTokens: 60, seed: 7 });
  const followed = await world.generate(a, request);
  await world.until(() => followed.tokens.length === 5);
  const report = await world.migrate(a, b);
  assert.equal(report.outcome, "committed", report.reason);
  assert.deepEqual([report.requestId, report.sourceId, report.destinationId], ["r", "a", "b"]);
  assert.ok(report.stages >= 2);
  const blocks = Math.ceil((report.lengthTokens - 1) / 4);
  assert.equal(report.blocks, blocks);
  assert.equal(report.transfer.bytes, blocks * 64);
  // Rounds are of 2 blocks and 1 layer.
  assert.ok(report.transfer.rounds >= Math.ceil(blocks / 2) * 2);
  assert.equal(report.transfer.descriptors, blocks * 2);
  assert.ok(report.downtimeMs > 0 && report.downtimeMs < report.totalMs);
  assert.ok(a.isEmpty);
  await world.checkEnd();
  assert.equal(followed.tokens.length, 60);
  assert.deepEqual(followed.epochs, [0, 1]);
  const announcement = followed.outputs.find(({ epoch }) => epoch === 1)!;
  assert.deepEqual(announcement.tokenIds, [], "the new owner makes itself known");
});

Deno.test("llumlet: back and forth ten times", async () => {
  const { world, a, b } = await pair();
  const followed = await world.generate(a, generateRequest("r", 9, { maxTokens: 150, seed: 3 }));
  await world.until(() => followed.tokens.length > 0);
  for (let i = 0; i < 10; i++) {
    const [source, destination] = i % 2 === 0 ? [a, b] : [b, a];
    const report = await world.migrate(source, destination);
    assert.equal(report.outcome, "committed", report.reason);
    await world.pass(25);
  }
  await world.checkEnd();
  assert.deepEqual(followed.epochs, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
});

Deno.test("llumlet: in the first decode step and in the last", async () => {
  for (const tokens of [1, 9]) {
    const { world, a, b } = await pair({ blockMs: 0.01 });
    const followed = await world.generate(a, generateRequest("r", 11, { maxTokens: 10, seed: 2 }));
    await world.until(() => followed.tokens.length === tokens);
    const report = await world.migrate(a, b);
    // A request that ends in the very step that is its last here does not move any more.
    const expected = tokens === 1 ? "committed" : "finished";
    assert.equal(report.outcome, expected, report.reason);
    await world.checkEnd();
    assert.equal(followed.tokens.length, 10);
  }
});

Deno.test("llumlet: the last token is produced at the destination", async () => {
  const { world, a, b } = await pair({ blockMs: 0.01 });
  const followed = await world.generate(a, generateRequest("r", 11, { maxTokens: 10, seed: 2 }));
  await world.until(() => followed.tokens.length === 8);
  const report = await world.migrate(a, b);
  assert.deepEqual([report.outcome, report.lengthTokens], ["committed", 20]);
  await world.checkEnd();
  assert.equal(followed.outputs.at(-1)!.epoch, 1);
});

Deno.test("llumlet: stages before the last take their time, if that is of use and the order not urgent", async () => {
  const cases = [[false, false], [true, false], [false, true]] as const;
  for (const [isUrgent, copiesBesideSteps] of cases) {
    const sent: (boolean | undefined)[] = [];
    const { world, a, b } = await pair({
      copiesBesideSteps,
      wrapBackend: (backend) => ({
        name: backend.name,
        isReady: true,
        endpoint: backend.endpoint,
        grant: (...args) => backend.grant(...args),
        revoke: (...args) => backend.revoke(...args),
        close: () => backend.close(),
        send(transfer, signal) {
          sent.push(transfer.isBackground);
          return backend.send(transfer, signal);
        },
      }),
    });
    await world.generate(a, generateRequest("r", 40, { maxTokens: 60 }));
    await world.pass(40);
    const report = await world.migrate(a, b, { isUrgent });
    assert.equal(report.outcome, "committed", report.reason);
    assert.ok(report.stages >= 2);
    assert.equal(sent.length, report.stages);
    assert.deepEqual(
      sent,
      sent.map((_, i) => !isUrgent && !copiesBesideSteps && i < sent.length - 1),
    );
    await world.checkEnd();
  }
});

Deno.test("llumlet: the last stage's blocks are made ready before, and nothing is while it comes", async () => {
  const happened: [what: "prepare" | "grant", blocks: readonly number[]][] = [];
  const { world, a, b } = await pair({}, {
    wrapBackend: (backend) => ({
      name: backend.name,
      isReady: true,
      endpoint: backend.endpoint,
      grant(migrationId, blocks) {
        happened.push(["grant", blocks]);
        return backend.grant(migrationId, blocks);
      },
      prepare: (blocks) => void happened.push(["prepare", blocks]),
      revoke: (...args) => backend.revoke(...args),
      close: () => backend.close(),
      send: (...args) => backend.send(...args),
    }),
  });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 60 }));
  await world.pass(40);
  const report = await world.migrate(a, b);
  assert.deepEqual([report.outcome, report.stages], ["committed", 2]);
  assert.deepEqual(happened.map(([what]) => what), ["grant", "prepare", "grant"]);
  const [, [, prepared], [, last]] = happened;
  assert.ok(last.length > 0 && last.every((block) => prepared.includes(block)));
  await world.checkEnd();
});

Deno.test("llumlet: few blocks are made ready, however many run and are said to follow", async () => {
  const prepared: (readonly number[])[] = [];
  const { world, b } = await pair({}, {
    numBlocks: 400,
    wrapBackend: (backend) => ({
      name: backend.name,
      isReady: true,
      endpoint: backend.endpoint,
      grant: (...args) => backend.grant(...args),
      prepare: (blocks) => void prepared.push(blocks),
      revoke: (...args) => backend.revoke(...args),
      close: () => backend.close(),
      send: (...args) => backend.send(...args),
    }),
  });
  for (let i = 0; i < 6; i++) {
    await world.generate(b, generateRequest(`${i}`, 5, { maxTokens: 40 }));
  }
  await world.until(() => b.engine.queues().running.length === 6);
  const peer: AnyPeer = world.peer(b);
  const call = (method: string, data: object) =>
    world.wait(peer.call(method, { data: { migrationId: "m", ...data } }));
  await world.openMigration(b, 6);
  for (const [stage, nextBlocks] of [2, 60, 1_000].entries()) {
    await call("migrate_reserve", { stage, blocks: 1, nextBlocks });
  }
  assert.deepEqual(prepared.map(({ length }) => length), [8, 64, 64]);
  await assert.rejects(
    call("migrate_reserve", { stage: 3, blocks: 1, nextBlocks: -2 }),
    /stage 3 of migration m: nextBlocks is -2: expected a whole number of blocks, 0 or more/,
  );
  await assert.rejects(
    call("migrate_reserve", { stage: 3, blocks: null }),
    /stage 3 of migration m: blocks is null: expected/,
  );
  await assert.rejects(
    call("migrate_reserve", { stage: 4, blocks: 1 }),
    /stage 4 of migration m: expected stage 3/,
  );
  world.peer(b).notify("migrate_cancel", { data: { migrationId: "m" } });
  await world.checkEnd();
});

Deno.test("llumlet: nothing leaves when there is nothing, and before a prompt is computed", async () => {
  const { world, a, b } = await pair({ stepMs: () => 100 });
  assert.equal((await world.migrate(a, b)).outcome, "nothing");
  await world.generate(a, generateRequest("r", 11, { maxTokens: 3 }));
  await world.pass(20);
  const report = await world.migrate(a, b);
  assert.deepEqual([report.outcome, report.requestId], ["nothing", null]);
  assert.equal((await world.migrate(a, b, { requestId: "nobody" })).outcome, "nothing");
  await world.checkEnd();
});

Deno.test("llumlet: the policy chooses, or the order names the request", async () => {
  const { world, a, b } = await pair();
  const lengths = { short: 5, long: 30, last: 12 };
  let arrivalMs = 0;
  for (const [id, length] of Object.entries(lengths)) {
    arrivalMs++;
    await world.generate(a, generateRequest(id, length, { maxTokens: 80 }, { arrivalMs }));
  }
  await world.pass(40);
  const moved = async (order: Parameters<typeof world.migrate>[2]) => {
    const report = await world.migrate(a, b, order);
    assert.equal(report.outcome, "committed", report.reason);
    return report.requestId;
  };
  assert.equal(await moved({ policy: "LCR" }), "last");
  assert.equal(await moved({ policy: "SR" }), "short");
  assert.equal(await moved({ policy: "SR", requestId: "long" }), "long");
  await world.checkEnd();
});

Deno.test("llumlet: other models and other layouts are refused, both named", async () => {
  const cases: [InstanceShape, RegExp][] = [
    [{ model: "other" }, /b serves other, and a serves paged/],
    [{ blockSize: 8 }, /caches of b and a differ: blockSize is 8 here and 4 there/],
  ];
  for (const [shape, reason] of cases) {
    const { world, a, b } = await pair({}, shape);
    await world.generate(a, generateRequest("r", 11, { maxTokens: 20 }));
    await world.pass(15);
    const report = await world.migrate(a, b);
    assert.equal(report.outcome, "aborted_destination");
    assert.match(report.reason, reason);
    await world.checkEnd();
  }
});

Deno.test("llumlet: one migration at a time, as source or as destination", async () => {
  const { world, a, b } = await pair({ blockMs: 20 });
  const c = await world.add("c");
  await world.connect(c);
  await world.generate(a, generateRequest("r", 30, { maxTokens: 60 }));
  await world.generate(c, generateRequest("s", 30, { maxTokens: 60 }));
  await world.generate(b, generateRequest("t", 30, { maxTokens: 60 }));
  await world.pass(20);
  const first = world.order(a, b);
  await world.pass(10);
  assert.equal((await world.migrate(a, c)).outcome, "nothing");
  const second = await world.migrate(c, b);
  assert.equal(second.outcome, "aborted_destination");
  assert.match(second.reason, /b takes part in another migration/);
  assert.equal((await world.migrate(b, c)).outcome, "nothing");
  assert.equal((await world.wait(first)).outcome, "committed");
  await world.checkEnd();
});

Deno.test("llumlet: a destination without blocks or without a place refuses, and keeps nothing", async () => {
  const cases: [InstanceShape, RegExp][] = [
    [{ numBlocks: 20 }, /b has no room for \d+ blocks/],
    [{ config: { maxNumSeqs: 1 } }, /b runs as many sequences as it may/],
  ];
  for (const [shape, reason] of cases) {
    const { world, a, b } = await pair({}, shape);
    await world.generate(b, generateRequest("s", 40, { maxTokens: 30 }));
    await world.generate(a, generateRequest("r", 40, { maxTokens: 40 }));
    await world.pass(20);
    const report = await world.migrate(a, b);
    assert.equal(report.outcome, "aborted_destination");
    assert.match(report.reason, reason);
    await world.checkEnd();
  }
});

Deno.test("llumlet: more than --max-stages stages drop the migration", async () => {
  // Copying two blocks takes longer than producing them.
  const limits = { lastStageMaxBlocks: 1, maxStages: 3 };
  const { world, a, b } = await pair({ limits, blockMs: 60 });
  await world.generate(a, generateRequest("r", 9, { maxTokens: 150 }));
  await world.pass(15);
  const report = await world.migrate(a, b);
  assert.deepEqual([report.outcome, report.stages], ["aborted_source", 3]);
  assert.match(report.reason, /more stages than --max-stages 3/);
  await world.until(() => b.isEmpty);
  await world.checkEnd();
});

Deno.test("llumlet: a request that reached its expected steps leaves in one blocking stage", async () => {
  const { world, a, b } = await pair({ blockMs: 5 });
  const request = generateRequest("r", 40, { maxTokens: 30, seed: 4 }, { expectedSteps: 1 });
  const followed = await world.generate(a, request);
  await world.generate(a, generateRequest("later", 4, { maxTokens: 30 }, { arrivalMs: 5 }));
  await world.until(() => followed.tokens.length === 1);
  const report = await world.migrate(a, b, { policy: "LCR" });
  assert.deepEqual([report.outcome, report.requestId, report.stages], ["committed", "r", 1]);
  assert.ok(report.downtimeMs >= 5 * report.blocks);
  await world.checkEnd();
});

Deno.test("llumlet: the first waiting request leaves without data, and is queued by arrival", async () => {
  const { world, a, b } = await pair({ numBlocks: 12 });
  await world.generate(a, generateRequest("first", 30, { maxTokens: 12 }, { arrivalMs: 1 }));
  const followed = await world.generate(
    a,
    generateRequest("second", 20, { maxTokens: 12, seed: 9 }, { arrivalMs: 2 }),
  );
  await world.pass(30);
  assert.equal(a.engine.info().waitingRequests, 1);
  const report = await world.migrate(a, b, { policy: "FCW" });
  assert.deepEqual([report.outcome, report.requestId], ["committed", "second"]);
  assert.deepEqual([report.stages, report.transfer.bytes, report.downtimeMs], [1, 0, 0]);
  await world.checkEnd();
  assert.deepEqual(followed.epochs, [1]);
});

Deno.test("llumlet: a waiting request does not jump the destination's queue", async () => {
  const { world, a, b } = await pair({ numBlocks: 12 }, { numBlocks: 12 });
  for (const instance of [a, b]) {
    const { name } = instance;
    const at = (arrivalMs: number) => ({ arrivalMs });
    await world.generate(instance, generateRequest(`${name}1`, 30, { maxTokens: 12 }, at(1)));
    const second = at(name === "a" ? 3 : 2);
    await world.generate(instance, generateRequest(`${name}2`, 20, { maxTokens: 12 }, second));
  }
  await world.pass(30);
  const report = await world.migrate(a, b, { policy: "FCW" });
  assert.equal(report.outcome, "aborted_destination");
  assert.match(report.reason, /requests that arrived earlier wait on b/);
  await world.checkEnd();
});

Deno.test("llumlet: a waiting request whose prompt does not fit now is refused", async () => {
  const { world, a, b } = await pair({ numBlocks: 12 }, { numBlocks: 12 });
  for (const instance of [a, b]) {
    const { name } = instance;
    await world.generate(instance, generateRequest(`${name}1`, 30, { maxTokens: 12 }));
  }
  await world.generate(a, generateRequest("a2", 20, { maxTokens: 12 }, { arrivalMs: 3 }));
  await world.pass(30);
  const report = await world.migrate(a, b, { policy: "FCW" });
  assert.equal(report.outcome, "aborted_destination");
  assert.match(report.reason, /b has no room for 5 blocks/);
  await world.checkEnd();
});

Deno.test("llumlet: FCWSR moves the first waiting request, then the shortest running one", async () => {
  const { world, a, b } = await pair({ numBlocks: 14 });
  await world.generate(a, generateRequest("long", 24, { maxTokens: 20 }, { arrivalMs: 1 }));
  await world.generate(a, generateRequest("short", 12, { maxTokens: 20 }, { arrivalMs: 2 }));
  await world.generate(a, generateRequest("waits", 20, { maxTokens: 12 }, { arrivalMs: 3 }));
  await world.pass(30);
  const report = await world.migrate(a, b, { policy: "FCWSR" });
  assert.deepEqual([report.outcome, report.requestId], ["committed", "short"], report.reason);
  assert.deepEqual(report.earlier?.map((one) => [one.requestId, one.outcome]), [
    ["waits", "committed"],
  ]);
  await world.checkEnd();
});

Deno.test("llumlet: outputs wait for an API server that is not connected yet", async () => {
  const { world, a, b } = await pair({}, {});
  const c = await world.add("c");
  const followed = await world.generate(a, generateRequest("r", 20, { maxTokens: 40, seed: 1 }));
  await world.pass(30);
  assert.equal((await world.migrate(a, c)).outcome, "committed");
  await world.pass(50);
  const before = followed.tokens.length;
  await world.connect(c);
  await world.pass(15);
  assert.ok(followed.tokens.length > before + 4);
  await world.checkEnd();
  assert.ok(b.isEmpty);
});

Deno.test("llumlet: a request whose API server never comes is aborted", async () => {
  const { world, a } = await pair();
  const c = await world.add("c");
  await world.generate(a, generateRequest("r", 20, { maxTokens: 200 }));
  await world.pass(30);
  const slow = world.order(a, c);
  assert.equal((await world.wait(slow)).outcome, "committed");
  await world.pass(11_000);
  assert.ok(c.isEmpty);
  assert.equal(c.engine.has("r"), false);
});

Deno.test("llumlet: a request moves while others around it are preempted", async () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const shape = { numBlocks: 26, numSwapBlocks: 20, config: { preemptionMode } };
    const { world, a, b } = await pair(shape, shape);
    for (let i = 0; i < 5; i++) {
      const params = { maxTokens: 40, seed: i };
      await world.generate(a, generateRequest(`a${i}`, 10, params, { arrivalMs: i }));
      if (i > 2) continue;
      await world.generate(b, generateRequest(`b${i}`, 10, params, { arrivalMs: 10 + i }));
    }
    const outcomes = new Set<string>();
    for (let i = 0; i < 16; i++) {
      await world.pass(30);
      const [source, destination] = i % 2 === 0 ? [a, b] : [b, a];
      outcomes.add((await world.migrate(source, destination)).outcome);
    }
    assert.ok(outcomes.has("committed"));
    assert.ok(outcomes.size > 1, "nothing went wrong on the way");
    await world.checkEnd();
  }
});
