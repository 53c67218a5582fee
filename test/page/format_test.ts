import assert from "node:assert/strict";
import { bytes, duration, loadText, rate, shortId, withoutZeros } from "../../src/page/format.js";
import { niceTop, spanOf } from "../../src/page/plots.js";

Deno.test("numbers have few digits, and their unit stays on their line", () => {
  const shown = [0.04, 9.94, 10, 999.4, 1_234, 12_345, 61_000].map(duration);
  const expected = ["< 0.1 ms", "9.9 ms", "10 ms", "999 ms", "1.23 s", "12.3 s", "1:01 min"];
  assert.deepEqual(shown, expected.map((text) => text.replace(/ (?=\w+$)/, "\u00a0")));
  assert.deepEqual([0, 999, 1_000, 2_400_000].map(bytes), [
    "0\u00a0B",
    "999\u00a0B",
    "1.0\u00a0kB",
    "2.4\u00a0MB",
  ]);
  assert.deepEqual([0, 3.21, 1_234, 12_345].map(rate), ["0", "3.2", "1,234", "12.3k"]);
});

Deno.test("the numbers of an axis have no zeros at their end", () => {
  const shown = ["10.0 s", "2.50 s", "0.5 ms", "100 ms", "6,000", "1.0k", "1:00 min"];
  assert.deepEqual(shown.map(withoutZeros), [
    ...["10 s", "2.5 s", "0.5 ms", "100 ms", "6,000", "1k", "1:00 min"],
  ]);
});

Deno.test("a load is a number, or says what it means", () => {
  assert.deepEqual([null, "inf", "-inf", -24.31, 3.456].map((load) => loadText(load as number)), [
    "load –",
    "load ∞",
    "idle",
    "load −24.3",
    "load 3.46",
  ]);
});

Deno.test("long ids keep their ends", () => {
  assert.equal(shortId("short"), "short");
  assert.equal(shortId("cmpl-0123456789abcdef-0123456789ab"), "cmpl-0123…0123456789ab");
});

Deno.test("a plot ends at a round number", () => {
  assert.deepEqual([0, 0.7, 1, 1.1, 39, 41, 99, 101].map(niceTop), [
    1,
    0.8,
    1,
    2,
    40,
    60,
    100,
    200,
  ]);
});

Deno.test("plots show the shortest time that has everything", () => {
  assert.deepEqual([0, 60, 61, 121, 299, 9_999].map((seconds) => spanOf(seconds).seconds), [
    ...[60, 60, 120, 300, 300, 300],
  ]);
});
