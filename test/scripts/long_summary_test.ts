import assert from "node:assert/strict";
import { type SetOutcome, summaryWith } from "../../scripts/long_summary.ts";

const outcome = (name: string, said: string, isWell = true): SetOutcome => ({
  ...{ name, said, isWell },
  tookS: 7,
  on: "day, commit",
});
const rowsOf = (text: string) => text.split("\n").filter((line) => / (passed|FAILED) /.test(line));

Deno.test("long summary: a run replaces the rows of its sets, and keeps the others", () => {
  const names = ["first", "second", "third"];
  const whole = summaryWith("", names, names.map((name) => outcome(name, "well")));
  assert.equal(rowsOf(whole).length, 3);
  const padded = whole.replace("| second | passed |", "| second   | passed  |"); // as `deno fmt` writes it
  const again = summaryWith(padded, names, [outcome("third", "a | b", false)]);
  assert.deepEqual(rowsOf(again).map((row) => row.split("|")[1].trim()), names);
  assert.equal(rowsOf(again)[2], "| third | FAILED | 7 | a / b | day, commit |");
  assert.match(rowsOf(again)[1], /^\| second +\| passed /);
  assert.equal(
    rowsOf(summaryWith(again, ["second"], [])).length,
    1,
    "a set that is gone has no row",
  );
});
