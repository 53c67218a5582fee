import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { fitSteps } from "../../../src/sim/profile/fit.ts";
import { fitReport, fitText } from "../../../src/sim/profile/fit_report.ts";
import { robustFit } from "../../../src/sim/profile/least_squares.ts";
import type { StepSample } from "../../../src/sim/profile/step_log.ts";
import { renderReport } from "../../../src/report/html.ts";

const near = (actual: number, expected: number, share = 0.02) =>
  assert.ok(
    Math.abs(actual - expected) <= share * Math.abs(expected),
    `${actual}, not ${expected}`,
  );

/**
 * Steps with normal noise of 2%, of which some take far longer, as on a busy machine.
 * @param wild share of those
 */
function steps(count: number, wild = 0, pad = 8): StepSample[] {
  const random = new Random(1);
  const padded = (n: number) => Math.ceil(n / pad) * pad;
  return Array.from({ length: count }, (_, i) => {
    const kind = i % 2 === 0 ? "prefill" as const : "decode" as const;
    const sequences = kind === "prefill" ? 1 : 1 + random.below(40);
    const tokens = kind === "prefill" ? 8 + random.below(2000) : sequences * random.below(500) + 1;
    const exact = kind === "prefill"
      ? 0.1 * padded(tokens) + 5
      : 0.3 * padded(sequences) + 0.002 * padded(tokens) + 10;
    const noisy = exact * (1 + 0.02 * random.normal());
    return { kind, sequences, tokens, latencyMs: random.uniform() < wild ? 10 * noisy : noisy };
  });
}

Deno.test("costs are found, although a tenth of the steps took ten times as long", () => {
  for (const wild of [0, 0.1]) {
    const { prefill, decode, alignment, prefillQuality, pauseMs } = fitSteps(
      steps(2000, wild),
      [],
      "",
    );
    near(prefill.msPerToken, 0.1);
    near(prefill.msPerStep, 5, 0.1);
    near(decode.msPerSequence, 0.3, 0.05);
    near(decode.msPerToken, 0.002, 0.05);
    near(decode.msPerStep, 10, 0.05);
    assert.deepEqual([alignment, pauseMs, prefillQuality.steps], [8, 0, 1000]);
    assert.ok(prefillQuality.medianError < 0.03, `${prefillQuality.medianError}`);
    if (wild === 0) assert.ok(prefillQuality.r2 > 0.99, `${prefillQuality.r2}`);
  }
});

Deno.test("a device that does not pad", () => {
  const { decode, alignment } = fitSteps(steps(2000, 0, 1), [], "");
  assert.equal(alignment, 1);
  near(decode.msPerSequence, 0.3, 0.05);
});

Deno.test("attention within a prompt is found as a square term", () => {
  const squared = steps(2000, 0.1).map((step) =>
    step.kind === "decode" ? step : { ...step, latencyMs: step.latencyMs + 1e-4 * step.tokens ** 2 }
  );
  const { prefill } = fitSteps(squared, [], "");
  near(prefill.msPerSquaredToken!, 1e-4, 0.05);
  near(prefill.msPerToken, 0.1, 0.05);
});

Deno.test("the pause between steps is added to each", () => {
  const without = fitSteps(steps(400), [], "");
  const { prefill, decode, pauseMs } = fitSteps(steps(400), [0.4, 0.5, 90], "");
  assert.equal(pauseMs, 0.5);
  near(decode.msPerStep - without.decode.msPerStep, 0.5);
  near(prefill.msPerStep - without.prefill.msPerStep, 0.5);
  // A log whose times are too coarse gives nonsense below 0.
  assert.equal(fitSteps(steps(400), [-3], "").pauseMs, 0);
});

Deno.test("no cost is below 0", () => {
  const equations = Array.from({ length: 50 }, (_, i) => ({
    inputs: [i + 1, 1],
    target: 100 - i, // falls with the input
  }));
  const [slope, constant] = robustFit(equations, 2);
  assert.equal(slope, 0);
  assert.ok(constant > 50 && constant < 100, `${constant}`);
});

Deno.test("refused: too few steps, steps that are all alike", () => {
  assert.throws(() => fitSteps(steps(8), [], ""), /too few prefill steps to fit: 4, expected 10/);
  const same = Array.from({ length: 40 }, (_, i): StepSample => ({
    ...{ kind: i % 2 ? "prefill" : "decode", sequences: 4, tokens: 64, latencyMs: 5 },
  }));
  const { prefill, decode } = fitSteps(same, [], "");
  assert.deepEqual([prefill.msPerToken, decode.msPerSequence, decode.msPerToken], [0, 0, 0]);
  near(prefill.msPerStep, 5);
  near(decode.msPerStep, 5);
});

Deno.test("the table and the plots", () => {
  const fit = fitSteps(steps(400), [0.5], "here");
  assert.match(fitText(fit), /^prefill +200 +0\.99\d/m);
  assert.match(fitText(fit), /0\.5\d* ms of each step is the pause/);
  const page = renderReport(fitReport("Profile", ["note"], fit, steps(400)));
  assert.match(page, /decode: time of a step/);
  assert.ok(!/NaN|undefined|Infinity/.test(page));
});
