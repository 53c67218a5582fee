/**
 * What `llumnix doctor --cluster` asks of a cluster's processes. Nothing here decides anything. Whoever has
 * the cluster's key may ask; without TCP, each process of the same user.
 */
import type { InstanceId } from "./generate.ts";
import type { Leadership, ManagerDecision } from "./leadership.ts";
import type { ServedSettings } from "./membership.ts";

/** Doctor to manager or instance, manager to agent; the answer to the call `examine`. */
export interface ProcessReport {
  /** Of a manager as in {@linkcode Leadership.leader}; of an instance its name; of an agent its host's. */
  readonly process: string;
  /** Absent: not known. */
  readonly hostName?: string;
  /** Version and build of its executable, for people. */
  readonly version: string;
  /** By the clock of its host, milliseconds since the epoch: as `Date.now()`, which people may set. */
  readonly timeMs: number;
  /** What it serves; absent: not known. */
  readonly settings?: ServedSettings;
  /** Of an instance that serves. */
  readonly cost?: TokenCost;
}

/** What a token of a request costs when the request moves. */
export interface TokenCost {
  /** Of the KV cache over all layers. */
  readonly bytesPerToken: number;
  /** As the instance has measured it; null before its first prompt. */
  readonly prefillTokensPerSecond: number | null;
}

/** Doctor to the manager that leads; the answer to the call `examine_cluster`. */
export interface ClusterReport {
  /** Absent: the manager is the only one. */
  readonly leadership?: Leadership;
  /** What all instances serve; absent: whatever the first one does. */
  readonly settings?: ServedSettings;
  /** Hosts with agents, by name. */
  readonly hosts: readonly AgentReport[];
  readonly instances: readonly InstanceAddress[];
  /** Hosts that asked to join and were refused lately, the latest last. */
  readonly refusals: readonly HostRefusal[];
  readonly numHostsOmitted: number;
  readonly numInstancesOmitted: number;
}

/** Most hosts of a {@linkcode ClusterReport}; the others are counted. */
export const MAX_EXAMINED_HOSTS = 128;
/** Most instances of a {@linkcode ClusterReport}. */
export const MAX_EXAMINED_INSTANCES = 1_024;
/** Most refusals that a manager remembers. */
export const MAX_REFUSALS = 16;

/** A host with an agent, as the manager that leads sees it. */
export interface AgentReport {
  readonly host: string;
  /** As in `AgentJoin`. */
  readonly address: string;
  readonly slots: number;
  readonly instances: number;
  /** Null: see {@linkcode failure}. */
  readonly process: ProcessReport | null;
  /** Between the manager's host and this one; null without an answer. */
  readonly clock: ClockDifference | null;
  /** Why the agent did not answer; null if it did. */
  readonly failure: string | null;
}

/** By how much another host's clock is ahead of this one's, as a question and its answer show it. */
export interface ClockDifference {
  /** Negative: it is behind. */
  readonly aheadMs: number;
  /** The true difference is at most so far from it. */
  readonly uncertaintyMs: number;
  /** Of the fastest question and answer. */
  readonly roundTripMs: number;
}

/** Where an instance serves. */
export interface InstanceAddress {
  readonly instanceId: InstanceId;
  readonly address: string;
  /** Absent: not known. */
  readonly hostName?: string;
  readonly version?: string;
}

export interface HostRefusal {
  readonly host: string;
  /** As in `AgentJoin`. */
  readonly address: string;
  readonly reason: string;
  readonly agoMs: number;
}

/** Doctor to the manager that leads, call `measure_path`. One path of a cluster is measured at a time. */
export interface PathQuestion {
  /** Name of the host that sends. */
  readonly from: string;
  readonly to: string;
}

/** What one connection of the bus carries in one direction. */
export interface PathSpeed {
  /** Where the receiving host listened. */
  readonly address: string;
  /** Least of several. */
  readonly roundTripMs: number;
  /** Of the best quarter of the time, when the connection has reached its speed. */
  readonly bytesPerSecond: number;
  readonly bytes: number;
  readonly ms: number;
}

/** Manager to the agent that receives, answer to the call `path_receive`: it listens for a few seconds. */
export interface PathEnd {
  readonly address: string;
}

/** Manager to the agent that sends, call `path_send`; the answer is a {@linkcode PathSpeed}. */
export interface PathOrder extends ManagerDecision, PathEnd {}
