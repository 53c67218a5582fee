import type { CallHandler, NotifyHandler } from "../../bus/bus.ts";
import type { Clock } from "../../core/clock.ts";
import type { HostStatus } from "../../core/protocol/admin.ts";
import type { LeadershipStatus } from "../../core/protocol/leadership.ts";
import type { ClusterState } from "../../core/protocol/monitoring.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { ManagedInstance } from "../fleet/managed_instance.ts";
import { type DispatchNumbers, instanceLoadOf, type StatusOptions } from "../instance_status.ts";
import type { ManagerEvent } from "../manager_event.ts";
import { ClusterCounters } from "./cluster_counters.ts";
import { clusterEventOf } from "./cluster_event.ts";
import { EventLog } from "./event_log.ts";

/** Longest reason that an event keeps; longer ones are cut. */
const MAX_REASON_CHARS = 512;

export interface MonitorConfig {
  readonly clock: Clock;
  readonly options: StatusOptions & { readonly enableDefrag: boolean };
  /** All instances, starting and draining ones too. */
  readonly instances: () => readonly ManagedInstance[];
  readonly dispatchNumbersOf: (instance: ManagedInstance) => DispatchNumbers;
  readonly numExpected: () => number;
  readonly hosts: () => readonly HostStatus[];
  /** Absent: there is one manager. */
  readonly leadership?: () => LeadershipStatus;
  readonly onEvent: (event: ManagerEvent) => void;
}

/**
 * What the manager tells watchers of the cluster: its last events, and the state of all instances with
 * counters. Watchers ask; nothing is pushed, so that none of them can hold the manager up.
 */
export class Monitor {
  readonly #config: MonitorConfig;
  readonly #startedMs: number;
  readonly #log: EventLog;
  readonly counters = new ClusterCounters();

  constructor(config: MonitorConfig) {
    this.#config = config;
    this.#startedMs = Math.floor(config.clock.nowMs());
    this.#log = new EventLog(this.#startedMs);
  }

  readonly calls: {
    readonly cluster_events: CallHandler<"cluster_events">;
    readonly cluster_state: CallHandler<"cluster_state">;
  } = {
    cluster_events: ({ data }) => ({ data: this.#log.read(data) }),
    cluster_state: () => ({ data: this.state() }),
  };

  readonly notifications: { readonly resumed: NotifyHandler<"resumed"> } = {
    resumed: ({ data: { requestId, reason } }) => {
      this.#config.onEvent({
        type: "resumed",
        requestId,
        reason: reason.slice(0, MAX_REASON_CHARS),
      });
    },
  };

  /** Counts an event of the manager, and keeps it if watchers want to know of it. */
  note(event: ManagerEvent): void {
    const told = clusterEventOf(event);
    if (told === null) return;
    this.counters.count(told);
    this.#log.add(told, this.#config.clock.nowMs());
  }

  /** An instance reports. Call this before the report replaces the instance's last one. */
  noteInfo(info: InstanceInfo, before: InstanceInfo | null): void {
    const { onEvent } = this.#config;
    const { instanceId } = info;
    // A manager that starts again does not know when its instances preempted requests before.
    const count = before === null ? 0 : info.totals.preemptions - before.totals.preemptions;
    if (count > 0) onEvent({ type: "preempted", instanceId, count });
    for (const requestId of info.finishedRequestIds) {
      onEvent({ type: "ended", requestId, instanceId });
    }
  }

  state(): ClusterState {
    const { clock, instances, options, dispatchNumbersOf, numExpected } = this.#config;
    const { hosts, leadership } = this.#config;
    const nowMs = clock.nowMs();
    return {
      managerStartedMs: this.#startedMs,
      timestampMs: nowMs,
      instances: instances().map((instance) =>
        instanceLoadOf(instance, options, dispatchNumbersOf(instance), nowMs)
      ),
      expectedInstances: numExpected(),
      hosts: hosts(),
      leadership: leadership?.(),
      statistics: this.counters.snapshot(),
    };
  }
}
