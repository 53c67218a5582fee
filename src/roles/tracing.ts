/** Traces of an API server's requests (`--otlp-traces-endpoint`). */
import { realClock } from "../core/clock.ts";
import type { ClusterMonitor } from "../core/cluster.ts";
import { UsageError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import { version } from "../core/version.ts";
import type { RequestMeter } from "../metrics/request_meter.ts";
import type { RequestTracer } from "../metrics/tracing/request_tracer.ts";

/**
 * Starts to trace the requests of a meter. Nothing of OpenTelemetry is loaded without an endpoint.
 * @param model the model's name for clients
 * @returns null: traces are off
 * @throws {UsageError} the endpoint is not an HTTP URL
 */
export async function startTracing(
  endpoint: string | null,
  meter: RequestMeter,
  monitor: ClusterMonitor,
  model: string,
): Promise<RequestTracer | null> {
  if (endpoint === null) return null;
  checkEndpoint(endpoint);
  const log = logger("traces");
  const { SpanExporter } = await import("../metrics/tracing/span_exporter.ts");
  const { RequestTracer } = await import("../metrics/tracing/request_tracer.ts");
  const exporter = await SpanExporter.start({
    endpoint,
    version,
    onFailure: (reason) => log.warn(`spans cannot be sent to ${shown(endpoint)}`, { reason }),
  });
  const tracer = new RequestTracer({ exporter, monitor, clock: realClock, model });
  meter.onEnd((record) => tracer.take(record));
  return tracer;
}

function checkEndpoint(endpoint: string): void {
  const isHttp = URL.canParse(endpoint) && /^https?:$/.test(new URL(endpoint).protocol);
  if (isHttp) return;
  throw new UsageError(
    `--otlp-traces-endpoint ${endpoint}: expected the URL of an OTLP/HTTP collector, such as ` +
      "http://localhost:4318/v1/traces",
  );
}

/** Without a password. */
function shown(endpoint: string): string {
  const { origin, pathname } = new URL(endpoint);
  return origin + pathname;
}
