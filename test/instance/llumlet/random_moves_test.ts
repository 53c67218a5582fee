import assert from "node:assert/strict";
import { type Counts, simulate } from "./random_moves.ts";
import { isLongRun } from "../../long.ts";

Deno.test("random moves and faults: right tokens, one owner, every block comes back", async () => {
  const sums: Counts = {};
  for (let seed = 1; seed <= (isLongRun ? 40 : 16); seed++) {
    for (const [what, count] of Object.entries(await simulate(seed))) {
      sums[what] = (sums[what] ?? 0) + count;
    }
  }
  const needed = ["request", "committed", "in stages", "nothing", "finished", "aborted_source"];
  for (const what of [...needed, "aborted_destination", "client abort", "kill", "pause"]) {
    assert.ok(sums[what] > 0, `no case of ${what}: ${JSON.stringify(sums)}`);
  }
});
