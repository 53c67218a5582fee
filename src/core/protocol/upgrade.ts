/** How a process that serves is replaced by its successor: a process of another executable. */
import type { InstanceId } from "./generate.ts";
import type { ManagerDecision } from "./leadership.ts";

/** The roles that a successor can take over. Instances are replaced by their manager. */
export type UpgradeRole = "serve" | "manager" | "agent" | "api-server";

/** Command `llumnix upgrade` to a process that serves, call `upgrade`: start a successor. */
export interface UpgradeOrder {
  /** Absolute path of the new executable; null: the own one, as it is on disk now. */
  readonly binary: string | null;
}

/** The answer, once the successor serves. */
export interface Upgraded {
  readonly pid: number;
  /** For people. */
  readonly version: string;
}

/** Answer to the call `upgrade_status`. */
export interface UpgradeStatus {
  readonly role: UpgradeRole;
  readonly pid: number;
  readonly version: string;
  /** A successor serves in its place: this process finishes its requests, and ends. */
  readonly isReplaced: boolean;
  /** Of a process with a manager that starts instances; of an agent, those of its host. */
  readonly instances: readonly InstanceVersion[];
  /** The instances of the predecessor that are being replaced; null: none were. */
  readonly rollout: Rollout | null;
}

/** What a role says of its instances. */
export type RoleStatus = Pick<UpgradeStatus, "instances" | "rollout">;

export interface InstanceVersion {
  readonly instanceId: InstanceId;
  /** Null: not known. */
  readonly version: string | null;
}

/** How far a manager, or an agent, is with the replacement of the instances that it took over. */
export interface Rollout {
  readonly total: number;
  readonly replaced: number;
  readonly isOver: boolean;
  /** Why it ended before all were replaced; else null. */
  readonly error: string | null;
}

/** Successor to predecessor, call `take_over`: it is ready to serve. */
export interface TakeOver {
  readonly version: string;
  /**
   * The successor as a candidate for the leadership of a cluster. A manager that has started instances gives
   * the leadership to it. Absent: it is no manager, or the only one.
   */
  readonly candidate?: string;
}

/** What the predecessor has given up for the successor. */
export interface Handover {
  /** Bus address at which the instances look for their manager; null: no instances are handed over. */
  readonly managerAddress: string | null;
  /** How many instances there should be; null: as many as the options say. */
  readonly numInstances: number | null;
}

/** Successor to predecessor, notification `finish`: the service is stopping. */
export interface FinishNotice {
  /** Time for the requests that the predecessor still has. */
  readonly withinMs: number;
}

/** Manager to instance, call `handover`: another manager takes this one's place, at its address. */
export interface ManagerHandover extends ManagerDecision {
  /** How long the instance tries to join it. */
  readonly waitMs: number;
}
