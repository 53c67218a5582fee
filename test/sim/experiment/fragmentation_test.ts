import assert from "node:assert/strict";
import { fragmentation } from "../../../src/sim/experiment/cluster_sampler.ts";

const instance = (freeBlocks: number, firstWaitingBlocks: number) => ({
  totalBlocks: 100,
  freeBlocks,
  firstWaitingBlocks,
});

Deno.test("fragmentation: nobody waits", () => {
  assert.equal(fragmentation([instance(50, 0), instance(100, 0)]), 0);
  assert.equal(fragmentation([]), 0);
});

Deno.test("fragmentation: as many demands as the free blocks of all would hold", () => {
  assert.equal(fragmentation([instance(20, 30), instance(20, 0)]), 30 / 200);
  assert.equal(fragmentation([instance(20, 30), instance(20, 30)]), 30 / 200);
  assert.equal(fragmentation([instance(20, 25.5), instance(40, 30)]), 56 / 200);
});

Deno.test("fragmentation: memory that is full is not fragmented", () => {
  assert.equal(fragmentation([instance(10, 30), instance(10, 40)]), 0);
});
