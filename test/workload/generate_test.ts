import assert from "node:assert/strict";
import { type GeneratedWorkload, generateWorkload } from "../../src/workload/generate.ts";
import { requestLengths } from "../../src/workload/paper_lengths.ts";

const workload: GeneratedWorkload = {
  arrivals: { kind: "gamma", rate: 5, cv: 4 },
  lengths: requestLengths("m-m"),
  numRequests: 2000,
  highPriority: 0.1,
  seed: 7,
};

function requestsOf(overrides: Partial<GeneratedWorkload> = {}) {
  return [...generateWorkload({ ...workload, ...overrides })];
}

Deno.test("the same seed gives the same workload, another seed another", () => {
  assert.deepEqual(requestsOf(), requestsOf());
  assert.notDeepEqual(requestsOf(), requestsOf({ seed: 8 }));
});

Deno.test("a longer workload begins like a shorter one", () => {
  assert.deepEqual(requestsOf({ numRequests: 3000 }).slice(0, 2000), requestsOf());
});

Deno.test("arrivals, lengths and priorities change alone", () => {
  const reference = requestsOf();
  const others = requestsOf({ highPriority: 0.5, arrivals: { kind: "burst" } });
  const lengths = (requests: typeof reference) =>
    requests.map(({ promptTokens, outputTokens }) => [promptTokens, outputTokens]);
  assert.deepEqual(lengths(others), lengths(reference));
  assert.ok(others.every(({ arrivalMs }) => arrivalMs === 0));
});

Deno.test("requests come in order, and the fraction of high priority is kept", () => {
  const requests = requestsOf({ numRequests: 20_000 });
  let lastMs = 0, numHigh = 0;
  for (const { arrivalMs, priority, promptTokens, outputTokens } of requests) {
    assert.ok(arrivalMs >= lastMs && promptTokens >= 1 && outputTokens >= 1);
    lastMs = arrivalMs;
    if (priority === "high") numHigh++;
  }
  assert.ok(Math.abs(numHigh / 20_000 - 0.1) < 0.01, `${numHigh}`);
  assert.ok(requestsOf({ highPriority: 0 }).every(({ priority }) => priority === "normal"));
  assert.ok(requestsOf({ highPriority: 1 }).every(({ priority }) => priority === "high"));
});

Deno.test("prompt and output lengths are independent", () => {
  const requests = requestsOf({ numRequests: 50_000, lengths: requestLengths("l-l") });
  const mean = (f: (r: typeof requests[0]) => number) =>
    requests.reduce((sum, request) => sum + f(request), 0) / requests.length;
  const prompt = mean((r) => r.promptTokens), output = mean((r) => r.outputTokens);
  const covariance = mean((r) => (r.promptTokens - prompt) * (r.outputTokens - output));
  const variance = mean((r) => (r.promptTokens - prompt) ** 2);
  assert.ok(Math.abs(covariance / variance) < 0.02);
});

Deno.test("requests are made as they are taken", () => {
  const requests = generateWorkload({ ...workload, numRequests: 1e12 });
  for (let i = 0; i < 10; i++) assert.equal(requests.next().done, false);
});

Deno.test("numbers out of range are refused", () => {
  const refuse = (overrides: Partial<GeneratedWorkload>, message: RegExp) =>
    assert.throws(() => requestsOf(overrides), { name: "UsageError", message });
  refuse({ highPriority: 1.5 }, /fraction of high-priority requests is 1.5/);
  refuse({ seed: -1 }, /seed of a workload is -1/);
  refuse({ numRequests: 0 }, /number of requests is 0/);
  refuse({ arrivals: { kind: "poisson", rate: 0 } }, /rate of arrivals is 0/);
});
