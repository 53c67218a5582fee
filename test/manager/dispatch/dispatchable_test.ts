import assert from "node:assert/strict";
import type { InstanceType } from "../../../src/core/protocol/instance_info.ts";
import { dispatchableOf } from "../../../src/manager/dispatch/dispatchable.ts";

/** "p" prefill, "d" decode, "b" both; a capital drains. */
function named(letters: string) {
  const types: Record<string, InstanceType> = { p: "prefill", d: "decode", b: "both" };
  return [...letters].map((letter, i) => ({
    name: `${letter}${i}`,
    instanceType: types[letter.toLowerCase()],
    isDraining: letter !== letter.toLowerCase(),
  }));
}

function chosen(letters: string, limit: number | null): string {
  return dispatchableOf(named(letters), limit).map(({ name }) => name).join(" ");
}

Deno.test("dispatchable: all, or the first of them", () => {
  assert.equal(chosen("bbb", null), "b0 b1 b2");
  assert.equal(chosen("bbb", 2), "b0 b1");
  assert.equal(chosen("bbb", 9), "b0 b1 b2");
  assert.equal(chosen("", 2), "");
});

Deno.test("dispatchable: another takes the place of one that is gone or drains", () => {
  assert.equal(chosen("Bbb", 2), "b1 b2");
  assert.equal(chosen("BB", null), "");
});

Deno.test("dispatchable: with disaggregation all prefill instances, decode ones only without any", () => {
  assert.equal(chosen("dpdp", 2), "p1 p3");
  assert.equal(chosen("dpdP", 2), "p1");
  assert.equal(chosen("dpdp", null), "p1 p3");
  assert.equal(chosen("ppd", 1), "p0 p1");
  assert.equal(chosen("dPd", 1), "d0 d2");
  assert.equal(chosen("dD", null), "d0");
});
