import assert from "node:assert/strict";
import { LatencyHistory } from "../../../src/server/feed/latency_history.ts";

Deno.test("a point has the latencies of ten seconds, and the sums of two", () => {
  const history = new LatencyHistory();
  for (let i = 0; i <= 100; i++) history.noteFirstToken(i, 3);
  history.noteTokens(50);
  history.noteMigration(7);
  const point = history.close(2_000);
  assert.deepEqual(point, {
    atMs: 2_000,
    ttftMs: [50, 99],
    tpotMs: null,
    outputTokensPerSecond: 25,
    promptTokensPerSecond: 152,
    migrations: 1,
    preemptions: 0,
  });
  for (let i = 2; i <= 5; i++) assert.deepEqual(history.close(2_000 * i).ttftMs, [50, 99]);
  assert.equal(history.close(12_000).ttftMs, null);
  assert.deepEqual(history.summary().ttftMs, [50, 99], "within the last minute");
  assert.equal(history.summary().worstDowntimeMs, 7);
});

Deno.test("five minutes are kept, of any number of requests", () => {
  const history = new LatencyHistory();
  history.noteResumed();
  for (let second = 2; second <= 400; second += 2) {
    for (let i = 0; i < 1_000; i++) history.noteEnd(10 + (i % 3));
    history.close(second * 1_000);
  }
  assert.equal(history.points.length, 150);
  assert.equal(history.points[0].atMs, 102_000);
  assert.equal(history.summary().resumed, 0, "it was longer ago");
  const [p50, p99] = history.summary().tpotMs!;
  assert.ok(p50 >= 10 && p50 <= 12 && p99 === 12, `${p50} ${p99}`);
});
