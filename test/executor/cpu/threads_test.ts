import assert from "node:assert/strict";
import { planThreads } from "../../../src/executor/cpu/threads.ts";

const host = { requested: null, hostShare: 1, allowedCpus: [0, 1, 2, 3], parallelism: 4 };

Deno.test("an instance that has all CPUs takes and pins them", () => {
  assert.deepEqual(planThreads(host), { threads: 4, cpus: [0, 1, 2, 3] });
});

Deno.test("a quota of CPU time bounds the threads, and nothing is pinned", () => {
  assert.deepEqual(planThreads({ ...host, parallelism: 2 }), { threads: 2 });
});

Deno.test("instances of a host share its CPUs unpinned, one each at least", () => {
  assert.deepEqual(planThreads({ ...host, hostShare: 3 }), { threads: 1 });
  assert.deepEqual(planThreads({ ...host, hostShare: 9 }), { threads: 1 });
});

Deno.test("a number that was asked for is kept, unpinned", () => {
  for (const requested of [1, 4, 9]) {
    assert.deepEqual(planThreads({ ...host, requested }), { threads: requested });
  }
});

Deno.test("where allowed CPUs cannot be told, nothing is pinned", () => {
  assert.deepEqual(planThreads({ ...host, allowedCpus: [] }), { threads: 4 });
});
