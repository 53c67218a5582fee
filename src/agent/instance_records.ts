/** Which instances of a host run, for the next agent of that host. */
import type { InstanceId } from "../core/protocol/generate.ts";

/** An instance, and what tells its process from later ones of the same pid. */
export interface RecordedInstance {
  readonly instanceId: InstanceId;
  readonly pid: number;
  /** See `HostProcess.startOf`. */
  readonly processStart: string;
}

/** The instances that run on a host. They outlive the agent that writes them. */
export interface InstanceRecords {
  read(): readonly RecordedInstance[];
  write(instances: readonly RecordedInstance[]): void;
  /** None runs, and no other agent needs to know. */
  clear(): void;
}
