import type { LoadNumber } from "../core/protocol/admin.ts";
import type { InstanceInfo } from "../core/protocol/instance_info.ts";
import type { InstanceLoad } from "../core/protocol/monitoring.ts";
import { counter, gauge, type Labels, type MetricFamily, type Sample } from "./family.ts";

/** What is known of an instance. What only the manager knows is null where the instance tells itself. */
export interface InstanceNumbers
  extends Omit<InstanceLoad, "pendingRequests" | "dispatchedRequests"> {
  readonly pendingRequests: number | null;
  readonly dispatchedRequests: number | null;
}

/** What an instance knows of itself. */
export function ownNumbers(
  info: InstanceInfo,
  known: Pick<InstanceNumbers, "executor" | "backend" | "blockSize">,
): InstanceNumbers {
  return {
    ...known,
    instanceId: info.instanceId,
    instanceType: info.instanceType,
    state: "serving",
    pid: Deno.pid,
    hostName: null,
    totalBlocks: info.totalBlocks,
    usedBlocks: info.usedBlocks,
    load: null,
    migrationLoad: null,
    freeness: null,
    runningRequests: info.runningRequests,
    waitingRequests: info.waitingRequests,
    killedRequests: info.killedRequests,
    runningHighPriorityRequests: info.runningHighPriorityRequests,
    pendingRequests: null,
    dispatchedRequests: null,
    firstWaitingMs: info.firstWaitingMs,
    lastStepKind: info.lastStepKind,
    lastStepMs: info.lastStepLatencyMs,
    totals: info.totals,
  };
}

/**
 * The metrics of some instances.
 * @param model the name that clients use
 */
export function instanceFamilies(
  instances: readonly InstanceNumbers[],
  model: string,
): MetricFamily[] {
  const shared = instances.map(({ instanceId }): Labels => ({
    model_name: model,
    instance_id: instanceId,
  }));
  const each = <T>(of: (instance: InstanceNumbers) => T, more?: Labels): Sample<T>[] =>
    instances.map((instance, i) => ({
      labels: more === undefined ? shared[i] : { ...shared[i], ...more },
      value: of(instance),
    }));
  return [
    gauge(
      "vllm:num_requests_running",
      "Requests that run on an instance.",
      each((one) => one.runningRequests),
    ),
    gauge(
      "vllm:num_requests_waiting",
      "Requests that wait in an instance's queue.",
      each((one) => one.waitingRequests),
    ),
    gauge(
      "vllm:gpu_cache_usage_perc",
      "Part of an instance's KV blocks that is in use; 1 is all of them.",
      each(cacheUsage),
    ),
    gauge(
      "vllm:kv_cache_usage_perc",
      "The same as vllm:gpu_cache_usage_perc, by its newer name.",
      each(cacheUsage),
    ),
    counter(
      "vllm:num_preemptions_total",
      "Preemptions of running requests, for lack of blocks.",
      each((one) => one.totals?.preemptions ?? null),
    ),
    counter(
      "llumnix:instance_prompt_tokens_total",
      "Prompt tokens that an instance computed, also those of resumed and preempted requests.",
      each((one) => one.totals?.promptTokens ?? null),
    ),
    counter(
      "llumnix:instance_generation_tokens_total",
      "Output tokens that an instance computed.",
      each((one) => one.totals?.outputTokens ?? null),
    ),
    gauge(
      "llumnix:instance_preempted_requests",
      "Requests that were preempted and do not run again yet.",
      each((one) => one.killedRequests),
    ),
    gauge(
      "llumnix:instance_high_priority_requests",
      "Running requests of high priority.",
      each((one) => one.runningHighPriorityRequests),
    ),
    gauge(
      "llumnix:instance_pending_requests",
      "Requests that were dispatched to an instance and that it has not reported yet.",
      each((one) => one.pendingRequests),
    ),
    gauge(
      "llumnix:instance_first_waiting_seconds",
      "How long the first request of an instance's queue has waited.",
      each(({ firstWaitingMs }) => firstWaitingMs === null ? null : firstWaitingMs / 1000),
    ),
    gauge(
      "llumnix:instance_step_seconds",
      "Time of an instance's last step.",
      each(({ lastStepMs }) => lastStepMs === null ? null : lastStepMs / 1000),
    ),
    gauge("llumnix:instance_load", "Load by --load-metric; missing while it is infinite.", [
      ...each(({ load }) => finite(load), { kind: "dispatch" }),
      ...each(({ migrationLoad }) => finite(migrationLoad), { kind: "migration" }),
    ]),
    gauge(
      "llumnix:instance_freeness",
      "Decode steps for which an instance's free blocks last; missing while it has no requests.",
      each(({ freeness }) => finite(freeness)),
    ),
    gauge(
      "llumnix:instance_total_blocks",
      "KV blocks of an instance.",
      each((one) => one.totalBlocks),
    ),
    gauge(
      "llumnix:instance_used_blocks",
      "KV blocks of an instance that are in use.",
      each((one) => one.usedBlocks),
    ),
    counter(
      "llumnix:dispatched_requests_total",
      "Requests that were dispatched to an instance.",
      each((one) => one.dispatchedRequests),
    ),
    gauge(
      "llumnix:instance_info",
      "Always 1; the labels say what an instance is, and in which state.",
      instances.map(({ instanceId, instanceType, state, executor, backend, hostName }) => ({
        labels: {
          model_name: model,
          instance_id: instanceId,
          instance_type: instanceType,
          state,
          executor: executor ?? "",
          migration_backend: backend ?? "",
          host: hostName ?? "",
        },
        value: 1,
      })),
    ),
  ];
}

function cacheUsage({ usedBlocks, totalBlocks }: InstanceNumbers): number | null {
  return usedBlocks === null || !totalBlocks ? null : usedBlocks / totalBlocks;
}

/** An infinite value would spoil every sum and mean that it is part of. */
function finite(load: LoadNumber | null): number | null {
  return typeof load === "number" ? load : null;
}
