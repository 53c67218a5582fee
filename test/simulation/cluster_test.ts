/** Whole clusters of production code on a virtual clock: `scripts/fuzz.ts` runs more seeds. */
import assert from "node:assert/strict";
import { runScenario } from "../../src/sim/fuzz/run_scenario.ts";
import { randomScenario } from "../../src/sim/fuzz/random_scenario.ts";
import type { Scenario } from "../../src/sim/fuzz/scenario.ts";
import { isLongRun } from "../long.ts";

const NUM_SEEDS = isLongRun ? 200 : 60;

Deno.test("cluster: random scenarios with faults break no rule", async () => {
  const sums: Record<string, number> = {};
  for (let seed = 1; seed <= NUM_SEEDS; seed++) {
    const { violations, statistics } = await runScenario(randomScenario(seed));
    assert.deepEqual(violations, [], `seed ${seed}: deno run -A scripts/fuzz.ts --seeds ${seed}`);
    const { resumedElsewhere: _, ...common } = statistics; // below
    for (const [name, value] of Object.entries(common)) sums[name] = (sums[name] ?? 0) + value;
  }
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
});

/** One of two API servers dies in the middle of its requests, and nothing else happens. */
function withDeathOfClient(seed: number): Scenario {
  const scenario = randomScenario(seed);
  const { network, scaling } = scenario;
  const requests = scenario.requests.filter(({ isPoison }) => !isPoison)
    .map((request, i) => ({ ...request, client: i % 2, abortAtMs: null }));
  const middle = requests[Math.floor(requests.length / 2)];
  return {
    ...scenario,
    numClients: 2,
    network: { ...network, repeatChance: 0, overtakeChance: 0 },
    scaling: { ...scaling, enableScaling: false },
    requests,
    actions: [{ type: "crash_client", client: 0, atMs: middle.atMs + seed % 100 }],
  };
}

Deno.test("cluster: requests of an API server that dies go on at another one", async () => {
  let numResumed = 0;
  for (let seed = 1; seed <= NUM_SEEDS / 3; seed++) {
    const { violations, statistics } = await runScenario(withDeathOfClient(seed));
    assert.deepEqual(violations, [], `seed ${seed}`);
    numResumed += statistics.resumedElsewhere;
  }
  assert.ok(numResumed > NUM_SEEDS / 6, `${numResumed} resumed requests`);
});

/** What could not be helped, and was held against the cluster. */
const LAWFUL_SEEDS: Record<number, string> = {
  5004892: "an instance hears later than its client that its time to drain is over",
  5018990: "the last that serves is not removed while another starts, which fails",
  10136450: "an instance has no link with itself that could be slow",
  10290405: "without a manager API servers isolate suspected poison requests at the same time",
  10137958: "instances that come and go every 0.1 s over a slow link are in no group",
};

for (const [seed, what] of Object.entries(LAWFUL_SEEDS)) {
  Deno.test(`cluster: ${what}`, async () => {
    assert.deepEqual((await runScenario(randomScenario(Number(seed)))).violations, []);
  });
}

Deno.test("cluster: the same seed gives the same trace, byte for byte", async () => {
  for (const seed of [3, 28, 71, 122]) {
    const traces: string[] = [];
    for (let run = 0; run < 2; run++) {
      traces.push((await runScenario(randomScenario(seed), { isTraced: true })).trace);
    }
    assert.ok(traces[0].length > 1000);
    assert.ok(traces[0] === traces[1], `seed ${seed} took another course`);
  }
});
