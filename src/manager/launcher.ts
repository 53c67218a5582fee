import type { Address } from "../bus/bus.ts";
import type { InstanceId } from "../core/messages.ts";

export interface LaunchRequest {
  readonly instanceId: InstanceId;
  /** The instance joins the manager there. */
  readonly managerAddress: Address;
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

/** Starts instances somewhere. */
export interface InstanceLauncher {
  /** @throws the instance cannot even be started */
  launch(request: LaunchRequest): Promise<LaunchedInstance>;
}
