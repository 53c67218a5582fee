import assert from "node:assert/strict";
import { readPlan } from "../../../src/cli/bench/plan.ts";
import { splitWords } from "../../../src/cli/bench/words.ts";
import { UsageError } from "../../../src/core/errors.ts";

Deno.test("vLLM's command line is understood", () => {
  const plan = readPlan(
    ("--backend vllm --model m --dataset-name random --num-prompts 20 --request-rate inf " +
      "--random-input-len 8 --percentile-metrics ttft,e2el --metric-percentiles 50,99.9 " +
      "--goodput ttft:500 tpot:50 --metadata tp=1 version=2 --seed 3 --top-p 0.9 --save-result")
      .split(" "),
  );
  assert.deepEqual(plan.schedule, { kind: "burst" });
  assert.deepEqual(plan.shown.latencies, ["ttft", "e2el"]);
  assert.deepEqual(plan.shown.percentiles, [50, 99.9]);
  assert.deepEqual(plan.goodput, { ttft: 500, tpot: 50 });
  assert.deepEqual(plan.metadata, { tp: "1", version: "2" });
  assert.deepEqual(plan.extraBody, { top_p: 0.9 });
  assert.deepEqual([plan.endpoint, plan.ignoreEos], ["/v1/completions", true]);
});

Deno.test("Llumnix's rate, and when requests are sent", () => {
  const schedule = (...argv: string[]) => readPlan(argv).schedule;
  assert.deepEqual(schedule("--qps", "4"), {
    kind: "arrivals",
    arrivals: { kind: "poisson", rate: 4 },
  });
  assert.deepEqual(schedule("--qps", "4", "--distribution", "gamma", "--cv", "2"), {
    kind: "arrivals",
    arrivals: { kind: "gamma", rate: 4, cv: 2 },
  });
  assert.deepEqual(schedule("--distribution", "burst"), { kind: "burst" });
  const mooncake = ["--dataset-name", "mooncake", "--dataset-path", "x.jsonl"];
  assert.deepEqual(schedule(...mooncake), { kind: "trace", speedup: 1 });
  assert.deepEqual(schedule(...mooncake, "--request-rate", "2", "--burstiness", "inf"), {
    kind: "rate",
    rate: 2,
    burstiness: Infinity,
  });
});

Deno.test("servers: options of serve, another program, a URL", () => {
  const [spec] = readPlan(["--serve", "--model x --port 81"]).servers;
  assert.deepEqual([spec.isOurs, spec.baseUrl.port], [true, "81"]);
  const words = spec.command!;
  assert.deepEqual(words.slice(words.indexOf("serve")), [
    ...["serve", "--model", "x", "--port", "81", "--log-filename=", "--log-level=warning"],
  ]);
  const [a, b] = readPlan(["--compare", "vllm serve 'a b'", "http://h:5", "--port", "9"]).servers;
  assert.deepEqual([a.command, a.isOurs, a.baseUrl.port], [["vllm", "serve", "a b"], false, "9"]);
  assert.deepEqual([b.command, b.baseUrl.href], [null, "http://h:5/"]);
  const pair = readPlan(["--compare", "--device sim", "--device sim --model a"]).servers;
  assert.deepEqual(pair.map(({ isOurs }) => isOurs), [true, true]);
});

Deno.test("words of a quoted command line", () => {
  assert.deepEqual(splitWords(`a  "b c" 'd "e' f\\ g ""`), ["a", "b c", 'd "e', "f g", ""]);
  assert.throws(() => splitWords("a 'b"), /a quote \('\) does not end/);
});

for (
  const [argv, message] of [
    ["--percentile-metrics ttft,ttl", /there is no latency "ttl", .*did you mean itl/],
    ["--metric-percentiles 50,x", /"x" is no percentile, expected numbers from 0 to 100/],
    ["--metric-percentiles 101", /"101" is no percentile/],
    ["--goodput itl:5", /expected NAME:MILLISECONDS with a name of ttft, tpot, e2el/],
    ["--goodput ttft", /expected NAME:MILLISECONDS with a name of ttft, tpot, e2el$/],
    ["--goodput tftt:5", /did you mean ttft\?/],
    ["--request-rate 4 --qps 4", /both say when requests are sent/],
    ["--cv 4", /is for --qps/],
    ["--qps 4 --distribution gamma", /need each other/],
    ["--burstiness 0", /expected a number greater than 0, or inf/],
    ["--ramp-up-strategy linear", /needs --ramp-up-start-rps and/],
    ["--ramp-up-strategy linear --ramp-up-start-rps 4 --ramp-up-end-rps 2", /is more than/],
    ["--dataset-name sharegpt", /needs --dataset-path/],
    ["--dataset-path x", /a --dataset-name other than random/],
    ["--trace-speedup 2", /the dataset random has no times/],
    ["--header a", /--header a: expected KEY=VALUE/],
    ["--extra-body [1]", /expected a JSON object/],
    ["--base-url localhost:8000", /expected an address such as/],
    ["--endpoint v1", /begins with a slash/],
    ["--use-beam-search", /--use-beam-search is not supported/],
    ["--compare x", /--compare takes two servers/],
    ["--rounds 2", /--rounds is for --compare/],
    ["--backend tgi", /expected one of openai, vllm, openai-chat, llumnix/],
  ] as const
) {
  Deno.test(`refused: ${argv}`, () => {
    assert.throws(() => readPlan(argv.split(" ")), (error: Error) => {
      assert.ok(error instanceof UsageError, `${error.stack}`);
      assert.match(error.message, message);
      return true;
    });
  });
}
