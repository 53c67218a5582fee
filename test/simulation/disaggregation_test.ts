/** Prefill-decode disaggregation of whole clusters of production code, on a virtual clock. */
import assert from "node:assert/strict";
import { PREFILL_HOLD_MS } from "../../src/sim/fuzz/sim_instance.ts";
import { OUTPUT_TOKENS, outputTokens, typeOf, World } from "./world.ts";

const names = (prefix: string, count: number) =>
  Array.from({ length: count }, (_, i) => `${prefix}${i}`);

Deno.test("every request has its first token from a prefill instance, the rest from decode", async () => {
  const world = await World.start(1, 3);
  assert.deepEqual(world.alive().map(typeOf), ["prefill", "decode", "decode"]);
  world.submit(names("r", 10));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 10);
  const decoded = world.alive("decode").map(outputTokens);
  assert.equal(decoded[0] + decoded[1], 10 * (OUTPUT_TOKENS - 1));
  assert.ok(Math.min(...decoded) > 0, `both have decoded: ${decoded}`);
  for (const { outcome, stages } of world.cluster.reports) {
    if (outcome === "committed") assert.equal(stages, 1, "blocking");
  }
});

Deno.test("when the last decode instance dies, requests that wait to leave go on at once", async () => {
  const world = await World.start(1, 2);
  world.cluster.network.block("instance-0", "instance-1"); // they cannot leave
  world.submit(names("r", 4));
  await world.until(() => world.numHeld() === 4);
  const diedMs = world.cluster.elapsedMs;
  world.killAll("decode");
  await world.finishAll();
  const lastMs = Math.max(...[...world.requests.values()].map(({ endedMs }) => endedMs));
  assert.ok(lastMs - diedMs < PREFILL_HOLD_MS, `${lastMs - diedMs} ms`);
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS);
});

Deno.test("without decode instances requests decode where they are, until one is back", async () => {
  const world = await World.start(1, 2);
  world.killAll("decode");
  await world.until(() => world.cluster.manager!.instances().length === 1);
  world.submit(names("alone", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS);
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["prefill", "decode"]);
  world.submit(names("again", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4 * OUTPUT_TOKENS + 4);
  assert.equal(world.tokensOf("decode"), 4 * (OUTPUT_TOKENS - 1));
});

Deno.test("without prefill instances decode ones take prompts, until one is back", async () => {
  const world = await World.start(1, 3);
  world.killAll("prefill");
  await world.until(() => world.cluster.manager!.instances().length === 2);
  world.submit(names("alone", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("decode"), 4 * OUTPUT_TOKENS);
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["decode", "decode", "prefill"]);
  world.submit(names("again", 4));
  await world.finishAll();
  assert.equal(world.tokensOf("prefill"), 4);
});

Deno.test("without a manager nobody orders migrations: requests go on after a while", async () => {
  const world = await World.start(1, 2);
  world.cluster.network.block("instance-0", "instance-1");
  world.submit(names("r", 4));
  await world.until(() => world.numHeld() === 4);
  world.cluster.killManager();
  await world.finishAll();
  world.submit(names("later", 2));
  await world.finishAll();
});

Deno.test("a request that no decode instance has room for decodes where it is", async () => {
  const world = await World.start(1, 2);
  const [decode] = world.alive("decode");
  const { engine } = decode.instance;
  const incoming = engine!.beginIncoming({
    requestId: "occupant",
    arrivalMs: 0,
    lengthTokens: 1,
    isWaiting: false,
  });
  const taken = Promise.withResolvers<readonly number[] | null>();
  incoming.reserve(198, taken.resolve);
  assert.notEqual(await world.run(taken.promise), null);
  world.submit(["r"], 80);
  const { tokenIds } = world.requests.get("r")!;
  await world.until(() => tokenIds.length === 40);
  assert.ok(world.cluster.reports.length > 0);
  for (const { outcome } of world.cluster.reports) assert.equal(outcome, "aborted_destination");
  assert.equal(world.tokensOf("prefill"), 40);
  incoming.cancel();
  // Now there is room, and it is not stopped for its way there.
  await world.finishAll();
  const report = world.cluster.reports.at(-1)!;
  assert.equal(report.outcome, "committed");
  assert.ok(report.stages > 1, `${report.stages} stages`);
  assert.equal(world.tokensOf("prefill") + world.tokensOf("decode"), 80);
});

Deno.test("a prefill instance that is removed gives away what it has; its place stays prefill", async () => {
  const world = await World.start(1, 3);
  world.submit(names("r", 8));
  await world.until(() => world.alive("prefill")[0].instance.engine!.info().runningRequests > 0);
  assert.equal(await world.run(world.cluster.manager!.removeInstance("instance-0")), true);
  await world.finishAll();
  await world.run(world.cluster.manager!.addInstance());
  assert.deepEqual(world.alive().map(typeOf), ["decode", "decode", "prefill"]);
});
