import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import {
  fixedLength,
  type LengthDistribution,
  quantileLengths,
} from "../../src/workload/lengths.ts";
import { lengthNames, requestLengths } from "../../src/workload/paper_lengths.ts";

interface Summary {
  readonly mean: number;
  /** P50, P80, P95, P99 */
  readonly quantiles: readonly number[];
  readonly min: number;
  readonly max: number;
}

function summarise(lengths: LengthDistribution, seed = 1, count = 100_000): Summary {
  const random = new Random(seed);
  const values = Float64Array.from({ length: count }, () => lengths.sample(random)).sort();
  return {
    mean: values.reduce((sum, value) => sum + value, 0) / count,
    quantiles: [0.5, 0.8, 0.95, 0.99].map((u) => values[Math.floor(u * count)]),
    min: values[0],
    max: values[count - 1],
  };
}

/** @param tolerances of the mean and of P50, P80, P95, P99, as fractions */
function isLike(lengths: LengthDistribution, expected: readonly number[], tolerances: number[]) {
  const { mean, quantiles, min, max } = summarise(lengths);
  const found = [mean, ...quantiles];
  for (const [i, value] of found.entries()) {
    const error = Math.abs(value / expected[i] - 1);
    assert.ok(error <= tolerances[i], `${lengths.name}: ${found}, expected ${expected}`);
  }
  assert.ok(min >= 1 && max <= 6144);
}

/** Mean, P50, P80, P95, P99 as the paper gives them. */
const published = {
  sharegpt: { prompt: [306, 74, 348, 1484, 3388], output: [500, 487, 781, 988, 1234] },
  burstgpt: { prompt: [830, 582, 1427, 2345, 3549], output: [271, 243, 434, 669, 964] },
};

for (const [name, expected] of Object.entries(published)) {
  Deno.test(`${name}: mean and quantiles are the published ones`, () => {
    const { prompt, output } = requestLengths(name);
    isLike(prompt, expected.prompt, [0.02, 0.02, 0.03, 0.03, 0.05]);
    isLike(output, expected.output, [0.02, 0.02, 0.03, 0.03, 0.05]);
  });
}

/** The paper's figures are of one sample, so its tail is off by more. */
const generated = {
  "s-s": [128, 38, 113, 413, 1464],
  "m-m": [256, 32, 173, 1288, 4208],
  "l-l": [512, 55, 582, 3113, 5166],
};

for (const [name, expected] of Object.entries(generated)) {
  Deno.test(`${name}: the Zipf construction gives the paper's lengths`, () => {
    const { prompt, output } = requestLengths(name);
    assert.equal(prompt, output);
    isLike(prompt, expected, [0.03, 0.1, 0.1, 0.05, 0.2]);
  });
}

Deno.test("traces of two lengths combine the generated ones", () => {
  assert.equal(requestLengths("S-L").prompt, requestLengths("s-s").prompt);
  assert.equal(requestLengths("S-L").output, requestLengths("l-l").output);
  assert.equal(requestLengths("l-s").prompt, requestLengths("l-l").prompt);
});

Deno.test("quantile functions go through their points, in between in order, with the mean", () => {
  const random = new Random(9);
  for (let i = 0; i < 20; i++) {
    const tokens = [4, 20, 60, 150, 300].map((at) => at * (1 + random.uniform()));
    const quantiles = [0, 0.5, 0.8, 0.95, 1].map((u, k) => [u, tokens[k]] as const);
    const straight = quantiles.slice(1).reduce(
      (sum, [u, to], k) => sum + (u - quantiles[k][0]) * (to + quantiles[k][1]) / 2,
      0,
    );
    const meanTokens = straight * (0.9 + 0.15 * random.uniform());
    const { mean, quantiles: found } = summarise(
      quantileLengths({ name: "any", meanTokens, quantiles }),
      i,
      20_000,
    );
    assert.ok(Math.abs(mean / meanTokens - 1) < 0.03, `${mean}, expected ${meanTokens}`);
    for (const k of [0, 1, 2]) assert.ok(Math.abs(found[k] / tokens[k + 1] - 1) < 0.06);
  }
});

Deno.test("a mean that quantiles exclude is refused", () => {
  const quantiles = [[0, 10], [0.5, 20], [1, 30]] as const;
  assert.throws(() => quantileLengths({ name: "x", meanTokens: 29, quantiles }), {
    name: "UsageError",
    message: "the lengths x cannot have these quantiles and mean 29",
  });
});

Deno.test("fixed lengths, and names that there are not", () => {
  const { prompt, output } = requestLengths("fixed:100:7");
  assert.deepEqual([prompt.sample(new Random(1)), output.sample(new Random(1))], [100, 7]);
  assert.throws(() => requestLengths("alpaca"), {
    name: "UsageError",
    message: `"alpaca" is not known: expected ${lengthNames.join(", ")} or ` +
      "fixed:PROMPT:OUTPUT",
  });
  assert.throws(() => fixedLength(0), { name: "UsageError" });
  assert.throws(() => requestLengths("fixed:0:1"), { name: "UsageError" });
});
