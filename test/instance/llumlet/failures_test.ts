/** What can go wrong in a migration, at every moment of it. */
import assert from "node:assert/strict";
import { UnavailableError } from "../../../src/core/errors.ts";
import type { MigrationCallName, RequestOf } from "../../../src/core/protocol/calls.ts";
import type { MigrationReport } from "../../../src/core/protocol/migration.ts";
import { generateRequest } from "../support.ts";
import { type InstanceShape, pair, World } from "./world.ts";

/** A migration of "r" from a to b, in which something happens as a frame with `text` arrives. */
async function disturbed(
  text: string,
  happen: (world: World, from: string, to: string) => void,
  shapes: { readonly a?: InstanceShape; readonly b?: InstanceShape } = {},
) {
  let hasHappened = false;
  const world: World = new World(1, (from, to, frame) => {
    if (hasHappened || !frame.includes(text)) return;
    hasHappened = true;
    happen(world, from, to);
  });
  const both = await pair(shapes.a, shapes.b, world);
  const request = generateRequest("r", 40, { maxTokens: 100, seed: 7 });
  const followed = await world.generate(both.a, request);
  await world.until(() => followed.tokens.length === 5);
  const report = await world.migrate(both.a, both.b);
  assert.ok(hasHappened, `no frame has ${text}`);
  return { ...both, followed, report };
}

function assertReport(report: MigrationReport, outcome: string, reason: RegExp): void {
  assert.equal(report.outcome, outcome, report.reason);
  assert.match(report.reason, reason);
}

Deno.test("failures: the client aborts during a stage", async () => {
  const { world, report, followed, a, b } = await disturbed("migrate_reserve", (world) => {
    world.peer(world.instances.get("a")!).notify("abort", { data: { requestIds: ["r"] } });
  });
  assert.equal(report.outcome, "finished", report.reason);
  await world.until(() => a.isEmpty && b.isEmpty);
  await world.checkEnd();
  assert.deepEqual(followed.finishes[0].finish, { reason: "abort" });
});

Deno.test("failures: an abort at the source during the commit reaches the destination", async () => {
  const { world, report, followed, b } = await disturbed("migrate_commit", (world) => {
    world.instances.get("a")!.service.service.notifications!.abort!(
      { data: { requestIds: ["r"] } },
      world.peer(world.instances.get("a")!),
    );
  });
  assert.equal(report.outcome, "committed", report.reason);
  await world.until(() => b.isEmpty);
  await world.pass(50);
  assert.ok(followed.tokens.length < 100);
  assert.ok(followed.finishes.every(({ finish }) => finish!.reason === "abort"));
});

Deno.test("failures: an abort up to an epoch does not follow the request to its new owner", async () => {
  const { world, report, followed, b } = await disturbed("migrate_commit", (world) => {
    const { service } = world.instances.get("a")!.service;
    service.notifications!.abort!(
      { data: { requestIds: ["r"], upToEpoch: 0 } },
      world.peer(world.instances.get("a")!),
    );
  });
  assert.equal(report.outcome, "committed", report.reason);
  await world.until(() => followed.tokens.length === 100);
  await world.until(() => b.isEmpty);
  world.peer(b).notify("abort", { data: { requestIds: ["r"], upToEpoch: 0 } });
});

Deno.test("failures: an abort of a lower epoch leaves the new owner alone", async () => {
  const { world, a, b } = await pair();
  const followed = await world.generate(a, generateRequest("r", 9, { maxTokens: 40 }));
  await world.pass(25);
  await world.migrate(a, b);
  world.peer(b).notify("abort", { data: { requestIds: ["r"], upToEpoch: 0 } });
  await world.checkEnd();
  assert.equal(followed.tokens.length, 40);
  const { data } = await world.wait(
    world.peer(b).call("missing", { data: { requestIds: ["r", "x"] } }),
  );
  assert.deepEqual(data, { requestIds: ["r", "x"] });
});

Deno.test("failures: the request ends during a stage", async () => {
  const { world, a, b } = await pair({ blockMs: 20 });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 8 }));
  await world.pass(20);
  const report = await world.migrate(a, b);
  assertReport(report, "finished", /the request has ended/);
  await world.checkEnd();
});

Deno.test("failures: the request is preempted during a stage", async () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const { world, a, b } = await pair({
      blockMs: 15,
      numBlocks: 20,
      numSwapBlocks: 20,
      config: { preemptionMode },
    });
    await world.generate(a, generateRequest("first", 30, { maxTokens: 40 }, { arrivalMs: 1 }));
    await world.generate(a, generateRequest("r", 30, { maxTokens: 40 }, { arrivalMs: 2 }));
    await world.pass(30);
    const report = await world.migrate(a, b);
    assertReport(report, "aborted_source", /r was preempted/);
    await world.checkEnd();
  }
});

Deno.test("failures: copying ends with the request, however long it would have taken", async () => {
  const { world, a, b } = await pair({ blockMs: 400 });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 8 }));
  await world.pass(20);
  const report = await world.migrate(a, b);
  assertReport(report, "finished", /the request has ended/);
  assert.ok(report.totalMs < 100, `${report.totalMs} ms`);
  assert.ok(a.isEmpty);
  await world.checkEnd();
});

Deno.test("failures: one of high priority does not wait for the copying of what it preempts", async () => {
  for (const preemptionMode of ["recompute", "swap"] as const) {
    const { world, a, b } = await pair({
      blockMs: 400,
      numBlocks: 20,
      numSwapBlocks: 20,
      config: { preemptionMode },
    });
    await world.generate(a, generateRequest("first", 12, { maxTokens: 40 }, { arrivalMs: 1 }));
    await world.generate(a, generateRequest("r", 30, { maxTokens: 40 }, { arrivalMs: 2 }));
    await world.pass(30);
    const migrated = world.order(a, b, { requestId: "r" });
    await world.pass(20);
    const urgent = generateRequest("high", 30, { maxTokens: 10 }, { priority: "high" });
    const high = await world.generate(a, urgent);
    await world.pass(50);
    assert.ok(high.tokens.length > 0, "it runs");
    const { running } = a.engine.queues();
    assert.deepEqual(running.map(({ requestId }) => requestId), ["high", "first"]);
    assertReport(await world.wait(migrated), "aborted_source", /r was preempted/);
    await world.checkEnd();
  }
});

Deno.test("failures: the destination dies during a stage", async () => {
  const { world, report, a } = await disturbed("migrate_reserve", (world) => {
    world.clock.after(12, () => world.network.kill("b"));
  });
  assert.ok(report.outcome.startsWith("aborted"), report.reason);
  world.instances.delete("b");
  assert.ok(a.engine.has("r"));
  await world.checkEnd();
});

Deno.test("failures: the source dies; the destination frees what it had reserved", async () => {
  const world = new World();
  const { a, b } = await pair({ blockMs: 10 }, {}, world);
  await world.generate(a, generateRequest("r", 40, { maxTokens: 100 }));
  await world.pass(30);
  world.order(a, b);
  await world.until(() => !b.isEmpty);
  world.network.kill("a");
  await world.pass(100);
  assert.ok(b.isEmpty, "what nobody may write any more is free");
  assert.ok(!b.llumlet.isMigrating);
  b.engine.check();
});

Deno.test("failures: the source hangs; the destination frees what it had reserved", async () => {
  const { world, a, b } = await pair({ blockMs: 10 }, { timeouts: { leaseMs: 600 } });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 100 }));
  await world.pass(30);
  const order = world.order(a, b);
  await world.until(() => !b.isEmpty);
  world.network.pause("a");
  await world.pass(500);
  assert.ok(!b.isEmpty, "it may come back");
  await world.pass(200);
  assert.ok(b.isEmpty);
  world.network.resume("a");
  assertReport(await world.wait(order), "aborted_source", /may write nothing|was aborted/);
  await world.checkEnd();
});

Deno.test("failures: blocks are kept while a revocation takes its time", async () => {
  const revoked = Promise.withResolvers<void>();
  const { world, a, b } = await pair({ blockMs: 10 }, {
    wrapBackend: (backend) => ({
      name: backend.name,
      isReady: true,
      endpoint: backend.endpoint,
      grant: (migrationId, blocks) => backend.grant(migrationId, blocks),
      revoke: (migrationId) => backend.revoke(migrationId).then(() => revoked.promise),
      send: (transfer, signal) => backend.send(transfer, signal),
      close: () => backend.close(),
    }),
  });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 100 }));
  await world.pass(30);
  world.order(a, b);
  await world.until(() => !b.isEmpty);
  world.network.kill("a");
  await world.pass(20_000);
  assert.ok(!b.llumlet.isMigrating);
  assert.ok(!b.isEmpty, "a write is under way");
  b.engine.check();
  revoked.resolve();
  await world.pass(1);
  assert.ok(b.isEmpty);
});

Deno.test("failures: the connection breaks during a stage; later blocks are not written", async () => {
  const { world, report, b } = await disturbed("migrate_reserve", (world) => {
    world.clock.after(12, () => world.network.breakConnections("a", "b"));
  });
  assertReport(report, "aborted_source", /transfer was aborted/);
  await world.until(() => b.isEmpty);
  await world.checkEnd();
});

Deno.test("failures: a commit that does not arrive is cancelled, and refused when it comes late", async () => {
  const { world, report, followed, a, b } = await disturbed('"blocks":', () => {}, {});
  assert.equal(report.outcome, "committed");
  await world.checkEnd();
  assert.equal(followed.tokens.length, 100);
  assert.ok(a.isEmpty && b.isEmpty);
});

Deno.test("failures: the answer to the commit is lost: the destination says that it is the owner", async () => {
  const { world, report, followed, a } = await disturbed("migrate_commit", (world) => {
    // Breaks as the commit arrives, before its answer does.
    world.clock.soon(() => world.network.breakConnections("a", "b"));
  });
  assert.equal(report.outcome, "committed", report.reason);
  assert.ok(a.isEmpty);
  await world.checkEnd();
  assert.deepEqual(followed.epochs, [0, 1]);
});

Deno.test("failures: the commit is lost: the destination says that it is not the owner", async () => {
  let numReserved = 0;
  const limits = { lastStageMaxBlocks: 2, maxStages: 10 };
  const world: World = new World(1, (from, to, frame) => {
    // After the last stage's reservation only the commit goes this way.
    if (
      from === "b" && to === "a" && /"blocks":\[\d+(,\d+)?\]/.test(frame) && numReserved++ === 0
    ) {
      world.network.block("a", "b");
      world.clock.after(1_000, () => {
        world.network.breakConnections("a", "b");
        world.network.heal("a", "b");
      });
    }
  });
  const { a, b } = await pair({ limits }, {}, world);
  const followed = await world.generate(a, generateRequest("r", 5, { maxTokens: 100 }));
  await world.until(() => followed.tokens.length === 1);
  const report = await world.migrate(a, b);
  assert.equal(numReserved, 1);
  assertReport(report, "aborted_destination", /did not take the request/);
  await world.checkEnd();
  assert.deepEqual(followed.epochs, [0]);
});

Deno.test("failures: an unreachable destination: the source takes the request back, two epochs up", async () => {
  const { world, report, followed, a, b } = await disturbed("migrate_commit", (world) => {
    world.network.block("b", "a");
    world.network.block("a", "b");
  }, { a: { timeouts: { answerMs: 100, settleMs: 200 } } });
  assertReport(report, "aborted_destination", /did not say whether it owns the request/);
  assert.ok(a.engine.has("r") && b.engine.has("r"), "nobody can know");
  assert.deepEqual([a.engine.epochOf("r"), b.engine.epochOf("r")], [2, 1]);
  // The API server hears of both, and ends the lower.
  await world.until(() => followed.epochs.includes(2));
  world.peer(b).notify("abort", { data: { requestIds: ["r"], upToEpoch: 1 } });
  await world.until(() => followed.tokens.length === 100 && a.isEmpty && b.isEmpty);
  followed.checkTokens();
});

Deno.test("failures: the destination dies in the commit; the request goes on at once", async () => {
  const { world, report, followed, a } = await disturbed("migrate_commit", (world) => {
    world.network.kill("b");
  });
  assertReport(report, "aborted_destination", /did not say whether it owns the request/);
  assert.ok(report.totalMs < 200, `it took ${report.totalMs} ms to go on`);
  world.instances.delete("b");
  await world.checkEnd();
  assert.equal(a.engine.epochOf("r"), null);
  assert.deepEqual(followed.epochs, [0, 2]);
});

Deno.test("failures: the backend fails; nothing is left behind", async () => {
  const { world, a, b } = await pair({
    wrapBackend: (backend) => ({
      name: backend.name,
      isReady: true,
      endpoint: backend.endpoint,
      grant: (migrationId, blocks) => backend.grant(migrationId, blocks),
      revoke: (migrationId) => backend.revoke(migrationId),
      send: () => Promise.reject(new UnavailableError("the cable is cut")),
      close: () => backend.close(),
    }),
  });
  await world.generate(a, generateRequest("r", 40, { maxTokens: 30 }));
  await world.pass(20);
  assertReport(await world.migrate(a, b), "aborted_source", /the cable is cut/);
  await world.checkEnd();
});

Deno.test("failures: a transfer that takes too long is aborted at the stage's deadline", async () => {
  const { world, a, b } = await pair({ blockMs: 40, timeouts: { stageMs: 200 } });
  await world.generate(a, generateRequest("r", 60, { maxTokens: 100 }));
  await world.pass(20);
  const report = await world.migrate(a, b);
  assertReport(report, "aborted_source", /transfer/);
  assert.ok(report.totalMs < 400);
  await world.checkEnd();
});

Deno.test("failures: a step that does not end in time drops the last stage", async () => {
  let stepMs = 10;
  const { world, a, b } = await pair({ stepMs: () => stepMs, timeouts: { stageMs: 200 } });
  await world.generate(a, generateRequest("r", 4, { maxTokens: 20 }));
  await world.pass(15);
  stepMs = 1_000;
  await world.pass(10);
  const report = await world.migrate(a, b);
  assertReport(report, "aborted_source", /the running step did not end in time/);
  stepMs = 10;
  await world.checkEnd();
});

Deno.test("failures: a repeated reservation and a repeated commit are answered as before", async () => {
  const { world, a, b } = await pair();
  const peer = world.peer(b);
  const request = generateRequest("r", 5, { maxTokens: 8, seed: 5 }, { outputTokenIds: [1] });
  const call = async <M extends MigrationCallName>(method: M, data: RequestOf<M>) =>
    (await world.wait(peer.call(method, { data }))).data;
  await world.openMigration(b, 6);
  const reserve = { migrationId: "m", stage: 0, blocks: 2 };
  const first = await call("migrate_reserve", reserve);
  assert.deepEqual(await call("migrate_reserve", reserve), first);
  assert.equal(b.engine.info().usedBlocks, 2);
  await assert.rejects(call("migrate_reserve", { ...reserve, stage: 2 }), /expected stage/);
  const commit = { migrationId: "m", request: { ...request, epoch: 1 } };
  await call("migrate_commit", commit);
  await call("migrate_commit", commit);
  assert.deepEqual(await call("migrate_settle", { migrationId: "m" }), { state: "committed" });
  await assert.rejects(call("migrate_reserve", { ...reserve, stage: 1 }), /committed on b/);
  // Whoever asks about an unknown one makes sure that it never happens.
  assert.deepEqual(await call("migrate_settle", { migrationId: "n" }), { state: "cancelled" });
  await assert.rejects(call("migrate_commit", { ...commit, migrationId: "n" }), /cancelled on b/);
  await assert.rejects(call("migrate_commit", { ...commit, migrationId: "o" }), /not known on b/);
  await world.until(() => b.isEmpty);
  assert.ok(a.isEmpty);
});

Deno.test("failures: a commit with too few blocks is refused, and everything given up", async () => {
  const { world, b } = await pair();
  const peer = world.peer(b);
  const call = <M extends MigrationCallName>(method: M, data: RequestOf<M>) =>
    world.wait(peer.call(method, { data }));
  await world.openMigration(b, 9);
  await call("migrate_reserve", { migrationId: "m", stage: 0, blocks: 1 });
  const request = generateRequest("r", 8, {}, { outputTokenIds: [1] });
  const commit = call("migrate_commit", { migrationId: "m", request });
  await assert.rejects(commit, /r of 9 tokens needs 2 blocks, but 1 were reserved for r/);
  assert.ok(b.isEmpty);
  assert.ok(!b.llumlet.isMigrating);
  b.engine.check();
});

Deno.test("failures: the engine of the source dies during a stage", async () => {
  const { world, a, b } = await pair({ blockMs: 10 });
  const followed = await world.generate(a, generateRequest("r", 40, { maxTokens: 50 }));
  await world.pass(20);
  const order = world.order(a, b);
  await world.pass(20);
  await world.wait(a.engine.close());
  assert.equal((await world.wait(order)).outcome, "finished");
  assert.equal(followed.finishes.length, 1);
  await world.until(() => a.isEmpty && b.isEmpty);
});
