import assert from "node:assert/strict";
import { RESUME_EPOCH } from "../../src/core/protocol/generate.ts";
import { HeldRequests, type HoldLimits } from "../../src/instance/held_requests.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { generateRequest } from "./support.ts";

const HOLD_MS = 1_000;

function holdOf(limits?: HoldLimits) {
  const clock = new VirtualClock();
  const hold = new HeldRequests(clock, limits);
  const begin = (requestId: string, outputTokenIds: number[] = [], epoch = 0) =>
    hold.begin({
      ...generateRequest(requestId, 3, { seed: 7 }, { epoch }),
      outputTokenIds,
      holdMs: HOLD_MS,
    });
  const passMs = (ms: number) => {
    let isOver = false;
    clock.after(ms, () => isOver = true);
    while (!isOver) clock.step();
  };
  return { clock, hold, begin, passMs };
}

const stop = { reason: "stop", stopTokenId: 5 } as const;
const token = (requestId: string, index: number, tokenId: number, epoch?: number) => ({
  requestId,
  index,
  tokenIds: [tokenId],
  epoch,
});

Deno.test("HeldRequests: what is taken has all tokens, those of earlier owners too, and the finish", () => {
  const { hold, begin } = holdOf();
  begin("a", [1, 2], 3);
  hold.add(token("a", 2, 4, 3));
  hold.add({ ...token("a", 3, 5, 3), finish: stop });
  const { tokenIds, finish, seed, epoch, frontendId, ownerEpoch } = hold.take("a")!;
  assert.deepEqual([tokenIds, finish, seed], [[1, 2, 4, 5], stop, 7]);
  assert.deepEqual([frontendId, ownerEpoch, epoch], ["f", 3, RESUME_EPOCH]);
  assert.deepEqual(hold.take("a")!.tokenIds, [1, 2, 4, 5], "in case its new API server dies too");
});

Deno.test("HeldRequests: a request that does not ask for it is not held", () => {
  const { hold } = holdOf();
  hold.begin(generateRequest("a", 3));
  hold.add(token("a", 0, 1));
  assert.equal(hold.hasAny, false);
  assert.equal(hold.take("a"), null);
});

Deno.test("HeldRequests: the hold begins with the end, and is over after its time", () => {
  const { hold, begin, passMs } = holdOf();
  begin("a");
  passMs(5 * HOLD_MS);
  hold.add(token("a", 0, 1));
  hold.add({ requestId: "a", index: 1, tokenIds: [], finish: { reason: "abort" } });
  passMs(HOLD_MS - 1);
  const taken = hold.take("a")!;
  assert.deepEqual([taken.tokenIds, taken.finish], [[1], undefined], "an abort is no finish");
  passMs(2);
  assert.equal(hold.take("a"), null, "to take it does not prolong the hold");
  assert.equal(hold.hasAny, false);
});

Deno.test("HeldRequests: a request that is taken while it runs is held from then on, once", () => {
  const { hold, begin, passMs } = holdOf();
  begin("a");
  hold.add(token("a", 0, 1));
  assert.deepEqual(hold.take("a")!.tokenIds, [1]);
  hold.add(token("a", 1, 2)); // of a step that was under way: its API server does not get it
  passMs(HOLD_MS - 1);
  assert.deepEqual(hold.take("a")!.tokenIds, [1]);
  passMs(2);
  assert.equal(hold.take("a"), null);
});

Deno.test("HeldRequests: an older copy that ends here ends no newer one", () => {
  const { hold, begin, passMs } = holdOf();
  begin("a");
  hold.add(token("a", 0, 1));
  begin("a", [1], RESUME_EPOCH);
  hold.add({ requestId: "a", index: 1, tokenIds: [], finish: { reason: "abort" } });
  hold.add(token("a", 1, 2, RESUME_EPOCH));
  passMs(2 * HOLD_MS);
  assert.deepEqual(hold.take("a")!.tokenIds, [1, 2]);
});

Deno.test("HeldRequests: of too many requests or tokens, those that ended first are forgotten", () => {
  const { hold, begin } = holdOf({ maxRequests: 2, maxTokens: 10 });
  const end = (requestId: string, numTokens: number) => {
    begin(requestId);
    const tokenIds = new Array(numTokens).fill(1);
    hold.add({ requestId, index: 0, tokenIds, finish: { reason: "length" } });
  };
  const isHeld = (requestId: string) => hold.take(requestId) !== null;
  begin("running");
  for (const id of ["a", "b", "c"]) end(id, 1);
  assert.deepEqual(["a", "b", "c"].map(isHeld), [false, true, true]);
  end("d", 9);
  assert.deepEqual(["b", "c", "d"].map(isHeld), [false, true, true]);
  end("e", 11);
  assert.deepEqual(["c", "d", "e"].map(isHeld), [false, false, false]);
  end("f", 10);
  assert.ok(isHeld("f"), "the tokens of forgotten requests do not count");
  assert.ok(isHeld("running"));
});

Deno.test("HeldRequests: nothing is left of requests that moved away, nor after the end", () => {
  const { hold, begin, clock } = holdOf();
  begin("a");
  hold.forget("a");
  assert.equal(hold.take("a"), null);
  begin("b");
  hold.add({ ...token("b", 0, 1), finish: stop });
  hold.close();
  assert.equal(clock.step(), false, "no timer is left");
});
