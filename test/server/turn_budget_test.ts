import assert from "node:assert/strict";
import { setImmediate } from "node:timers";
import { Random } from "../../src/core/random.ts";
import { TurnBudget } from "../../src/server/turn_budget.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

Deno.test("work fits in its turn, in the order asked for, and a large piece has a turn of its own", async () => {
  const random = new Random(5);
  const budget = new TurnBudget(100);
  const order: number[] = [];
  const asked: number[] = [];
  let inTurn: number[] = [];
  for (let i = 0; i < 500; i++) {
    const size = random.below(20) === 0 ? 150 : random.below(60);
    asked.push(i);
    budget.take(size).then(() => {
      order.push(i);
      inTurn.push(size);
    });
  }
  for (let first = true; order.length < asked.length; first = false) {
    await (first ? Promise.resolve() : turn());
    const sum = inTurn.reduce((total, size) => total + size, 0);
    assert.ok(inTurn.length === 1 || sum <= 100, `${inTurn}`);
    assert.ok(inTurn.length > 0);
    inTurn = [];
  }
  assert.deepEqual(order, asked);
});

Deno.test("what is not used of a turn does not add up", async () => {
  const budget = new TurnBudget(10);
  await budget.take(6);
  let second = false;
  const waiting = budget.take(6).then(() => second = true);
  await Promise.resolve();
  assert.equal(second, false);
  await waiting;
  for (let i = 0; i < 5; i++) await turn();
  await budget.take(10);
  let third = false;
  const last = budget.take(1).then(() => third = true);
  await Promise.resolve();
  assert.equal(third, false);
  await last;
});
