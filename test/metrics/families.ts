/** What all roles show. */
import { realClock } from "../../src/core/clock.ts";
import { clusterFamilies } from "../../src/metrics/cluster_families.ts";
import { gauge, type MetricFamily } from "../../src/metrics/family.ts";
import { processFamilies } from "../../src/metrics/process_families.ts";
import { requestFamilies } from "../../src/metrics/request_families.ts";
import { RequestMeter } from "../../src/metrics/request_meter.ts";
import { clusterState, instanceLoad } from "./cluster_state.ts";

const origin = { traceparent: null, operation: "chat" } as const;

/** All metrics of all roles, with samples. */
export function allFamilies(): MetricFamily[] {
  const meter = new RequestMeter(realClock);
  meter.begin({ requestId: "r", sampling: {} }, origin).fail(new Error("no"));
  return [
    ...requestFamilies(meter, "m"),
    gauge("llumnix:manager_up", "As in `server/metrics_route.ts`.", [{ labels: {}, value: 1 }]),
    ...clusterFamilies(clusterState([instanceLoad("a"), instanceLoad("b")]), "m"),
    ...processFamilies("server", "1.2.3"),
  ];
}

/** The names of metrics that a query uses and that do not exist. */
export function unknownNames(query: string): string[] {
  const known = new Set(
    allFamilies().flatMap(({ name, type }) =>
      type === "histogram" ? ["_bucket", "_sum", "_count"].map((end) => name + end) : [name]
    ),
  );
  const used = query.match(/\b(?:vllm|llumnix):\w+/g) ?? [];
  return used.filter((name) => !known.has(name));
}
