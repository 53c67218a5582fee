/** Profile and workload together: the paper's rates load the simulated A10 as they did the real one. */
import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { decodeMs, prefillMs } from "../../src/executor/sim/profile.ts";
import { builtinProfile } from "../../src/executor/sim/roofline.ts";
import { requestLengths } from "../../src/workload/paper_lengths.ts";

const NUM_INSTANCES = 16;
const CAPACITY_TOKENS = 13616;

/**
 * Fraction of the KV cache that is taken on average, if requests spread evenly and none waits: a
 * request holds its prompt and half its output while it decodes (Little's law).
 */
function occupancy(name: string, requestsPerSecond: number): number {
  const { prompt, output } = requestLengths(name);
  const profile = builtinProfile("a10", "llama-7b");
  const ratePerMs = requestsPerSecond / NUM_INSTANCES / 1000;
  const random = new Random(1);
  const count = 100_000;
  let tokenSteps = 0, prefillWork = 0, steps = 0;
  for (let i = 0; i < count; i++) {
    const promptTokens = prompt.sample(random), outputTokens = output.sample(random);
    steps += outputTokens;
    tokenSteps += outputTokens * (promptTokens + outputTokens / 2);
    prefillWork += prefillMs(profile, promptTokens);
  }
  const prefillShare = ratePerMs * prefillWork / count;
  // The more tokens are held, the longer a step takes, and the more are held: a fixed point.
  let tokens = 0;
  for (let i = 0; i < 200; i++) {
    const stepMs = decodeMs(profile, 16, tokens) / (1 - prefillShare);
    tokens = ratePerMs * stepMs * tokenSteps / count;
    assert.ok(ratePerMs * stepMs * steps / count < 256, "sequences at once");
  }
  return tokens / CAPACITY_TOKENS;
}

/** The highest Poisson rates of the paper's serving experiment, in requests per second. */
const highestRates = { "s-s": 38, "m-m": 8, "l-l": 3.2, "s-l": 4.4, "l-s": 22 };

for (const [name, rate] of Object.entries(highestRates)) {
  Deno.test(`${name} at ${rate} requests per second takes most of the memory of 16 A10`, () => {
    const fraction = occupancy(name, rate);
    assert.ok(fraction > 0.45 && fraction < 1.1, `${fraction}`);
  });
}
