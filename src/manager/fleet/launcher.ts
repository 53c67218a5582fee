import type { Address } from "../../bus/bus.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { InstanceRegistration } from "../../core/protocol/membership.ts";

export interface LaunchRequest {
  readonly instanceId: InstanceId;
  /** Where the instance joins the manager. */
  readonly managerAddress: Address;
  /** Names of hosts that are drained: the instance must not start there. */
  readonly avoidHosts?: ReadonlySet<string>;
  /** KV blocks of the instance unless an option sets them; null: it measures how many fit. */
  readonly numBlocks: number | null;
  readonly startedBy: "manager" | "api-server";
  /** It takes the place of this instance, on its host, which ends later: both run for a while. */
  readonly replaces?: InstanceId;
}

export interface ExitStatus {
  /** Exit code; null if a signal ended the process, or if it is not known how it ended. */
  readonly code: number | null;
  readonly signal: string | null;
}

/** An instance that this process started; it may not have joined yet. */
export interface LaunchedInstance {
  readonly pid: number;
  /** The host on which it runs; absent: this one. */
  readonly host?: string;
  /** Never rejects. */
  readonly exited: Promise<ExitStatus>;
  /** A no-op once it has exited. */
  stop(signal: "SIGTERM" | "SIGKILL"): void;
}

/** An instance that another process started, and that runs on this host. */
export interface AdoptedInstance extends Pick<LaunchedInstance, "stop"> {
  /** Whether its process has ended; then a connection that it lost will not come back. */
  hasEnded(): boolean;
}

export type InstanceProcess = Pick<InstanceRegistration, "instanceId" | "pid" | "processStart">;

/** Starts instances: as processes of this host or of others, within this process, or simulated. */
export interface InstanceLauncher {
  /**
   * Why it cannot start an instance while these hosts are drained; null: it can. Absent: it never refuses.
   * @param managerAddress see {@linkcode LaunchRequest}
   */
  refusal?(managerAddress: Address, avoidHosts: ReadonlySet<string>): string | null;
  /** Instances that could be started now; absent: as many as anybody wants. */
  readonly room?: number;
  /**
   * The next instance should start where this one runs, if there is room once it has ended; null: anywhere
   * again. Absent: there is one host.
   */
  preferHostOf?(instanceId: InstanceId | null): void;
  /**
   * Instances that run or start and that have not joined this manager yet: an earlier one has ordered them.
   * None is started in their place. Default: 0.
   */
  readonly numUnjoined?: number;
  /** Whether an instance of this name runs or starts, as {@linkcode numUnjoined} counts them, or has joined. */
  has?(instanceId: InstanceId): boolean;
  /** @throws the process of the instance cannot be started */
  launch(request: LaunchRequest): Promise<LaunchedInstance>;
  /**
   * Takes hold of an instance that another process started, to be able to kill it if it hangs. Null if
   * it cannot be reached, for instance on another host.
   * @param peerPid the process at the other end of its connection, as the system says; null: not known
   */
  adopt?(process: InstanceProcess, peerPid: number | null): AdoptedInstance | null;
  /** An instance serves. */
  noteServing?(registration: InstanceRegistration): void;
  /**
   * Kills an instance of a previous manager by its name and its manager's address, which is all that is
   * known of it.
   * @returns false if there is no such process, or it cannot be reached
   */
  killOrphan?(instanceId: InstanceId, managerAddress: Address): Promise<boolean> | boolean;
}
