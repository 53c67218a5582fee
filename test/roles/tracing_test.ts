import assert from "node:assert/strict";
import { realClock } from "../../src/core/clock.ts";
import type { ClusterMonitor } from "../../src/core/cluster.ts";
import { UnavailableError } from "../../src/core/errors.ts";
import { RequestMeter } from "../../src/metrics/request_meter.ts";
import { startTracing } from "../../src/roles/tracing.ts";
import { OtlpSink } from "../metrics/tracing/sink.ts";

const no = () => Promise.reject(new UnavailableError("no manager"));
const monitor: ClusterMonitor = { events: no, state: no };

Deno.test("tracing is off without an endpoint", async () => {
  assert.equal(await startTracing(null, new RequestMeter(realClock), monitor, "m"), null);
});

Deno.test("tracing: an endpoint that is no HTTP URL is refused by its option", async () => {
  for (const endpoint of ["localhost:4317", "grpc://localhost:4317", "", "http://"]) {
    await assert.rejects(
      startTracing(endpoint, new RequestMeter(realClock), monitor, "m"),
      /^UsageError: --otlp-traces-endpoint .*: expected the URL of an OTLP\/HTTP collector, such as/,
    );
  }
});

Deno.test("tracing: what a meter has measured reaches the collector when the service ends", async () => {
  await using sink = new OtlpSink();
  const meter = new RequestMeter(realClock);
  const tracer = await startTracing(sink.endpoint, meter, monitor, "m");
  const origin = { traceparent: "broken", operation: "chat" } as const;
  const measurement = meter.begin({ requestId: "r", sampling: {} }, origin);
  measurement.output(1, 1);
  measurement.end("stop");
  await tracer!.close();
  assert.deepEqual(sink.spans.map(({ name }) => name), ["chat m", "queue", "prefill", "decode"]);
  assert.equal(sink.spans[0].parentSpanId, undefined, "a trace of its own");
});
