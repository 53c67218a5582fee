/** Whole clusters of production code on a virtual clock: `scripts/fuzz.ts` runs more seeds. */
import assert from "node:assert/strict";
import { runScenario } from "../../src/sim/fuzz/run_scenario.ts";
import { randomScenario } from "../../src/sim/fuzz/random_scenario.ts";
import { isLongRun } from "../long.ts";

const NUM_SEEDS = isLongRun ? 200 : 60;

Deno.test("cluster: random scenarios with faults break no rule", async () => {
  const sums: Record<string, number> = {};
  for (let seed = 1; seed <= NUM_SEEDS; seed++) {
    const { violations, statistics } = await runScenario(randomScenario(seed));
    assert.deepEqual(violations, [], `seed ${seed}: deno run -A scripts/fuzz.ts --seeds ${seed}`);
    for (const [name, value] of Object.entries(statistics)) sums[name] = (sums[name] ?? 0) + value;
  }
  for (const [name, sum] of Object.entries(sums)) assert.ok(sum > 0, `no case of ${name}`);
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
