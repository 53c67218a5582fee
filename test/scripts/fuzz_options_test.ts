import assert from "node:assert/strict";
import { fuzzHelp, readFuzzOptions } from "../../scripts/fuzz_options.ts";

Deno.test("fuzzer: options and their defaults", () => {
  assert.deepEqual(readFuzzOptions(["--seeds", "7"]), {
    seeds: { first: 7, last: 7 },
    trace: false,
    kind: "clusters",
    jobs: 1,
    maxFailures: 10,
  });
  assert.deepEqual(
    readFuzzOptions(["--seeds=1..20", "--trace", "--jobs", "2", "--max-failures", "3"]),
    { seeds: { first: 1, last: 20 }, trace: true, kind: "clusters", jobs: 2, maxFailures: 3 },
  );
});

for (
  const [argv, message] of [
    ["", /--seeds is missing: expected .* for example --seeds 1\.\.1000/],
    ["--seeds", /--seeds: expected a value/],
    ["--seeds a..b", /--seeds a\.\.b: expected the first and last seed/],
    ["--seeds 1...2", /--seeds 1\.\.\.2: expected the first and last seed/],
    ["--seeds 9..3", /--seeds 9\.\.3: the last seed is before the first/],
    ["--seeds 1..1099511627776", /seeds are at most 1099511627775/],
    ["--seed 1..3", /unknown option --seed; did you mean --seeds\?/],
    ["--seeds 1..3 --verbose", /unknown option --verbose/],
    ["--seeds 1..3 --jobs 0", /--jobs 0/],
    ["--seeds 1..3 --max-failures many", /--max-failures many/],
    ["1..3", /unexpected argument: 1\.\.3/],
  ] as const
) {
  Deno.test(`fuzzer refuses: ${argv || "nothing"}`, () => {
    assert.throws(() => readFuzzOptions(argv.split(" ").filter(Boolean)), {
      name: "UsageError",
      message,
    });
  });
}

Deno.test("fuzzer: help names every option", () => {
  for (const option of ["--seeds A..B", "--trace", "--jobs JOBS", "--max-failures"]) {
    assert.ok(fuzzHelp().includes(option), option);
  }
});
