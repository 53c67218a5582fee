/** The race checker's own test: each way to break a small kernel is reported, and nothing else. */
import assert from "node:assert/strict";
import { longTest } from "../../long.ts";
import { type Bench, configure, deviceTest, directory, freshBench } from "./device.ts";
import { microKernels, microLibrary, runMicro, waysToBreak } from "./micro.ts";
import { takeRaces } from "./races.ts";

async function expectSilence(bench: Bench, seeds: number): Promise<void> {
  const path = await microLibrary(true);
  for (let seed = 1; seed <= seeds; seed++) {
    configure(`kernels=${path},seed=${seed}`);
    for (const name of microKernels) runMicro(bench, name, 0);
    assert.deepEqual(takeRaces(path), []);
  }
}

deviceTest("the race checker is silent over 20 seeds of sound kernels", "", async (bench) => {
  await expectSilence(bench, 20);
});
longTest({
  name: "software device: the race checker is silent over 200 seeds of sound kernels",
  ignore: directory === null,
  fn: () => expectSilence(freshBench(""), 200),
});

const ways = waysToBreak();
assert.deepEqual(new Set(ways.values()), new Set(microKernels));
for (const [broken, name] of ways) {
  deviceTest(`the race checker reports ${name} without its part ${broken}`, "", async (bench) => {
    const path = await microLibrary(true);
    configure(`kernels=${path},seed=1`);
    runMicro(bench, name, broken);
    const reports = takeRaces(path);
    assert(reports.length > 0, "no report");
    for (const report of reports) {
      assert.match(report, new RegExp(`^${name}: .*( at micro\\.cu:\\d+|ended without)`));
    }
    const races = reports.filter((report) => report.includes(" after "));
    for (const race of races) assert.match(race, /against micro\.cu:\d+/);
  });
}
