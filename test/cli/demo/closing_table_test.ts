import assert from "node:assert/strict";
import type { RequestRecord } from "../../../src/bench/open_loop.ts";
import type { ActResult } from "../../../src/cli/demo/act.ts";
import { closingTable, sameAnswers, speedWarning } from "../../../src/cli/demo/closing_table.ts";

function record(firstMs: number, text = "once", failure: string | null = null): RequestRecord {
  return {
    ...{ plannedMs: 0, dueMs: 0, sentMs: 0, firstMs, lastMs: firstMs + 90, gapsMs: [] },
    ...{ endMs: firstMs + 90, outputTokens: 10, promptTokens: 5, text, failure },
  };
}

function act(records: readonly RequestRecord[], migrations: number): ActResult {
  return {
    records,
    summary: {
      ...{ ttftMs: null, tpotMs: null, outputTokensPerSecond: 0, preemptions: 4, resumed: 2 },
      ...{ migrations, worstDowntimeMs: migrations === 0 ? null : 8.25 },
    },
  };
}

Deno.test("the table has one row for each promise", () => {
  const before = act([record(100), record(3_000), record(20_000)], 0);
  const after = act([record(100), record(200), record(NaN, "", "HTTP 503")], 7);
  const rows = closingTable(before, after).split("\n").map((line) => line.split(/  +/));
  assert.deepEqual(rows, [
    ["", "without migration", "with migration"],
    rows[1],
    ["requests", "3", "3"],
    ["lost", "0", "1"],
    ["resumed after the kill", "2", "2"],
    ["moved to another instance", "0", "7"],
    ["worst downtime of a move", "-", "8.3 ms"],
    ["preempted", "4", "4"],
    ["median time to first token", "3.00 s", "150 ms"],
    ["P99 time to first token", "19.7 s", "199 ms"],
    ["P99 time per token", "10 ms", "10 ms"],
  ]);
});

Deno.test("acts on a machine of two speeds are not compared in silence", () => {
  assert.equal(speedWarning(5_000, 4_100), null);
  assert.match(speedWarning(5_000, 1_900)!, /made 5000 tokens a second .* 1900 before the second/);
  assert.notEqual(speedWarning(1_900, 5_000), null);
});

Deno.test("answers that differ are counted", () => {
  const before = act([record(1), record(1, "upon")], 0);
  assert.match(sameAnswers(before, before), /^All 2 answers are the same/);
  const after = act([record(1), record(1, "a time")], 0);
  assert.equal(sameAnswers(before, after), "1 of 2 answers are the same.");
});
