import assert from "node:assert/strict";
import type { InstanceType } from "../../../src/core/protocol/instance_info.ts";
import { expectedStepsOn, newcomerType } from "../../../src/manager/fleet/disaggregation.ts";

Deno.test("the first N are prefill instances, the rest decode", () => {
  const types: InstanceType[] = [];
  for (let i = 0; i < 5; i++) types.push(newcomerType(types, 2));
  assert.deepEqual(types, ["prefill", "prefill", "decode", "decode", "decode"]);
});

Deno.test("whoever takes the place of another is what that was", () => {
  assert.equal(newcomerType(["prefill", "decode"], 2), "prefill");
  assert.equal(newcomerType(["prefill", "prefill"], 2), "decode");
  assert.equal(newcomerType(["prefill", "prefill", "prefill"], 2), "decode");
});

Deno.test("without disaggregation an instance is for both", () => {
  assert.equal(newcomerType([], null), "both");
});

Deno.test("a request leaves a prefill instance after its first token, if it can go anywhere", () => {
  assert.equal(expectedStepsOn("prefill", true), 1);
  assert.equal(expectedStepsOn("prefill", false), undefined);
  assert.equal(expectedStepsOn("decode", true), undefined);
  assert.equal(expectedStepsOn("both", false), undefined);
});
