/**
 * Whatever a peer says, it loses no more than its own connection. Recorded conversations of all protocols
 * are said again with changes, to roles that run; then these serve others as before, and neither threw
 * an error that nobody expected.
 *
 * A few seconds by default; `LLUMNIX_FUZZ_SECONDS` says how long each protocol gets, and
 * `LLUMNIX_FUZZ_SEED` where to begin.
 */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { attackClient, attackInstance, attackListener } from "./bus_fuzz.ts";
import { FuzzCluster } from "./cluster.ts";
import type { Conversation } from "./conversation.ts";
import { DefectWatch } from "./defects.ts";
import { GlooTarget } from "./gloo_fuzz.ts";

const seconds = Number(Deno.env.get("LLUMNIX_FUZZ_SECONDS") ?? 1);
const firstSeed = Number(Deno.env.get("LLUMNIX_FUZZ_SEED") ?? 1);
/** Cases between two checks that others are served; the first of them that matters is in between. */
const CHECK_EVERY = 25;

/** Runs cases of seeds in a row until the time is over. */
async function fuzz(
  name: string,
  attack: (random: Random, seed: number) => Promise<void>,
  check: () => Promise<void>,
): Promise<void> {
  using defects = new DefectWatch();
  const untilMs = performance.now() + seconds * 1000;
  let seed = firstSeed;
  for (; performance.now() < untilMs; seed++) {
    await attack(new Random(seed), seed);
    defects.check(`${name}, seed ${seed}`);
    if ((seed - firstSeed + 1) % CHECK_EVERY !== 0) continue;
    await check();
    defects.check(`${name}, seeds up to ${seed}`);
  }
  await check();
  defects.check(`${name}, at the end`);
  assert.ok(seed > firstSeed);
  if (Deno.env.has("LLUMNIX_FUZZ_SECONDS")) console.log(`${name}: ${seed - firstSeed} cases`);
}

async function withCluster(
  body: (
    cluster: FuzzCluster,
    find: (role: string, listener: RegExp) => Conversation[],
  ) => Promise<void>,
): Promise<void> {
  await using cluster = await FuzzCluster.open();
  await cluster.converse();
  const conversations = structuredClone(cluster.recorder.conversations);
  const find = (role: string, listener: RegExp) => {
    const found = conversations.filter((one) => one.role === role && listener.test(one.address));
    assert.ok(found.length > 0, `no conversation of ${role} with ${listener} was recorded`);
    return found;
  };
  await body(cluster, find);
}

const pick = <T>(list: readonly T[], random: Random): T => list[random.below(list.length)];

Deno.test("protocol fuzz: what instances and API servers say to a manager", () =>
  withCluster(async (cluster, find) => {
    const recorded = [...find("instance", /manager/), ...find("api-server", /manager/)];
    await fuzz("manager", (random, seed) => {
      const conversation = pick(recorded, random);
      return attackListener(cluster.managerPath, conversation, `fuzz-${seed}`, cluster, random);
    }, () => cluster.checkServes());
  }));

Deno.test("protocol fuzz: what API servers and instances say to an instance (rayrpc too)", () =>
  withCluster(async (cluster, find) => {
    const recorded = [...find("api-server", /instance-\d/), ...find("instance", /instance-\d/)];
    assert.ok(recorded.some(({ near }) => near.some(({ method }) => method === "migrate_blocks")));
    await fuzz("instance", (random, seed) => {
      const conversation = pick(recorded, random);
      const path = cluster.instancePath(random.below(2));
      return attackListener(path, conversation, `fuzz-${seed}`, cluster, random);
    }, () => cluster.checkServes());
  }));

Deno.test("protocol fuzz: what a manager says to an instance", () =>
  withCluster(async (cluster, find) => {
    const recorded = find("instance", /manager/);
    await fuzz("instance's manager", (random, seed) => {
      const path = `${cluster.directory}/rogue-${seed}.sock`;
      return attackInstance(path, pick(recorded, random), random);
    }, () => cluster.checkServes());
  }));

Deno.test("protocol fuzz: what a manager and an instance say to an API server", () =>
  withCluster(async (cluster, find) => {
    const toManager = find("api-server", /manager/), toInstance = find("api-server", /instance-\d/);
    await fuzz("client", (random, seed) => {
      const base = `${cluster.directory}/rogue-${seed}`;
      const paths = { manager: `${base}-m.sock`, instance: `${base}-i.sock` };
      return attackClient(paths, pick(toManager, random), pick(toInstance, random), random);
    }, () => cluster.checkServes());
  }));

for (const isSealed of [false, true]) {
  Deno.test({
    name: `protocol fuzz: what members of a group say to each other (gloo${
      isSealed ? ", encrypted" : ""
    })`,
    ignore: Deno.build.os !== "linux",
    fn: async () => {
      await using target = await GlooTarget.open(isSealed);
      await fuzz(
        "gloo",
        (random) =>
          random.below(4) === 0 ? target.attackDialer(random) : target.attackListener(random),
        () => target.checkMoves(),
      );
    },
  });
}
