/** Spans of requests, from their records to a collector. */
import assert from "node:assert/strict";
import type { ClusterMonitor } from "../../../src/core/cluster.ts";
import { UnavailableError } from "../../../src/core/errors.ts";
import type { EventsQuery, NumberedEvent } from "../../../src/core/protocol/monitoring.ts";
import type { RequestRecord } from "../../../src/metrics/request_record.ts";
import { RequestTracer } from "../../../src/metrics/tracing/request_tracer.ts";
import { SpanExporter } from "../../../src/metrics/tracing/span_exporter.ts";
import type { PlannedSpan } from "../../../src/metrics/tracing/spans.ts";
import type { RemoteSpan } from "../../../src/metrics/tracing/traceparent.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { OtlpSink } from "./sink.ts";

const traceId = "0af7651916cd43dd8448eb211c80319c", parentId = "b7ad6b7169203331";

function recordOf(requestId: string, more: Partial<RequestRecord> = {}): RequestRecord {
  return {
    requestId,
    priority: "normal",
    origin: { traceparent: `00-${traceId}-${parentId}-01`, operation: "chat" },
    sampling: { maxTokens: 9, temperature: 0.5 },
    arrivalMs: 1_000,
    firstTokenMs: 1_100,
    endMs: 1_500,
    prefillMs: 60,
    promptTokens: 12,
    outputTokens: 5,
    outcome: "length",
    errorKind: null,
    ...more,
  };
}

function migrationOf(requestId: string, sequence: number): NumberedEvent {
  return {
    type: "migration_ended",
    sequence,
    atMs: 1_300,
    migrationId: "m-1",
    sourceId: "a",
    destinationId: "b",
    backend: "gloo",
    requestId,
    outcome: "committed",
    phase: "commit",
    reason: "",
    lengthTokens: 20,
    stages: 2,
    blocks: 2,
    bytes: 4096,
    transferMs: 5,
    downtimeMs: 3,
    totalMs: 50,
  };
}

/** A monitor that has these events. */
function monitorOf(events: NumberedEvent[]): ClusterMonitor & { queries: EventsQuery[] } {
  const queries: EventsQuery[] = [];
  return {
    queries,
    events: (query) => {
      queries.push(query);
      const first = query.after === null ? 0 : query.after;
      const later = events.filter(({ sequence }) => sequence > first);
      return Promise.resolve({
        managerStartedMs: 7,
        events: later,
        next: events.at(-1)?.sequence ?? 0,
        numDropped: 0,
        hasMore: false,
      });
    },
    state: () => Promise.reject(new UnavailableError("no")),
  };
}

type Written = [RemoteSpan | null, PlannedSpan, PlannedSpan[]];

function tracerOf(monitor: ClusterMonitor) {
  const clock = new VirtualClock(5_000);
  const written: Written[] = [];
  const exporter = {
    write: (...span: Written) => written.push(span),
    close: () => Promise.resolve(),
  };
  const tracer = new RequestTracer({ exporter, monitor, clock, model: "m" });
  return { tracer, clock, written };
}

Deno.test("tracer: a request waits for its migrations, which the manager tells later", async () => {
  const events: NumberedEvent[] = [];
  const monitor = monitorOf(events);
  const { tracer, clock, written } = tracerOf(monitor);
  const { queries } = monitor;
  await clock.runUntil(() => queries.length > 0);
  tracer.take(recordOf("r"));
  events.push(migrationOf("r", 1), migrationOf("of another API server", 2));
  await clock.runUntil(() => written.length > 0);
  const [[parent, span, parts]] = written;
  assert.deepEqual(parent, { traceId, spanId: parentId, isSampled: true });
  assert.equal(span.name, "chat m");
  assert.deepEqual(
    parts.map(({ name, startMs, endMs }) => [name, startMs, endMs]),
    [["queue", 1000, 1040], ["prefill", 1040, 1100], ["decode", 1100, 1500], [
      "migration",
      1250,
      1300,
    ]],
  );
  assert.equal(parts[3].attributes["llumnix.migration.downtime"], 0.003);
  await closed(tracer, clock);
});

Deno.test("tracer: a refused request has waited, and has an error", async () => {
  const { tracer, clock, written } = tracerOf(monitorOf([]));
  const origin = { traceparent: null, operation: "text_completion" } as const;
  const refused = { firstTokenMs: null, outcome: "error", errorKind: "overloaded" } as const;
  tracer.take(recordOf("r", { origin, ...refused }));
  await closed(tracer, clock);
  const [[parent, span, parts]] = written;
  assert.equal(parent, null);
  assert.equal(span.error, "overloaded");
  assert.equal(span.attributes["error.type"], "overloaded");
  assert.deepEqual(parts.map(({ name }) => name), ["queue"]);
});

Deno.test("tracer: without a manager requests have spans all the same", async () => {
  const no = () => Promise.reject(new UnavailableError("the manager is gone"));
  const { tracer, clock, written } = tracerOf({ events: no, state: no });
  tracer.take(recordOf("r"));
  await clock.runUntil(() => written.length > 0);
  assert.equal(written.length, 1);
  await closed(tracer, clock);
});

Deno.test("tracer: what waits is bounded", () => {
  const { tracer, written } = tracerOf(monitorOf([]));
  for (let i = 0; i < 5_000; i++) tracer.take(recordOf(`r${i}`));
  assert.equal(written.length, 5_000 - 4_096);
});

async function closed(tracer: RequestTracer, clock: VirtualClock): Promise<void> {
  let isClosed = false;
  tracer.close().then(() => isClosed = true);
  await clock.runUntil(() => isClosed);
}

Deno.test("span exporter: a collector gets the request with its parts, and no prompt", async () => {
  await using sink = new OtlpSink();
  const failures: string[] = [];
  const exporter = await SpanExporter.start({
    endpoint: sink.endpoint,
    version: "1.2.3",
    onFailure: (reason) => failures.push(reason),
  });
  const monitor = monitorOf([]);
  const tracer = new RequestTracer({ exporter, monitor, clock: new VirtualClock(0), model: "m" });
  tracer.take(recordOf("sampled"));
  const unsampled = { traceparent: `00-${traceId}-${parentId}-00`, operation: "chat" } as const;
  tracer.take(recordOf("not sampled", { origin: unsampled }));
  await tracer.close();
  assert.deepEqual(failures, []);
  assert.deepEqual(sink.spans.map(({ name }) => name), ["chat m", "queue", "prefill", "decode"]);
  const [root, ...parts] = sink.spans;
  assert.deepEqual([root.traceId, root.parentSpanId, root.kind], [traceId, parentId, 2]);
  assert.deepEqual([root.startMs, root.endMs], [1_000, 1_500]);
  for (const part of parts) assert.equal(part.parentSpanId, root.spanId);
  assert.equal(root.attributes["gen_ai.usage.input_tokens"], 12);
  assert.equal(root.attributes["gen_ai.response.id"], "sampled");
  assert.match(sink.text, /"service.name"/);
});

Deno.test("span exporter: a collector that refuses costs one warning, and nothing else", async () => {
  await using sink = new OtlpSink();
  sink.status = 400;
  const failures: string[] = [];
  const { endpoint } = sink;
  const onFailure = (reason: string) => failures.push(reason);
  const exporter = await SpanExporter.start({ endpoint, version: "1", onFailure });
  const span: PlannedSpan = { name: "x", startMs: 1, endMs: 2, attributes: {} };
  for (let i = 0; i < 2_000; i++) exporter.write(null, span, []); // several batches
  await exporter.close();
  assert.ok(sink.numRequests >= 2, `${sink.numRequests}`);
  assert.equal(failures.length, 1, failures.join("; "));
});
