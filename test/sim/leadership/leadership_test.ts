/** Elections, fences and store views in random scenarios. `deno task fuzz --leadership` runs many more. */
import assert from "node:assert/strict";
import { type Plant, plants } from "../../../src/sim/leadership/plants.ts";
import { runLeadershipScenario } from "../../../src/sim/leadership/run.ts";
import { randomLeadershipScenario } from "../../../src/sim/leadership/scenario.ts";

const SEEDS = 16;

Deno.test(`leadership: ${SEEDS} random scenarios without a violation`, async () => {
  const failed: string[] = [];
  const kinds = new Set<string>();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const scenario = randomLeadershipScenario(seed);
    kinds.add(scenario.kind);
    const { violations } = await runLeadershipScenario(scenario);
    if (violations.length > 0) failed.push(`seed ${seed}: ${violations[0]}`);
  }
  assert.deepEqual(failed, []);
  assert.equal(kinds.size, 5, `the seeds run only ${[...kinds]}`);
});

/** A seed whose scenario shows the bug, and what the check says. */
const shown: Readonly<Record<Plant, readonly [seed: number, RegExp]>> = {
  leader_goes_on: [5, /decides in epoch \d+, although it was told that epoch \d+ is over/],
  leader_ignores_its_epoch: [5, /decides in epoch \d+, which is that of manager/],
  receiver_does_not_fence: [6, /obeys manager .* of epoch 2 after manager .* of epoch 3/],
  silence_while_away: [1, /began epoch 2 although only the store was away/],
  store_away_ends_leadership: [1, /heard no decision for/],
  expiry_by_the_store: [16, /heard no decision for/],
  watch_alone: [11, /the store tells receiver 0 that the leader is at/],
  leader_does_not_give_way: [8, /heard no decision for/],
};

for (const plant of plants) {
  const [seed, violation] = shown[plant];
  Deno.test(`leadership: the planted bug ${plant} is caught`, async () => {
    const { violations } = await runLeadershipScenario(randomLeadershipScenario(seed), { plant });
    assert.match(violations[0] ?? "no violation", violation);
  });
}

Deno.test("leadership: the same seed gives the same run", async () => {
  const scenario = randomLeadershipScenario(4);
  const first = await runLeadershipScenario(scenario, { isTraced: true });
  const second = await runLeadershipScenario(scenario, { isTraced: true });
  assert.ok(first.trace.length > 0);
  assert.equal(first.trace, second.trace);
});
