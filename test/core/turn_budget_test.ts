import assert from "node:assert/strict";
import { Random } from "../../src/core/random.ts";
import { TurnBudget } from "../../src/core/turn_budget.ts";

/** A budget whose turns end when the test says so. */
function manualBudget(perTurn: number) {
  const pending: (() => void)[] = [];
  const budget = new TurnBudget(perTurn, (begin) => pending.push(begin));
  const settled = async () => {
    for (let i = 0; i < 10; i++) await Promise.resolve();
  };
  return {
    budget,
    settled,
    hasNextTurn: () => pending.length > 0,
    async nextTurn() {
      assert.equal(pending.length, 1, "turns end one at a time");
      pending.shift()!();
      await settled();
    },
  };
}

Deno.test("work fits in its turn, in the order asked for, and a large piece has a turn of its own", async () => {
  const random = new Random(5);
  const { budget, settled, nextTurn } = manualBudget(100);
  const order: number[] = [];
  let inTurn: number[] = [];
  for (let i = 0; i < 500; i++) {
    const size = random.below(20) === 0 ? 150 : random.below(60);
    budget.take(size).then(() => {
      order.push(i);
      inTurn.push(size);
    });
  }
  await settled();
  for (;;) {
    const sum = inTurn.reduce((total, size) => total + size, 0);
    assert.ok(inTurn.length === 1 || sum <= 100, `${inTurn}`);
    assert.ok(inTurn.length > 0);
    if (order.length === 500) break;
    inTurn = [];
    await nextTurn();
  }
  assert.deepEqual(order, [...Array(500).keys()]);
});

Deno.test("what is not used of a turn does not add up, and nothing is pending when all is done", async () => {
  const { budget, hasNextTurn, nextTurn, settled } = manualBudget(10);
  for (let round = 0; round < 3; round++) {
    await budget.take(6);
    let isDone = false;
    budget.take(6).then(() => isDone = true);
    await settled();
    assert.equal(isDone, false);
    await nextTurn();
    assert.equal(isDone, true);
    await nextTurn();
    assert.equal(hasNextTurn(), false);
  }
});
