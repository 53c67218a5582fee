import assert from "node:assert/strict";
import { setPreempting } from "../../ffi/thread_policy.ts";

Deno.test({
  name: "thread policy: a thread gives up preempting, and takes it back",
  ignore: Deno.build.os !== "linux",
}, () => {
  assert.equal(policy(), 0);
  setPreempting(false);
  assert.equal(policy(), 3);
  setPreempting(true);
  assert.equal(policy(), 0);
});

/** Field 41 of proc(5) stat; the second one may hold spaces. */
function policy(): number {
  const stat = Deno.readTextFileSync("/proc/thread-self/stat");
  return Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[41 - 3]);
}
