import assert from "node:assert/strict";
import { formatNumber, formatSpread, spreadOf } from "../../src/bench/spread.ts";

Deno.test("a spread is mean, range and sample standard deviation", () => {
  assert.deepEqual(spreadOf([2, 4, 6]), { mean: 4, min: 2, max: 6, deviation: 2, count: 3 });
  assert.equal(spreadOf([5]).deviation, 0);
});

Deno.test("numbers have three significant digits and no exponent", () => {
  const shown = [0, 0.012345, 0.1234, 1.2345, 12.345, 123.45, 12345.6].map(formatNumber);
  assert.deepEqual(shown, ["0", "0.012", "0.123", "1.23", "12.3", "123", "12346"]);
});

Deno.test("one value is shown without a deviation", () => {
  assert.equal(formatSpread(spreadOf([1.5])), "1.50");
  assert.equal(formatSpread(spreadOf([1, 2])), "1.50 ± 0.707");
});
