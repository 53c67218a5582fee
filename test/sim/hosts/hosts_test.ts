/** Agents, hosts and leaders in random scenarios. `deno task fuzz --hosts` runs many more. */
import assert from "node:assert/strict";
import { type Plant, plants } from "../../../src/sim/hosts/plants.ts";
import { runHostsScenario } from "../../../src/sim/hosts/run.ts";
import { randomHostsScenario } from "../../../src/sim/hosts/scenario.ts";

const SEEDS = 16;

Deno.test(`hosts: ${SEEDS} random scenarios without a violation`, async () => {
  let numLaunched = 0, numLeaders = 0, numFinished = 0;
  for (let seed = 1; seed <= SEEDS; seed++) {
    const run = await runHostsScenario(randomHostsScenario(seed));
    assert.deepEqual(run.violations, [], `seed ${seed}: deno task fuzz --hosts --seeds ${seed}`);
    numLaunched += run.numLaunched;
    numLeaders += run.numLeaders;
    numFinished += run.numFinished;
  }
  assert.ok(numLaunched > 3 * SEEDS, `${numLaunched} instances started`);
  assert.ok(numLeaders > SEEDS, `${numLeaders} leaders`);
  assert.ok(numFinished > 10 * SEEDS, `${numFinished} requests ended`);
});

/** A seed whose scenario shows the bug, and what the check says. */
const shown: Readonly<Record<Plant, readonly [seed: number, RegExp]>> = {
  lost_answer_starts_again: [19, /is started although .* run, and \d are wanted/],
  start_is_not_idempotent: [1, /is started twice/],
  orders_are_forgotten: [2, /is serving, drained: true/],
  dead_host_keeps_its_share: [30, /the manager wants 2 instances, expected 0/],
  slots_are_oversubscribed: [2, /its 2 slots are taken/],
  leads_again_in_the_old_role: [183, /is started twice/],
  agent_forgets_instances: [1, /its agent knows/],
};

for (const plant of plants) {
  const [seed, violation] = shown[plant];
  Deno.test(`hosts: the planted bug ${plant} is caught`, async () => {
    const { violations } = await runHostsScenario(randomHostsScenario(seed), { plant });
    assert.match(violations[0] ?? "no violation", violation);
  });
}

Deno.test("hosts: the same seed gives the same run", async () => {
  const scenario = randomHostsScenario(4);
  const first = await runHostsScenario(scenario, { isTraced: true });
  const second = await runHostsScenario(scenario, { isTraced: true });
  assert.ok(first.trace.length > 0);
  assert.equal(first.trace, second.trace);
});
