import assert from "node:assert/strict";
import { Random } from "../../../src/core/random.ts";
import { demoLoad } from "../../../src/cli/demo/load.ts";

const load = (seed: number) =>
  demoLoad({
    ...{ seconds: 36, tokensPerSecond: 1_000, cacheTokens: 3_072, charactersPerToken: 3.5 },
    random: new Random(seed),
  });

Deno.test("a seed says which requests come, and when", () => {
  assert.deepEqual(load(1), load(1));
  assert.notDeepEqual(load(1), load(2));
});

Deno.test("requests come in bursts, in their order, and all within the time", () => {
  const times = load(1).map(({ arrivalMs }) => arrivalMs);
  assert.deepEqual(times, times.toSorted((a, b) => a - b));
  assert.ok(times.at(-1)! < 36_000);
  const inBursts = times.filter((ms) => ms % 9_000 < 3_000).length;
  // 2.2 times the mean rate in a third of the time
  assert.ok(inBursts / times.length > 0.6, `${inBursts} of ${times.length}`);
});

Deno.test("the load asks for about as many tokens as it was told to", () => {
  let tokens = 0;
  for (let seed = 1; seed <= 20; seed++) {
    tokens += load(seed).reduce((sum, { outputTokens }) => sum + outputTokens, 0);
  }
  const perSecond = tokens / 20 / 36;
  assert.ok(perSecond > 900 && perSecond < 1_100, `${perSecond}`);
});

Deno.test("prompts are of their length; none fills an instance", () => {
  const requests = load(3);
  for (const { prompt, promptTokens, outputTokens } of requests) {
    assert.equal(prompt.length, Math.round(3.5 * promptTokens));
    assert.ok(promptTokens + outputTokens < 0.6 * 3_072);
  }
  assert.ok(requests.some(({ promptTokens }) => promptTokens > 900), "some are long");
});
