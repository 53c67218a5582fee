import assert from "node:assert/strict";
import { OutputHold } from "../../src/instance/output_hold.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";

function holdOf() {
  const clock = new VirtualClock();
  const aborted: string[] = [];
  return { clock, aborted, hold: new OutputHold(clock, (id) => aborted.push(id)) };
}

const token = (requestId: string, index = 0) => ({ requestId, index, tokenIds: [1] });
const last = (requestId: string) => ({ ...token(requestId), finish: { reason: "stop" } as const });

Deno.test("OutputHold: keeps outputs of expected requests, in order, until they are taken", () => {
  const { hold, clock, aborted } = holdOf();
  hold.expect("f", "a");
  hold.expect("f", "b");
  hold.expect("g", "c");
  for (const output of [token("a"), token("b"), token("x"), token("a", 1), last("b")]) {
    hold.add("f", output);
  }
  hold.add("h", token("a"));
  const { requestIds, outputs } = hold.take("f");
  assert.deepEqual([...requestIds], ["a"], "b has ended");
  assert.deepEqual(outputs, [token("a"), token("b"), token("a", 1), last("b")]);
  assert.equal(hold.take("f").outputs.length, 0);
  while (clock.step());
  assert.deepEqual(aborted, ["c"], "the API server g never came");
});

Deno.test("OutputHold: a request that left is not aborted; what it had produced is kept", () => {
  const { hold, clock, aborted } = holdOf();
  hold.expect("f", "a");
  hold.add("f", token("a"));
  hold.forget("a");
  assert.deepEqual(hold.take("f").outputs, [token("a")]);
  hold.expect("f", "b");
  hold.forget("b");
  while (clock.step());
  assert.deepEqual(aborted, []);
});

Deno.test("OutputHold: too many outputs for one API server end its requests", () => {
  const { hold, aborted } = holdOf();
  hold.expect("f", "a");
  for (let i = 0; aborted.length === 0; i++) {
    hold.add("f", token("a", i));
    assert.ok(i < 10_000, "there is no bound");
  }
  assert.deepEqual(aborted, ["a"]);
  assert.equal(hold.take("f").outputs.length, 0);
});

Deno.test("OutputHold: closed it aborts nothing any more", () => {
  const { hold, clock, aborted } = holdOf();
  hold.expect("f", "a");
  hold.close();
  while (clock.step());
  assert.deepEqual(aborted, []);
});
