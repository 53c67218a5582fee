/** `GET /metrics`: this API server's requests, and the cluster as the manager knows it. */
import { STATUS_CODE } from "@std/http/status";
import type { Clock } from "../core/clock.ts";
import type { ClusterMonitor } from "../core/cluster.ts";
import { clusterFamilies } from "../metrics/cluster_families.ts";
import { Exposition } from "../metrics/exposition.ts";
import { CONTENT_TYPE } from "../metrics/text_format.ts";
import { gauge, type MetricFamily } from "../metrics/family.ts";
import { processFamilies } from "../metrics/process_families.ts";
import { requestFamilies } from "../metrics/request_families.ts";
import type { RequestMeter } from "../metrics/request_meter.ts";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";

export interface ServerMetricsConfig {
  readonly meter: RequestMeter;
  /** Absent: the metrics of the cluster are left out. */
  readonly monitor?: ClusterMonitor;
  /** The model's name for clients. */
  readonly model: string;
  readonly version: string;
  readonly clock: Clock;
}

/** The text of `/metrics` of an API server. */
export function serverMetrics(
  { meter, monitor, model, version, clock }: ServerMetricsConfig,
): Exposition {
  return new Exposition(async () => [
    ...requestFamilies(meter, model),
    ...monitor ? await familiesOf(monitor, model) : [],
    ...processFamilies("server", version),
  ], clock);
}

export async function metrics(exchange: Exchange, { metrics }: ServerContext): Promise<void> {
  exchange.send(STATUS_CODE.OK, CONTENT_TYPE, await metrics.text());
}

/** Without a manager, the API server goes on, and so do its own metrics. */
async function familiesOf(monitor: ClusterMonitor, model: string): Promise<MetricFamily[]> {
  const state = await monitor.state().catch(() => null);
  return [
    gauge("llumnix:manager_up", "1: the manager answers this API server; 0: it does not.", [
      { labels: {}, value: state === null ? 0 : 1 },
    ]),
    ...state === null ? [] : clusterFamilies(state, model),
  ];
}
