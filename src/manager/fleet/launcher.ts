import type { Address } from "../../bus/bus.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceRegistration } from "../../core/protocol/membership.ts";

export interface LaunchRequest {
  readonly instanceId: InstanceId;
  /** The instance joins the manager there. */
  readonly managerAddress: Address;
  /** KV blocks that it gets if nothing else is said; null: it finds out what it can have. */
  readonly numBlocks: number | null;
  readonly startedBy: "manager" | "api-server";
}

export interface ExitStatus {
  /** Exit code; null when a signal ended it. */
  readonly code: number | null;
  readonly signal: string | null;
}

/** An instance that was started; it may not have joined yet. */
export interface LaunchedInstance {
  readonly pid: number;
  /** Never rejects. */
  readonly exited: Promise<ExitStatus>;
  /** A no-op when it has exited. */
  stop(signal: "SIGTERM" | "SIGKILL"): void;
}

/** An instance that was found running. */
export interface AdoptedInstance extends Pick<LaunchedInstance, "stop"> {
  /** Its process has ended: a connection that it lost will not come back. */
  hasEnded(): boolean;
}

export type InstanceProcess = Pick<InstanceRegistration, "instanceId" | "pid" | "processStart">;

/** Starts instances somewhere. */
export interface InstanceLauncher {
  /** @throws the instance cannot even be started */
  launch(request: LaunchRequest): Promise<LaunchedInstance>;
  /**
   * A hold on an instance that others have started; null where it cannot be reached. It may hang, and
   * then nothing but a signal ends it.
   * @param peerPid the process at the other end of its connection, as the system says; null: not known
   */
  adopt?(process: InstanceProcess, peerPid: number | null): AdoptedInstance | null;
  /**
   * Kills an instance of which nothing is known but its name and its manager's address.
   * @returns false where it is not there, or cannot be reached
   */
  killStray?(instanceId: InstanceId, managerAddress: Address): Promise<boolean> | boolean;
}
