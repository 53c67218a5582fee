import assert from "node:assert/strict";
import { StatisticsLog } from "../../src/roles/statistics_log.ts";
import type { InstanceInfo } from "../../src/core/protocol/instance_info.ts";
import type { MigrationReport } from "../../src/core/protocol/migration.ts";
import { StatisticsCounter } from "../../src/manager/manager_statistics.ts";
import { VirtualClock } from "../../src/sim/clock/virtual_clock.ts";
import { idleInfo } from "../manager/support.ts";

function setUp() {
  const clock = new VirtualClock();
  const lines: string[] = [];
  const write = (level: string) => (message: string) => void lines.push(`${level}: ${message}`);
  const log = { debug: write("D"), info: write("I"), warn: write("W"), error: write("E") };
  let infos: InstanceInfo[] = [];
  const counter = new StatisticsCounter();
  const statistics = new StatisticsLog({
    clock,
    log,
    infos: () => infos,
    statistics: () => counter.snapshot(),
  });
  const tick = (...now: InstanceInfo[]) => {
    infos = now;
    lines.length = 0;
    assert.ok(clock.step());
    return [...lines];
  };
  return { tick, statistics, counter, clock };
}

Deno.test("statistics: sums of all instances over the interval, nothing while idle", () => {
  const { tick, statistics, clock } = setUp();
  assert.deepEqual(tick(), []);
  assert.deepEqual(tick(idleInfo("a")), []);
  const busy = { runningRequests: 2, waitingRequests: 1, usedBlocks: 30, totalBlocks: 100 };
  const totals = { promptTokens: 500, outputTokens: 100, preemptions: 0 };
  assert.deepEqual(tick(idleInfo("a", { ...busy, totals }), idleInfo("b", { ...busy, totals })), [
    "I: prompt 100.0 tokens/s, generation 20.0 tokens/s, running 4, preempted 0, waiting 2, " +
    "KV cache 30.0% in use",
  ]);
  const [line] = tick(idleInfo("a", { totals: { ...totals, outputTokens: 110 } }));
  assert.match(line, /prompt 0.0 tokens\/s, generation 1.0 tokens\/s, running 0/);
  assert.deepEqual(tick(idleInfo("a", { totals: { ...totals, outputTokens: 110 } })), []);
  statistics.close();
  assert.equal(clock.step(), false);
});

Deno.test("statistics: preemptions are a warning that says what to do", () => {
  const { tick } = setUp();
  const totals = { promptTokens: 1, outputTokens: 1, preemptions: 7 };
  const [, warning] = tick(idleInfo("a", { totals }));
  assert.match(warning, /^W: 7 preemptions in 10 s: .*--num-gpu-blocks-override/);
  const [, another] = tick(
    idleInfo("a", { totals: { ...totals, outputTokens: 2, preemptions: 8 } }),
  );
  assert.match(another, /^W: 1 preemption in 10 s: /);
});

Deno.test("statistics: migrations since the last line", () => {
  const { tick, counter } = setUp();
  const report: MigrationReport = {
    migrationId: "m",
    sourceId: "a",
    destinationId: "b",
    requestId: "r",
    outcome: "committed",
    phase: "commit",
    reason: "",
    lengthTokens: 100,
    stages: 2,
    blocks: 7,
    transfer: { bytes: 1 << 20, descriptors: 7, rounds: 1, transferMs: 1 },
    downtimeMs: 3,
    totalMs: 20,
  };
  counter.noteMigration(report);
  counter.noteMigration({ ...report, downtimeMs: 5 });
  counter.noteMigration({ ...report, outcome: "aborted_source" });
  counter.noteMigration({ ...report, outcome: "nothing" });
  counter.noteUnanswered();
  assert.deepEqual(tick(), ["I: migrations 2, given up 2, moved 2.0 MiB, mean downtime 4.0 ms"]);
  assert.deepEqual(tick(), []);
});
