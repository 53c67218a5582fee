import assert from "node:assert/strict";
import { UsageError } from "../../../src/core/errors.ts";
import { decodeMs, prefillMs } from "../../../src/executor/sim/profile.ts";
import { toProfileJson } from "../../../src/executor/sim/profile_file.ts";
import { builtinProfile } from "../../../src/executor/sim/roofline.ts";
import type {
  ClusterConfig,
  WorkloadConfig,
} from "../../../src/sim/experiment/experiment_config.ts";
import { requestsOf, runExperiment } from "../../../src/sim/experiment/experiment_run.ts";
import { metrics } from "../../../src/sim/experiment/metrics.ts";
import type { RunResult } from "../../../src/sim/experiment/run_result.ts";
import { clusterConfig, workloadConfig } from "./support.ts";

function run(config: ClusterConfig, workload: WorkloadConfig, seed = 1) {
  return runExperiment({ config, workload, seed, startMs: 1000 });
}

/** Instances so small that prompts wait for one another's blocks. */
const MAX_MODEL_LEN = 6600;
const crowded = clusterConfig({
  engine: { numGpuBlocksOverride: 430, maxModelLen: MAX_MODEL_LEN },
});
const pressure = workloadConfig({ arrivals: { kind: "poisson", rate: 8 }, lengths: "m-m" });

Deno.test("a request alone takes its prefill, then its decode steps", async () => {
  const workload = workloadConfig({ lengths: "fixed:100:11", numRequests: 1 });
  const { all, outputTokens, failed } = await run(clusterConfig(), workload);
  const profile = builtinProfile("a10", "llama-7b");
  const prefill = prefillMs(profile, 100);
  let decode = 0;
  for (let i = 1; i <= 10; i++) decode += decodeMs(profile, 1, 100 + i);
  assert.equal(failed, 0);
  assert.equal(outputTokens, 11);
  // Dispatch and submission are a message and an answer, and a message.
  assert.ok(Math.abs(all.ttftMs.max - prefill - 0.3) < 1e-6, `${all.ttftMs.max - prefill}`);
  assert.ok(Math.abs(all.tpotMs.max - decode / 10) < 1e-6);
  assert.ok(Math.abs(all.e2eMs.max - prefill - decode - 0.3) < 1e-6);
});

Deno.test("what a request takes outside of the instance comes before its prefill", async () => {
  const workload = workloadConfig({ lengths: "fixed:100:11", numRequests: 1 });
  const ttfts: number[] = [];
  const path = await Deno.makeTempFile();
  try {
    for (const msPerRequest of [0, 40]) {
      const profile = {
        ...builtinProfile("a10", "llama-7b"),
        request: { msPerRequest, source: "" },
      };
      await Deno.writeTextFile(path, JSON.stringify(toProfileJson([profile])));
      const engine = { profilingResultFilePath: path, numGpuBlocksOverride: 430 };
      const { all } = await run(clusterConfig({ engine }), workload);
      ttfts.push(all.ttftMs.max);
    }
  } finally {
    await Deno.remove(path);
  }
  assert.ok(Math.abs(ttfts[1] - ttfts[0] - 40) < 1e-6, `${ttfts}`);
});

Deno.test("every request gets all its tokens, with migration and preemption", async () => {
  const expected = [...requestsOf(pressure, 1)]
    .reduce(
      (sum, { promptTokens, outputTokens }) =>
        sum + Math.min(outputTokens, MAX_MODEL_LEN - promptTokens),
      0,
    );
  const result = await run(crowded, pressure);
  assert.equal(result.failed, 0);
  assert.equal(result.requests, 200);
  assert.equal(result.outputTokens, expected);
  assert.ok(result.migrations.committed > 0, "nothing migrated");
  assert.ok(result.migrations.bytes > 0);
  assert.ok(result.migrations.downtimeMs.count > 0);
});

Deno.test("with disaggregation every request of more than one token moves to a decode instance", async () => {
  const workload = workloadConfig({ lengths: "fixed:100:20" });
  const disaggregated = clusterConfig({
    manager: { numDispatchInstances: 1 },
    migration: { enablePdDisagg: true, pairMigrationPolicy: "balanced", enableDefrag: false },
  });
  const { failed, migrations, outputTokens } = await run(disaggregated, workload);
  assert.equal(failed, 0);
  assert.equal(outputTokens, 200 * 20);
  assert.equal(migrations.committed, 200);
});

Deno.test("the same seed gives the same figures, another seed others", async () => {
  const strip = ({ wallSeconds: _, ...rest }: Awaited<ReturnType<typeof run>>) => rest;
  const [first, again, other] = [
    await run(crowded, pressure),
    await run(crowded, pressure),
    await run(crowded, pressure, 2),
  ];
  assert.deepEqual(strip(again), strip(first));
  assert.notDeepEqual(other.all, first.all);
});

Deno.test("migration takes away most of what preemptions cost", async () => {
  const without = clusterConfig({ ...crowded, migration: { enableMigration: false } });
  const still = await run(without, pressure), moving = await run(crowded, pressure);
  assert.equal(still.migrations.committed, 0);
  assert.ok(still.preemptions > 0, "the workload does not press");
  assert.ok(moving.all.preemptionLossMs.mean < still.all.preemptionLossMs.mean);
});

Deno.test("room is made for a large request while others have the blocks that it waits for", async () => {
  const still = clusterConfig({ ...crowded, migration: { enableMigration: false } });
  const policies = { pairMigrationPolicy: "waiting_first", requestMigrationPolicy: "FIT" } as const;
  const more = { ...pressure, arrivals: { kind: "poisson", rate: 6 }, numRequests: 300 } as const;
  const helped = await run(clusterConfig({ ...crowded, migration: policies }), more);
  const alone = await run(still, more), short = await run(crowded, more);
  assert.equal(helped.failed, 0);
  assert.ok(alone.averages!.fragmentation > 0.05, "blocks are free where nobody can use them");
  assert.ok(helped.averages!.fragmentation < alone.averages!.fragmentation / 2);
  assert.ok(helped.all.ttftMs.mean < alone.all.ttftMs.mean / 2);
  // Orders say what the destination has room for.
  const { committed, aborted } = helped.migrations;
  assert.ok(aborted < short.migrations.aborted / 10, "SR does not look at sizes");
  assert.ok(aborted < committed / 4, `${aborted} of ${committed + aborted} came to nothing`);
});

for (const preemptionMode of ["recompute", "swap"] as const) {
  Deno.test(`what a preemption costs is measured (${preemptionMode})`, async () => {
    const one = clusterConfig({
      engine: {
        numGpuBlocksOverride: 64,
        maxModelLen: 900,
        preemptionMode,
        swapSpace: preemptionMode === "swap" ? 4 : 0,
      },
      manager: { initialInstances: 1 },
    });
    const workload = workloadConfig({
      arrivals: { kind: "burst" },
      lengths: "fixed:100:500",
      numRequests: 4,
    });
    const { preemptions, all, failed } = await run(one, workload);
    assert.equal(failed, 0);
    assert.ok(preemptions > 0);
    assert.ok(all.preemptionLossMs.max > 1000, "the others first have to finish");
    assert.ok(all.preemptionLossMs.max < all.e2eMs.max);
  });
}

Deno.test("requests that fit no instance fail, and say why", async () => {
  const small = clusterConfig({ engine: { numGpuBlocksOverride: 64, maxModelLen: 900 } });
  const workload = workloadConfig({ lengths: "fixed:1000:10", numRequests: 3 });
  const { failed, failures, all } = await run(small, workload);
  assert.equal(failed, 3);
  assert.equal(all.requests, 0);
  assert.match(failures[0], /request 0: .*1000/);
});

Deno.test("hours without a request are no stall", async () => {
  const one = clusterConfig({
    manager: { initialInstances: 1, pollingInterval: 10 },
    migration: { enableMigration: false },
  });
  const arrivals = { kind: "uniform", rate: 1 / 4000 } as const; // the first comes after a gap too
  const { failed, requests } = await run(one, workloadConfig({ arrivals, numRequests: 2 }));
  assert.deepEqual([requests, failed], [2, 0]);
});

Deno.test("high priority goes first, unless priorities are ignored", async () => {
  const config = clusterConfig({
    engine: { numGpuBlocksOverride: 200, maxModelLen: 2000 },
    manager: { initialInstances: 1, priorityHeadroomBlocks: 0 },
  });
  const workload = workloadConfig({
    arrivals: { kind: "burst" },
    lengths: "fixed:400:100",
    numRequests: 40,
    highPriority: 0.2,
  });
  const { high, normal } = await run(config, workload);
  assert.ok(high!.ttftMs.max < normal!.ttftMs.p50);
  const alike = await run({ ...config, ignorePriorities: true }, workload);
  assert.ok(alike.high!.ttftMs.max > alike.normal!.ttftMs.p50);
});

Deno.test("a cluster grows with the load and shrinks again; no request is lost", async () => {
  const config = clusterConfig({
    manager: { initialInstances: 1 },
    scaling: { enableScaling: true, maxInstances: 4, scalingInterval: 2 },
  });
  const workload = workloadConfig({ lengths: "m-m", numRequests: 400 });
  const { failed, requests, samples, instanceSeconds } = await run(config, workload);
  const counts = samples.map(({ instances }) => instances);
  assert.equal(failed, 0);
  assert.equal(requests, 400);
  assert.ok(Math.max(...counts) > 1, "it never grew");
  assert.ok(counts.at(-1)! < Math.max(...counts), "it never shrank");
  assert.ok(instanceSeconds < 4 * samples.at(-1)!.timeMs / 1000);
});

Deno.test("an instance that goes waits for its requests, however long they take", async () => {
  const config = clusterConfig({
    manager: { initialInstances: 2, dispatchPolicy: "rr" },
    migration: { enableMigration: false },
    scaling: { enableScaling: true, maxInstances: 2, scalingInterval: 2 },
  });
  const workload = workloadConfig({
    arrivals: { kind: "burst" },
    lengths: "fixed:100:2000",
    numRequests: 2,
  });
  const { failures, all } = await run(config, workload);
  assert.deepEqual(failures, []);
  assert.ok(all.e2eMs.max > 60_000, "the requests are too short");
});

Deno.test("figures of which there is nothing to tell are not told", async () => {
  const burst = workloadConfig({ arrivals: { kind: "burst" }, numRequests: 8 });
  const ofOne = await run(clusterConfig(), { ...burst, lengths: "fixed:16:1" });
  const failed = await run(clusterConfig(), { ...burst, lengths: "fixed:90000:5" });
  const shown = (result: RunResult) =>
    metrics.filter(({ valueOf }) => valueOf(result) !== null).map(({ name }) => name);
  assert.ok(shown(ofOne).includes("TTFT P99"));
  for (const name of shown(ofOne)) assert.doesNotMatch(name, /TPOT|ITL|utilisation|instances mean/);
  for (const name of shown(failed)) assert.doesNotMatch(name, /TTFT|end-to-end|loss/);
});

Deno.test("a burst is averaged over, and instance-seconds are exact", async () => {
  const workload = workloadConfig({ arrivals: { kind: "burst" }, lengths: "fixed:100:50" });
  const { averages, instanceSeconds, simulatedSeconds } = await run(clusterConfig(), workload);
  assert.equal(averages?.instances, 4);
  assert.ok(averages.utilisation > 0);
  assert.ok(Math.abs(instanceSeconds / simulatedSeconds - 4) < 0.01);
});

Deno.test("a model that is not known is refused before anything runs", async () => {
  const config = clusterConfig({ engine: { model: "gpt-5" } });
  await assert.rejects(run(config, workloadConfig()), UsageError);
});
