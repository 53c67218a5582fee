import assert from "node:assert/strict";
import { distributionOf } from "../../../src/core/stats/distribution.ts";
import { type Comparison, finishedPart } from "../../../src/sim/experiment/comparison.ts";
import { resultSentence } from "../../../src/sim/experiment/result_sentence.ts";
import type { RunResult } from "../../../src/sim/experiment/run_result.ts";

// The functions read nothing else of comparisons and runs.
function comparison(clusters: string[], workloads: string[], seeds: number[]): Comparison {
  const named = (names: string[]) => names.map((name) => ({ name }));
  return { clusters: named(clusters), workloads: named(workloads), seeds } as unknown as Comparison;
}

function run(config: string, workload: string, seed: number, ttftMs: number): RunResult {
  return { config, workload, seed, all: { ttftMs: distributionOf([ttftMs]) } } as RunResult;
}

Deno.test("the sentence says by how much, over what range, and of how many seeds", () => {
  const runs = [
    ...[run("ours", "w", 1, 100), run("load", "w", 1, 200), run("rr", "w", 1, 50)],
    ...[run("ours", "w", 2, 100), run("load", "w", 2, 400), run("rr", "w", 2, 50)],
  ];
  assert.equal(
    resultSentence(comparison(["ours", "load", "rr"], ["w"], [1, 2]), runs),
    "P99 time to first token of ours: 3.00x shorter than with load (2.00x to 4.00x), " +
      "2.00x longer than with rr; 2 seeds.",
  );
});

Deno.test("one seed is called one seed, and no difference none", () => {
  const runs = [run("ours", "w", 1, 100), run("load", "w", 1, 101)];
  assert.equal(
    resultSentence(comparison(["ours", "load"], ["w"], [1]), runs),
    "P99 time to first token of ours: about as long as with load; " +
      "one seed, and another may give another result.",
  );
});

Deno.test("a cluster alone has its figure; one without a token says so", () => {
  const alone = comparison(["ours"], ["v", "w"], [1]);
  const runs = [run("ours", "v", 1, 1_500), run("ours", "w", 1, 20)];
  assert.equal(
    resultSentence(alone, runs),
    "P99 time to first token of ours: 1.50 s with v, 0.0200 s with w.",
  );
  const none = { ...runs[0], all: { ttftMs: distributionOf([]) } } as unknown as RunResult;
  assert.equal(resultSentence(alone, [none]), "No request of ours got a token.");
});

Deno.test("what has run can be shown: workloads that are complete, else clusters that have run", () => {
  const all = comparison(["ours", "load"], ["v", "w"], [1, 2]);
  const names = (runs: RunResult[]) => {
    const part = finishedPart(all, runs);
    return part && [
      part.comparison.workloads.map(({ name }) => name),
      part.comparison.clusters.map(({ name }) => name),
      part.runs.length,
    ];
  };
  const v = [run("ours", "v", 1, 1), run("ours", "v", 2, 1), run("load", "v", 1, 1)];
  assert.equal(names([]), null);
  assert.deepEqual(names(v.slice(0, 1)), [["v"], ["ours"], 1]);
  assert.deepEqual(names(v), [["v"], ["ours", "load"], 3]);
  assert.deepEqual(names([...v, run("ours", "w", 1, 1)]), [["v"], ["ours", "load"], 3]);
});
