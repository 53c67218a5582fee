import assert from "node:assert/strict";
import { readPlan } from "../../../src/cli/simulate/plan.ts";
import { UsageError } from "../../../src/core/errors.ts";
import { presets } from "../../../src/sim/experiment/presets.ts";

Deno.test("simulate: a rate and a CV each make a workload", () => {
  const { comparison } = readPlan(["--rate", "5,6", "7", "--cv", "2", "4"]);
  assert.deepEqual(comparison.workloads.map(({ name }) => name), [
    "S-S 5 req/s CV 2",
    "S-S 5 req/s CV 4",
    "S-S 6 req/s CV 2",
    "S-S 6 req/s CV 4",
    "S-S 7 req/s CV 2",
    "S-S 7 req/s CV 4",
  ]);
  assert.equal(comparison.workloads[0].numRequests, 10_000);
  assert.deepEqual(comparison.seeds, [1, 2, 3]);
});

Deno.test("simulate: compared configurations are the first one with other options", () => {
  const { comparison } = readPlan([
    "--rate=5",
    "--instances=8",
    "--enable-migration",
    "--load-metric=usage_ratio",
    "--compare",
    "rr: --dispatch-policy rr --enable-migration=false",
    "small:--instances 4",
  ]);
  const [first, rr, small] = comparison.clusters;
  assert.deepEqual([first.name, rr.name, small.name], ["llumnix", "rr", "small"]);
  assert.equal(rr.manager.dispatchPolicy, "rr");
  assert.equal(rr.migration.enableMigration, false);
  assert.equal(rr.manager.initialInstances, 8);
  assert.equal(small.manager.initialInstances, 4);
  assert.equal(small.migration.enableMigration, true);
  assert.equal(small.migration.migrateOutThreshold, 0.85, "unset thresholds follow the metric");
});

Deno.test("simulate: arguments change a preset, but not what its baselines are", () => {
  const { comparison } = readPlan([
    "--preset=osdi24-serving",
    "--requests=50",
    "--instances=4",
    "--request-migration-policy=LCR",
    "--dispatch-policy=queue",
    "--rate=9",
    "--lengths=m-m",
  ]);
  const [llumnix, load] = comparison.clusters;
  assert.deepEqual(comparison.workloads.map(({ name, numRequests }) => [name, numRequests]), [
    ["M-M 9 req/s", 50],
  ]);
  assert.equal(llumnix.migration.requestMigrationPolicy, "LCR");
  assert.equal(llumnix.manager.dispatchPolicy, "queue");
  assert.equal(load.manager.dispatchPolicy, "load");
  assert.equal(load.manager.initialInstances, 4);
});

const refusals: readonly (readonly [what: string, argv: readonly string[], message: RegExp])[] = [
  [
    "an unknown preset names the nearest",
    ["--preset", "osdi24-servng"],
    /osdi24-scalability.*did you mean osdi24-serving\?/,
  ],
  [
    "an unknown option",
    ["--rate", "5", "--dispatch-polcy", "rr"],
    /did you mean --dispatch-policy/,
  ],
  ["no rate", [], /--rate is missing/],
  ["a rate of 0", ["--rate", "0"], /--rate 0: expected a number greater than 0/],
  ["a negative rate", ["--rate", "-1"], /--rate -1: expected a number greater than 0/],
  ["a rate that is no number", ["--rate", "5,x"], /--rate x: expected a number greater than 0/],
  ["a CV without gamma", ["--rate", "5", "--cv", "2", "--arrivals", "poisson"], /--cv is for/],
  ["a burst with a rate", ["--rate", "5", "--arrivals", "burst"], /a burst has no rate/],
  ["unknown lengths", ["--rate", "5", "--lengths", "x-x"], /--lengths x-x: .*sharegpt/],
  [
    "min above max",
    ["--rate", "5", "--min-instances", "5", "--max-instances", "4", "--instances", "4"],
    /--min-instances 5 is more than --max-instances 4/,
  ],
  [
    "a beginning outside of the limits",
    ["--rate", "5", "--enable-scaling", "--instances", "9", "--max-instances", "4"],
    /--instances 9 is outside --min-instances 1 to --max-instances 4/,
  ],
  [
    "a crossover that is no length",
    ["--rate", "5", "--migration-crossover", "short"],
    /--migration-crossover short: expected auto or a number of tokens/,
  ],
  [
    "more dispatch instances than there are",
    ["--rate", "5", "--instances", "4", "--num-dispatch-instances", "5"],
    /--num-dispatch-instances 5 is more than the 4/,
  ],
  ["a negative interval", ["--rate", "5", "--polling-interval", "-1"], /--polling-interval -1/],
  ["no scaling interval", ["--rate", "5", "--scaling-interval", "0"], /--scaling-interval 0/],
  [
    "a threshold that the metric cannot have",
    ["--rate", "5", "--load-metric", "usage_ratio", "--migrate-out-threshold", "3"],
    /--migrate-out-threshold 3: with load metric usage_ratio it must be a fraction/,
  ],
  [
    "scaling thresholds that contradict",
    ["--rate", "5", "--enable-scaling", "--scale-down-threshold", "5"],
    /--scale-up-threshold 10 and --scale-down-threshold 5 contradict each other/,
  ],
  [
    "a negative threshold",
    ["--rate", "5", "--scale-up-threshold", "-10"],
    /--scale-up-threshold -10: .*number of steps/,
  ],
  ["an unknown model", ["--rate", "5", "--model", "gpt-5"], /gpt-5/],
  ["an unknown GPU", ["--rate", "5", "--gpu-type", "b900"], /b900/],
  [
    "a profile that is not there",
    ["--rate", "5", "--profiling-result-file-path", "missing.json"],
    /missing\.json/,
  ],
  ["a trace that is not there", ["--trace", "missing.jsonl"], /missing\.jsonl/],
  ["a trace with lengths", ["--trace", "t.jsonl", "--lengths", "s-s"], /a trace has its own/],
  ["a comparison without a name", ["--rate", "5", "--compare", ": --instances 2"], /a name and/],
  ["a comparison without options", ["--rate", "5", "--compare", "rr"], /a name and options/],
  [
    "a comparison with an unknown option",
    ["--rate", "5", "--compare", "rr: --dispatch-polcy rr"],
    /--compare "rr": unknown option --dispatch-polcy/,
  ],
  [
    "a comparison of the workload",
    ["--rate", "5", "--compare", "x: --rate 6"],
    /--compare "x": --rate is the same for all configurations: give it before --compare/,
  ],
  [
    "a comparison that takes a flag back by a word",
    ["--rate", "5", "--compare", "n: --enable-migration false"],
    /--compare "n": unexpected argument: false \(write --enable-migration=false: a flag takes/,
  ],
  [
    "one file for JSON and report",
    ["--rate", "5", "--json", "r", "--html", "r"],
    /--json and --html are both r: give each a file of its own/,
  ],
  [
    "two configurations of one name",
    ["--rate", "5", "--compare", "a: --instances 2", "a: --instances 3"],
    /two configurations are named "a"/,
  ],
  [
    "disaggregation without a number of prefill instances",
    ["--rate", "5", "--enable-pd-disagg"],
    /--enable-pd-disagg needs --num-dispatch-instances N: .* of 16 in all/,
  ],
  [
    "disaggregation of one instance",
    ["--rate", "5", "--enable-pd-disagg", "--instances", "1"],
    /at least two instances, one for prefill and one for decode, but --instances is 1/,
  ],
  [
    "disaggregation without decode instances",
    ["--rate", "5", "--enable-pd-disagg", "--num-dispatch-instances", "16"],
    /--num-dispatch-instances 16: .* leaves none of 16 .* at most 15/,
  ],
  ["no seeds", ["--rate", "5", "--seeds", "0"], /--seeds 0/],
  ["a fraction above 1", ["--rate", "5", "--high-priority", "2"], /--high-priority 2/],
  [
    "steps shorter than sequences",
    ["--rate", "5", "--max-num-batched-tokens", "512"],
    /--max-num-batched-tokens/,
  ],
];

for (const [what, argv, message] of refusals) {
  Deno.test(`simulate refuses ${what}`, () => {
    assert.throws(() => readPlan(argv), (error) => {
      assert.ok(error instanceof UsageError, String(error));
      assert.match(error.message, message);
      return true;
    });
  });
}

Deno.test("simulate: a trace instead of the workloads of a preset, all of it", async () => {
  const trace = await Deno.makeTempFile({ suffix: ".jsonl" });
  try {
    await Deno.writeTextFile(trace, '{"time": 0, "prompt_tokens": 5, "output_tokens": 5}\n');
    const { comparison } = readPlan(["--preset", "osdi24-priorities", "--trace", trace]);
    const [{ arrivals, lengths, numRequests, highPriority }, ...rest] = comparison.workloads;
    assert.deepEqual([arrivals, lengths, numRequests, highPriority], [null, null, null, 0.1]);
    assert.equal(rest.length, 0);
  } finally {
    await Deno.remove(trace);
  }
});

Deno.test("simulate: a preset's summary is the title of its own requests and clusters only", () => {
  const titleOf = (...argv: string[]) =>
    readPlan(["--preset", "v0.1.0", "--seeds=1", ...argv]).comparison.title;
  assert.match(titleOf("--requests=5"), /^Llumnix v0\.1\.0: .*ShareGPT/);
  const changed = titleOf("--rate=9", "--model=llama-7b");
  assert.equal(changed, "Preset v0.1.0 with another --rate, --model");
});

Deno.test("simulate: what is not in force is named, with the configuration that it was written for", () => {
  const messages = (argv: readonly string[]) =>
    readPlan(["--rate=5", ...argv]).notices.map(({ message }) => message);
  const waiting = "--pair-migration-policy=waiting_first";
  assert.deepEqual(messages([waiting, "--enable-defrag=true"]), [
    "--pair-migration-policy waiting_first has no effect without --enable-migration",
  ]);
  assert.deepEqual(
    messages([
      "--enable-migration",
      "--enable-defrag=true",
      waiting,
      "--compare",
      "still: --enable-migration=false",
      "fit: --enable-migration=false --request-migration-policy FIT --priority-headroom-blocks 9",
      "plain: --enable-defrag=false",
      "two: --max-instances 20",
    ]),
    [
      "fit: --request-migration-policy FIT has no effect without --enable-migration",
      "fit: --priority-headroom-blocks 9 has no effect without --load-metric virtual_usage",
      "plain: --pair-migration-policy waiting_first needs --enable-defrag; the policy in force is " +
      "balanced",
      "two: --max-instances 20 has no effect without --enable-scaling",
    ],
  );
});

for (const { name } of presets) {
  Deno.test(`simulate: all of ${name} is in force`, () => {
    assert.deepEqual(readPlan([`--preset=${name}`]).notices, []);
  });
}

Deno.test("simulate: rows of a trace that are left out are counted", async () => {
  const trace = await Deno.makeTempFile({ suffix: ".csv" });
  try {
    await Deno.writeTextFile(trace, "Timestamp,Request tokens,Response tokens\n1,5,0\n2,5,5\n");
    const message = `${trace}: 1 row left out (failed requests, of 0 request or response tokens)`;
    assert.deepEqual(readPlan(["--trace", trace]).notices, [{ severity: "info", message }]);
  } finally {
    await Deno.remove(trace);
  }
});

const traces: readonly (readonly [what: string, file: string, text: string, message: RegExp])[] = [
  [
    "a row that is not JSON",
    "t.jsonl",
    '{"time": 0, "prompt_tokens": 5, "output_tokens": 5}\n{"time": 1,\n',
    /row 2/,
  ],
  [
    "a length of 0",
    "t.jsonl",
    '{"time": 0, "prompt_tokens": 5, "output_tokens": 5}\n\n' +
    '{"time": 1, "prompt_tokens": 0, "output_tokens": 5}\n',
    /row 3.*prompt_tokens/,
  ],
  [
    "times that go back",
    "t.csv",
    "Timestamp,Request tokens,Response tokens\n5,10,10\n4,10,10\n",
    /row 3/,
  ],
  [
    "a trace without times",
    "t.json",
    '[{"conversations":[{"value":"a"},{"value":"b"}]}]',
    /--rate/,
  ],
];

for (const [what, name, text, message] of traces) {
  Deno.test(`simulate refuses ${what} before it begins`, async () => {
    const directory = await Deno.makeTempDir();
    try {
      const path = `${directory}/${name}`;
      await Deno.writeTextFile(path, text);
      assert.throws(() => readPlan(["--trace", path]), message);
    } finally {
      await Deno.remove(directory, { recursive: true });
    }
  });
}
