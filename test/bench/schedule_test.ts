import assert from "node:assert/strict";
import { arrivalTimes, type Schedule } from "../../src/bench/schedule.ts";
import { Random } from "../../src/core/random.ts";

const times = (schedule: Schedule, count: number, recorded: number[] | null = null) =>
  arrivalTimes(schedule, count, new Random(1), recorded);

Deno.test("a burst sends all at once", () => {
  assert.deepEqual(times({ kind: "burst" }, 3), [0, 0, 0]);
});

Deno.test("at a constant rate the last request comes when the rate says, as in vLLM", () => {
  for (const burstiness of [0.3, 1, 5]) {
    const all = times({ kind: "rate", rate: 4, burstiness }, 100);
    assert.ok(Math.abs(all.at(-1)! - 25_000) < 1e-6, `${all.at(-1)}`);
    assert.deepEqual(all, [...all].sort((a, b) => a - b));
  }
  const equal = times({ kind: "rate", rate: 4, burstiness: Infinity }, 3);
  assert.deepEqual(equal, [250, 500, 750]);
});

Deno.test("less burstiness means burstier gaps", () => {
  const spread = (burstiness: number) => {
    const all = times({ kind: "rate", rate: 10, burstiness }, 4000);
    const gaps = all.map((ms, i) => ms - (all[i - 1] ?? 0));
    const squares = gaps.reduce((sum, gap) => sum + (gap - 100) ** 2, 0);
    return Math.sqrt(squares / gaps.length) / 100;
  };
  assert.ok(Math.abs(spread(0.25) - 2) < 0.2, `${spread(0.25)}`);
  assert.ok(Math.abs(spread(1) - 1) < 0.1, `${spread(1)}`);
});

Deno.test("a ramp goes from one rate to the other", () => {
  const common = { kind: "ramp", startRate: 1, endRate: 4, burstiness: Infinity } as const;
  const linear = times({ ...common, strategy: "linear" }, 4);
  assert.deepEqual(linear.map(Math.round), [1000, 1500, 1833, 2083]);
  const exponential = times({ ...common, strategy: "exponential" }, 3);
  assert.deepEqual(exponential, [1000, 1500, 1750]);
});

Deno.test("the times of a trace, faster", () => {
  assert.deepEqual(times({ kind: "trace", speedup: 2 }, 2, [0, 50, 70]), [0, 25]);
  assert.throws(() => times({ kind: "trace", speedup: 1 }, 2), /the dataset has no times/);
});
