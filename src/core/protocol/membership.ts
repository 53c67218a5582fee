/** Instance and manager: how an instance joins, registers and drains; what API servers learn of it. */
import type { InstanceId } from "./generate.ts";
import type { InstanceType } from "./instance_info.ts";
import type { ManagerDecision } from "./leadership.ts";
import type { StandingOrders } from "./standing_orders.ts";

/** What all instances of a service have in common: else the same request has other answers. */
export interface ServedSettings {
  /** Real path of the model's directory, else its name. */
  readonly model: string;
  readonly dtype: string;
  /** Longest prompt + output in tokens. */
  readonly maxModelLen: number;
}

/** What an instance tells the manager when it is ready to serve. */
export interface InstanceRegistration extends ServedSettings {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  /** Bus address at which the instance serves. */
  readonly address: string;
  /**
   * Instances with the same name are on one host. Absent: not known, and no other instance counts as on the
   * same host.
   */
  readonly hostName?: string;
  readonly pid: number;
  /** Tells its process from others of that pid, also on other hosts; absent: not known. */
  readonly processStart?: string;
  /** Of its executable, for people; absent: not known. */
  readonly version?: string;
  /** What executes: "cpu (avx512bf16, 2 threads)", "null", ... */
  readonly executor: string;
  readonly blockSize: number;
  readonly totalBlocks: number;
  readonly swapBlocks: number;
  /**
   * A step that hangs is noticed, and the instance ends, after so long at the latest. Null: steps may
   * take any time; absent: not known.
   */
  readonly longestStepMs?: number | null;
  /** What moves its requests; absent: they stay where they are. */
  readonly migration?: MigrationRegistration;
  /** Why that has ended. */
  readonly migrationFailure?: string;
}

/** A migration backend, as the manager and other instances know it. */
export interface MigrationRegistration {
  /** As in `--migration-backend`. */
  readonly backend: string;
  /** How its peers reach it: JSON data that only the same kind of backend reads. */
  readonly endpoint: Readonly<Record<string, unknown>>;
}

/**
 * Instance to manager, call `join`, before anything is loaded; and again, followed by `register`,
 * when it has lost the manager's connection and serves.
 */
export interface JoinRequest {
  readonly instanceId: InstanceId;
  /** Tells a process from others that have had the name, or would have it. */
  readonly incarnation?: string;
  /** It serves already: a manager that does not know it, because it is new itself, takes it in. */
  readonly isRunning?: boolean;
  /** What it will register with again; where it serves already. */
  readonly registration?: InstanceRegistration;
  /** Who started it; default: the manager, which then expects it. */
  readonly startedBy?: "manager" | "api-server" | "hand";
  /** The latest that a manager has sent; absent: none. */
  readonly orders?: StandingOrders;
}

export interface JoinReply extends ManagerDecision {
  /** Least time between two pushes of {@linkcode InstanceInfo}. */
  readonly infoIntervalMs: number;
  /** The type that the instance takes, unless it serves already. */
  readonly instanceType: InstanceType;
}

/** Manager to instance, notification `report_interval`: the number of instances has changed a lot. */
export type ReportInterval = Pick<JoinReply, "infoIntervalMs">;

/**
 * Instance to manager, call `drain` without data: the instance's process was asked to stop, and the
 * instance wants to drain first. The manager answers at once.
 */
export interface DrainReply extends ManagerDecision {
  /** False: the whole service is about to end, and the instance serves on until then. */
  readonly mayDrain: boolean;
}

/** Instance to manager, notification `progress`, while it loads. For people. */
export interface InstanceProgress {
  readonly instanceId: InstanceId;
  /** "weights", "kv-cache", ... */
  readonly phase: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
  /** What is going on, without the numbers. */
  readonly detail: string;
}

/** Manager to API server, notification `instances`: before the answer to `subscribe`, and on change. */
export interface InstanceList extends ManagerDecision {
  /** Counts a manager's lists: of two that come over one connection, the greater is the newer. */
  readonly version: number;
  readonly instances: readonly InstanceRegistration[];
  /** Instances that were asked for. */
  readonly expectedInstances: number;
  /** False: all of them drain, and requests wait. Default true. */
  readonly takesRequests?: boolean;
  /** Instances that stopped lately because they were asked to: no request of theirs is to blame. */
  readonly stopped?: readonly InstanceId[];
  /** What all instances serve, future ones too; absent: not known. */
  readonly settings?: ServedSettings;
}
