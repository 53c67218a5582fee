/** Sends spans to an OTLP collector over HTTP, by OpenTelemetry's SDK. */
import type { Context, HrTime } from "@opentelemetry/api";
import type { RemoteSpan } from "./traceparent.ts";
import type { PlannedSpan } from "./spans.ts";

/** Spans that wait to be sent; of more, the newest are dropped. */
const MAX_QUEUED_SPANS = 8_192;
const EXPORT_TIMEOUT_MS = 5_000;

export interface SpanExporterConfig {
  /** Where spans go: `http://localhost:4318/v1/traces`. */
  readonly endpoint: string;
  readonly version: string;
  /** Spans could not be sent. Called once for the first failure after a success. */
  readonly onFailure: (reason: string) => void;
}

/**
 * OpenTelemetry's SDK behind a small interface. It is loaded when tracing is on. It sees what
 * {@linkcode PlannedSpan} has, and nothing else: it instruments nothing, and reads no console.
 */
export class SpanExporter {
  readonly #write: (parent: RemoteSpan | null, root: PlannedSpan, parts: PlannedSpan[]) => void;
  readonly #shutdown: () => Promise<void>;

  private constructor(write: SpanExporter["write"], shutdown: () => Promise<void>) {
    this.#write = write;
    this.#shutdown = shutdown;
  }

  static async start({ endpoint, version, onFailure }: SpanExporterConfig): Promise<SpanExporter> {
    const [api, sdk, { OTLPTraceExporter }, { resourceFromAttributes }] = await Promise.all([
      import("@opentelemetry/api"),
      import("@opentelemetry/sdk-trace"),
      import("@opentelemetry/exporter-trace-otlp-http"),
      import("@opentelemetry/resources"),
    ]);
    const exporter = new OTLPTraceExporter({ url: endpoint, timeoutMillis: EXPORT_TIMEOUT_MS });
    let hasFailed = false;
    const { export: send } = exporter;
    exporter.export = (spans, done) =>
      send.call(exporter, spans, (result) => {
        const isFailure = result.error !== undefined || result.code !== 0;
        if (isFailure && !hasFailed) {
          onFailure(result.error?.message ?? "the collector refused them");
        }
        hasFailed = isFailure;
        done(result);
      });
    const provider = new sdk.TracerProvider({
      resource: resourceFromAttributes({ "service.name": "llumnix", "service.version": version }),
      spanProcessors: [
        new sdk.BatchSpanProcessor({
          exporter,
          maxQueueSize: MAX_QUEUED_SPANS,
          exportTimeoutMillis: EXPORT_TIMEOUT_MS,
          scheduledDelayMillis: 1_000,
        }),
      ],
    });
    const tracer = provider.getTracer("llumnix", version);
    const { SERVER, INTERNAL } = api.SpanKind;
    const begin = (planned: PlannedSpan, kind: number, within: Context) => {
      const { name, startMs, attributes, error } = planned;
      const defined = Object.entries(attributes).filter(([, value]) => value !== undefined);
      const span = tracer.startSpan(name, {
        kind,
        startTime: hrTime(startMs),
        attributes: Object.fromEntries(defined) as Record<string, string>,
      }, within);
      if (error !== undefined) span.setStatus({ code: api.SpanStatusCode.ERROR, message: error });
      span.end(hrTime(planned.endMs));
      return span;
    };
    const write: SpanExporter["write"] = (parent, root, parts) => {
      const outer = parent === null ? api.ROOT_CONTEXT : contextOf(api, parent);
      const span = begin(root, SERVER, outer);
      const within = api.trace.setSpan(outer, span);
      for (const part of parts) begin(part, INTERNAL, within);
    };
    return new SpanExporter(write, () => provider.shutdown());
  }

  /**
   * Queues a span and its parts. Without effect if the parent is not sampled.
   * @param parent null: the span begins a trace
   */
  write(parent: RemoteSpan | null, root: PlannedSpan, parts: PlannedSpan[]): void {
    this.#write(parent, root, parts);
  }

  /** Sends what is queued. Never rejects. */
  async close(): Promise<void> {
    await this.#shutdown().catch(() => {}); // `onFailure` was told
  }
}

/** A plain number could be taken for a time since this process began. */
function hrTime(epochMs: number): HrTime {
  const seconds = Math.floor(epochMs / 1000);
  return [seconds, Math.round((epochMs - seconds * 1000) * 1e6)];
}

function contextOf(
  api: typeof import("@opentelemetry/api"),
  { traceId, spanId, isSampled }: RemoteSpan,
): Context {
  const traceFlags = isSampled ? api.TraceFlags.SAMPLED : api.TraceFlags.NONE;
  return api.trace.setSpanContext(api.ROOT_CONTEXT, {
    traceId,
    spanId,
    traceFlags,
    isRemote: true,
  });
}
