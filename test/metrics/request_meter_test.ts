import assert from "node:assert/strict";
import { OverloadedError } from "../../src/core/errors.ts";
import type { BucketCounts } from "../../src/core/stats/bucket_counts.ts";
import { RequestMeter } from "../../src/metrics/request_meter.ts";
import {
  queueMs,
  type RequestOrigin,
  type RequestRecord,
  tpotMs,
  ttftMs,
} from "../../src/metrics/request_record.ts";

/** A meter whose time the test sets. */
function meterAt(): { meter: RequestMeter; time: { ms: number }; records: RequestRecord[] } {
  const time = { ms: 1000 };
  const clock = { nowMs: () => time.ms, after: () => () => {}, soon: () => {} };
  const meter = new RequestMeter(clock);
  const records: RequestRecord[] = [];
  meter.onEnd((record) => records.push(record));
  return { meter, time, records };
}

const origin: RequestOrigin = { traceparent: "00-aa-bb-01", operation: "chat" };
const countOf = ({ counts }: BucketCounts) => counts.reduce((sum, count) => sum + count, 0);

Deno.test("request meter: a request from its arrival to its end", () => {
  const { meter, time, records } = meterAt();
  const sampling = { maxTokens: 3, temperature: 0 };
  const measurement = meter.begin({ requestId: "r", priority: "high", sampling }, origin);
  measurement.promptTokens = 10;
  assert.equal(meter.numRunning, 1);
  time.ms += 100;
  measurement.output(1, 40);
  time.ms += 20;
  measurement.output(2);
  measurement.output(0); // an owner says that it is the owner
  measurement.end("length");
  measurement.end("abort");
  measurement.output(5);
  assert.equal(meter.numRunning, 0);
  assert.deepEqual(records, [{
    requestId: "r",
    priority: "high",
    origin,
    sampling: { maxTokens: 3, temperature: 0, topP: undefined },
    arrivalMs: 1000,
    firstTokenMs: 1100,
    endMs: 1120,
    prefillMs: 40,
    promptTokens: 10,
    outputTokens: 3,
    outcome: "length",
    errorKind: null,
  }]);
  const [record] = records;
  assert.deepEqual([ttftMs(record), tpotMs(record), queueMs(record)], [100, 10, 60]);
  assert.deepEqual([meter.promptTokens, meter.outputTokens], [10, 3]);
  assert.deepEqual([countOf(meter.betweenTokens), meter.betweenTokens.sum], [2, 0.02]);
  assert.deepEqual([countOf(meter.queue.high), countOf(meter.queue.normal)], [1, 0]);
  assert.deepEqual(meter.outcomes, { stop: 0, length: 1, abort: 0, error: 0 });
});

Deno.test("request meter: a refused request counts by its kind, and in no latency", () => {
  const { meter, records } = meterAt();
  meter.begin({ requestId: "r", sampling: {} }, origin).fail(new OverloadedError("full"));
  assert.deepEqual([records[0].outcome, records[0].errorKind], ["error", "overloaded"]);
  assert.deepEqual([...meter.errors], [["overloaded", 1]]);
  assert.deepEqual([ttftMs(records[0]), tpotMs(records[0]), queueMs(records[0])], [
    null,
    null,
    null,
  ]);
  assert.equal(countOf(meter.endToEnd) + countOf(meter.firstToken), 0);
});

Deno.test("request meter: a prefill that took longer than the request waits no negative time", () => {
  const { meter, time, records } = meterAt();
  const measurement = meter.begin({ requestId: "r", sampling: {} }, origin);
  time.ms += 5;
  measurement.output(1, 9); // another clock
  measurement.end("stop");
  assert.equal(queueMs(records[0]), 0);
});
