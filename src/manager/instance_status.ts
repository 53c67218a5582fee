import type { InstanceState, InstanceStatus, LoadNumber } from "../core/protocol/admin.ts";
import type { InstanceLoad } from "../core/protocol/monitoring.ts";
import type { ManagerOptions } from "../core/options.ts";
import type { ManagedInstance } from "./fleet/managed_instance.ts";
import { dispatchLoad, migrationLoad } from "./load/load_metric.ts";
import { type LoadState, loadStateOf } from "./load/load_state.ts";
import { freeness } from "./load/metrics/virtual_usage.ts";

export type StatusOptions = Pick<ManagerOptions, "loadMetric" | "priorityHeadroomBlocks">;

/** An instance as operators see it. */
export function statusOf(
  instance: ManagedInstance,
  options: StatusOptions,
  nowMs: number,
): InstanceStatus {
  const { registration, info, process } = instance;
  const state = loadOf(instance, options);
  return {
    instanceId: instance.instanceId,
    instanceType: instance.type,
    state: stateOf(instance, nowMs),
    pid: registration?.pid ?? process.pid,
    hostName: instance.hostName,
    totalBlocks: registration?.totalBlocks ?? null,
    usedBlocks: info?.usedBlocks ?? null,
    load: state && loadNumber(dispatchLoad(options.loadMetric, state)),
    runningRequests: info?.runningRequests ?? null,
    waitingRequests: info?.waitingRequests ?? null,
    killedRequests: info?.killedRequests ?? null,
  };
}

/** What the dispatcher knows of an instance. */
export interface DispatchNumbers {
  readonly pendingRequests: number;
  readonly dispatchedRequests: number;
}

/** An instance as watchers of the cluster see it. */
export function instanceLoadOf(
  instance: ManagedInstance,
  options: StatusOptions & { readonly enableDefrag: boolean },
  dispatched: DispatchNumbers,
  nowMs: number,
): InstanceLoad {
  const { registration, info } = instance;
  const state = loadOf(instance, options);
  const { loadMetric, enableDefrag } = options;
  return {
    ...statusOf(instance, options, nowMs),
    ...dispatched,
    blockSize: registration?.blockSize ?? null,
    backend: registration?.migration?.backend ?? null,
    executor: registration?.executor ?? null,
    migrationLoad: state && loadNumber(migrationLoad(loadMetric, state, enableDefrag)),
    freeness: state && loadNumber(freeness(state)),
    runningHighPriorityRequests: info?.runningHighPriorityRequests ?? null,
    firstWaitingMs: info?.firstWaitingMs ?? null,
    lastStepKind: info?.lastStepKind ?? null,
    lastStepMs: info === null ? null : Math.max(0, info.lastStepLatencyMs),
    totals: info?.totals ?? null,
  };
}

/** The state of an instance, for people. */
export function stateOf(instance: ManagedInstance, nowMs: number): InstanceState {
  const { phase, peer, isDraining } = instance;
  if (phase === "lost") return "stopping"; // its process may still be ending
  if (phase !== "serving") return phase;
  if (peer === null) return "unreachable";
  if (!isDraining) return "serving";
  return instance.isDrained(nowMs) ? "drained" : "draining";
}

function loadOf(
  { info, isDraining }: ManagedInstance,
  { priorityHeadroomBlocks }: StatusOptions,
): LoadState | null {
  return info && loadStateOf(info, { priorityHeadroomBlocks, isDraining });
}

function loadNumber(load: number): LoadNumber {
  if (Number.isFinite(load)) return load;
  return load > 0 ? "inf" : "-inf";
}
