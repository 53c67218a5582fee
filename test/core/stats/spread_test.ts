import assert from "node:assert/strict";
import { formatNumber, formatSpread, spreadOf } from "../../../src/core/stats/spread.ts";

Deno.test("a spread is mean, range and sample standard deviation", () => {
  assert.deepEqual(spreadOf([2, 4, 6]), { mean: 4, min: 2, max: 6, deviation: 2, count: 3 });
  assert.equal(spreadOf([5]).deviation, 0);
});

Deno.test("numbers have three significant digits and no exponent", () => {
  const values = [0, 5e-15, 0.00123, 0.012345, 0.05, 0.1, 0.1234, 1.2345, 12.345, 123.45, 12345.6];
  assert.deepEqual(
    values.map(formatNumber),
    ["0", "0", "0.00123", "0.0123", "0.0500", "0.100", "0.123", "1.23", "12.3", "123", "12346"],
  );
});

Deno.test("one value is shown without a deviation", () => {
  assert.equal(formatSpread(spreadOf([1.5])), "1.50");
  assert.equal(formatSpread(spreadOf([1, 2])), "1.50 ± 0.71");
});

Deno.test("a deviation has no digit that its mean does not have", () => {
  const shown = (mean: number, deviation: number) =>
    formatSpread({ mean, deviation, min: 0, max: 0, count: 3 });
  assert.equal(shown(31.3, 5e-15), "31.3 ± 0");
  assert.equal(shown(0.05, 0.0005), "0.0500 ± 0.0005");
  assert.equal(shown(0.049, 0.00013), "0.0490 ± 0.0001");
  assert.equal(shown(123, 0.6), "123 ± 1");
  assert.equal(shown(5, 50), "5.00 ± 50.0");
  assert.equal(shown(0, 0), "0 ± 0");
});
