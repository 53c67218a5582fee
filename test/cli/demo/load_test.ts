import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { busiestMs, demoLoad, probeLoad, sampleText } from "../../../src/cli/demo/load.ts";

const CACHE_TOKENS = 2_048;
const shape = { numInstances: 4, cacheTokens: CACHE_TOKENS, charactersPerToken: 3.5 };

function load(seed: number, tokensPerSecond = 1_000) {
  return demoLoad(shape, { seconds: 36, tokensPerSecond }, new Random(seed));
}

const tokensOf = (requests: ReturnType<typeof load>) =>
  requests.reduce((sum, one) => sum + one.promptTokens + one.outputTokens, 0);

Deno.test("a seed says which requests come, and when", () => {
  assert.deepEqual(load(1), load(1));
  assert.notDeepEqual(load(1), load(2));
});

Deno.test("requests come in their order, and all within the time", () => {
  for (const tokensPerSecond of [10, 300, 3_000]) {
    const times = load(1, tokensPerSecond).map(({ arrivalMs }) => arrivalMs);
    assert.deepEqual(times, times.toSorted((a, b) => a - b));
    assert.ok(times.at(-1)! <= 36_000, `${times.at(-1)}`);
  }
});

Deno.test("a burst asks for as much as the KV caches hold, on slow machines too", () => {
  for (const tokensPerSecond of [10, 3_000]) {
    const requests = load(2, tokensPerSecond);
    const gaps = requests.slice(1).map(({ arrivalMs }, i) => arrivalMs - requests[i].arrivalMs);
    const end = gaps.findIndex((gap) => gap > 5 * Math.max(...gaps.slice(0, 10)));
    const first = end < 0 ? requests : requests.slice(0, end + 1);
    assert.ok(tokensOf(first) >= 4 * CACHE_TOKENS, `${first.length} requests`);
    assert.ok(tokensOf(first) <= 5 * CACHE_TOKENS, `${first.length} requests`);
  }
});

Deno.test("the requests that measure the machine come at once, and make queues", () => {
  const requests = probeLoad(shape, new Random(1));
  assert.ok(requests.every(({ arrivalMs }) => arrivalMs === 0));
  assert.ok(tokensOf(requests) >= 2.5 * 4 * CACHE_TOKENS);
});

Deno.test("the load asks for about as many tokens as it was told to", () => {
  let tokens = 0;
  for (let seed = 1; seed <= 20; seed++) {
    tokens += load(seed).reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  }
  const perSecond = tokens / 20 / 36;
  // The last burst is whole.
  assert.ok(perSecond > 950 && perSecond < 1_150, `${perSecond}`);
});

Deno.test("prompts are as long as their tokens; some are long, none fills an instance", () => {
  const requests = load(3);
  for (const { prompt, promptTokens, outputTokens } of requests) {
    assert.equal(prompt.length, Math.round(3.5 * promptTokens));
    assert.ok(promptTokens + outputTokens <= 0.7 * CACHE_TOKENS);
  }
  assert.ok(requests.some(({ promptTokens }) => promptTokens > 0.4 * CACHE_TOKENS));
  assert.equal(sampleText().length, 2_000);
});

Deno.test("the busiest moment is at the end of a burst in the middle", () => {
  const at = (arrivalMs: number) => ({ ...load(1)[0], arrivalMs });
  const first = [0, 1], burst = [9_000, 9_200, 9_400], late = [14_000, 16_000, 18_000];
  assert.equal(busiestMs([...first, ...burst, ...late].map(at)), 9_400);
  assert.equal(busiestMs([at(7)]), 7);
});
