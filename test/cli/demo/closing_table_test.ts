import assert from "node:assert/strict";
import type { RequestRecord } from "../../../src/bench/open_loop.ts";
import type { ActResult } from "../../../src/cli/demo/act.ts";
import { closingTable, gainSentence, sameAnswers } from "../../../src/cli/demo/closing_table.ts";

function record(firstMs: number, text = "once", failure: string | null = null): RequestRecord {
  return {
    ...{ plannedMs: 0, dueMs: 0, sentMs: 0, firstMs, lastMs: firstMs + 90, gapsMs: [] },
    ...{ endMs: firstMs + 90, outputTokens: 10, promptTokens: 5, text, failure },
  };
}

function act(records: readonly RequestRecord[], migrations: number): ActResult {
  const worstDowntimeMs = migrations === 0 ? null : 8.25;
  return { records, migrations, preemptions: 4, resumed: 2, worstDowntimeMs };
}

Deno.test("the table has one row for each promise, of all rounds together", () => {
  const without = act([record(100), record(3_000), record(20_000)], 0);
  const migrating = act([record(100), record(200), record(NaN, "", "HTTP 503")], 7);
  const shown = closingTable([{ without, migrating }]);
  const rows = shown.split("\n").map((line) => line.split(/  +/));
  assert.deepEqual(rows, [
    ["", "without migration", "with migration"],
    rows[1],
    ["requests", "3", "3"],
    ["lost", "0", "1"],
    ["resumed after a kill", "2", "2"],
    ["moved to another instance", "0", "7"],
    ["worst downtime of a move", "-", "8.3 ms"],
    ["preempted", "4", "4"],
    ["median time to first token", "3.00 s", "150 ms"],
    ["P99 time to first token", "19.7 s", "199 ms"],
    ["P99 time per token", "10 ms", "10 ms"],
  ]);
  const twice = closingTable([{ without, migrating }, { without: migrating, migrating }]);
  assert.match(twice, /^requests +6 +6$/m);
  assert.match(twice, /^lost +1 +2$/m);
  assert.match(twice, /^moved to another instance +7 +14$/m);
  assert.match(twice, /^worst downtime of a move +8\.3 ms +8\.3 ms$/m);
});

Deno.test("the gain is that of all rounds together, and each is told", () => {
  const act1 = (ms: number) => act([record(ms)], 0);
  const round = (without: number, migrating: number) => ({
    without: act1(without),
    migrating: act1(migrating),
  });
  const gain = (...rounds: ReturnType<typeof round>[]) => gainSentence(rounds);
  assert.match(gain(round(300, 100)), /first token is 3\.0 times shorter \(one round: another may/);
  assert.match(
    gain(round(100, 98)),
    /first token is about the same .* per token about the same\.$/,
  );
  assert.match(gain(round(100, 200)), /first token is 2\.0 times longer /);
  assert.match(
    gain(round(300, 100), round(100, 100)),
    /first token is 3\.0 times shorter \(by round: 3\.0, 1\.0\), /,
  );
});

Deno.test("answers that differ are counted", () => {
  const without = act([record(1), record(1, "upon")], 0);
  assert.match(sameAnswers([{ without, migrating: without }]), /^All 2 answers are the same/);
  const migrating = act([record(1), record(1, "a time")], 0);
  const rounds = [{ without, migrating }, { without, migrating: without }];
  assert.equal(sameAnswers(rounds), "3 of 4 answers are the same.");
});
