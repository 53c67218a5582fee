import assert from "node:assert/strict";
import { clusterFamilies } from "../../src/metrics/cluster_families.ts";
import { Exposition } from "../../src/metrics/exposition.ts";
import { gauge } from "../../src/metrics/family.ts";
import { textOf } from "../../src/metrics/text_format.ts";
import { clusterState, instanceLoad } from "./cluster_state.ts";
import { allFamilies } from "./families.ts";
import { promtool, testWith, withoutColons } from "./prometheus.ts";

function clockAt(time: { ms: number }) {
  return { nowMs: () => time.ms, after: () => () => {}, soon: () => {} };
}

Deno.test("exposition: readers share one text for a moment, also while it is made", async () => {
  const time = { ms: 0 };
  const gates: (() => void)[] = [];
  const exposition = new Exposition(async () => {
    await new Promise<void>((resolve) => gates.push(resolve));
    return [gauge("x", "X.", [{ labels: {}, value: gates.length }])];
  }, clockAt(time));
  const first = exposition.text();
  time.ms = 60_000; // a slow manager: still one at a time
  assert.equal(exposition.text(), first);
  gates[0]();
  assert.match(await first, /^x 1$/m);
  time.ms += 100;
  assert.equal(exposition.text(), first);
  time.ms += 1000;
  const second = exposition.text();
  assert.notEqual(second, first);
  gates[1]();
  assert.match(await second, /^x 2$/m);
});

Deno.test("exposition: an error goes to all that wait, and the next reader tries again", async () => {
  const time = { ms: 0 };
  let calls = 0;
  const exposition = new Exposition(() => {
    calls++;
    return calls === 1 ? Promise.reject(new Error("no")) : Promise.resolve([]);
  }, clockAt(time));
  await assert.rejects(exposition.text(), /no/);
  time.ms += 1000;
  await exposition.text();
  assert.equal(calls, 2);
});

Deno.test("cluster metrics: an infinite load is no sample", () => {
  const idle = instanceLoad("idle", { load: "-inf", migrationLoad: "inf", freeness: "inf" });
  const families = clusterFamilies(clusterState([idle, instanceLoad("busy")]), "m");
  const samplesOf = (name: string) =>
    families.find((one) => one.name === name)!.samples.map(({ labels, value }) => [
      labels.instance_id,
      labels.kind,
      value,
    ]);
  assert.deepEqual(samplesOf("llumnix:instance_load"), [
    ["busy", "dispatch", -3],
    ["busy", "migration", -4],
  ]);
  assert.deepEqual(samplesOf("llumnix:instance_freeness"), [["busy", undefined, 37.5]]);
  assert.deepEqual(samplesOf("vllm:gpu_cache_usage_perc").map(([, , value]) => value), [
    0.25,
    0.25,
  ]);
});

Deno.test("cluster metrics: an instance that has not reported has no numbers", () => {
  const starting = instanceLoad("a", {
    state: "starting",
    usedBlocks: null,
    totalBlocks: null,
    runningRequests: null,
    totals: null,
    lastStepMs: null,
    firstWaitingMs: null,
  });
  const families = clusterFamilies(clusterState([starting]), "m");
  for (const name of ["vllm:num_requests_running", "vllm:num_preemptions_total"]) {
    assert.deepEqual(families.find((one) => one.name === name)!.samples, [], name);
  }
});

Deno.test("metrics: every name is one of vLLM's, Llumnix's or a process's, with help and samples", () => {
  const families = allFamilies();
  const names = families.map(({ name }) => name);
  assert.equal(new Set(names).size, names.length, "a name comes twice");
  for (const { name, help, samples, type } of families) {
    assert.match(name, /^(vllm:|llumnix:|process_)[a-z0-9_]+$/);
    assert.match(help, /^[A-Z1].+\.$/, name);
    assert.ok(samples.length > 0, name);
    assert.equal(name.endsWith("_total"), type === "counter", name);
  }
});

Deno.test("metrics: the README names every one, and no other", async () => {
  const readme = await Deno.readTextFile(new URL("../../src/metrics/README.md", import.meta.url));
  const documented = [...readme.matchAll(/^\| `([a-z_:0-9]+)` +\| (?:gauge|counter|histogram)/gm)];
  assert.deepEqual(
    documented.map(([, name]) => name).sort(),
    allFamilies().map(({ name }) => name).sort(),
  );
});

testWith(
  "promtool",
  "promtool finds nothing to say but the colons of the names",
  async (program) => {
    const text = textOf(allFamilies());
    const asTheyAre = await promtool(program, ["check", "metrics"], text);
    const other = asTheyAre.text.split("\n").filter((line) =>
      line !== "" && !/^(vllm|llumnix):\w+ metric names should not contain ':'$/.test(line)
    );
    assert.deepEqual(other, []);
    const { code, text: said } = await promtool(program, ["check", "metrics"], withoutColons(text));
    assert.deepEqual({ code, said }, { code: 0, said: "" });
  },
);
