import type {
  EngineOptions,
  ManagerOptions,
  MigrationOptions,
  ScalingOptions,
  TransferOptions,
} from "../../core/options.ts";
import type { SimulationOptions } from "../../executor/sim/simulation.ts";
import type { ArrivalSpec } from "../../workload/arrivals.ts";

/** A cluster and its policies: one side of a comparison. */
export interface ClusterConfig {
  /** Name in tables and reports. */
  readonly name: string;
  readonly engine: ExperimentEngineOptions;
  readonly manager: ManagerOptions;
  readonly migration: MigrationOptions;
  readonly transfer: TransferOptions;
  readonly scaling: ScalingOptions;
  /** All requests are served alike. */
  readonly ignorePriorities: boolean;
}

/** Options of the instances. */
export type ExperimentEngineOptions =
  & SimulationOptions
  & Pick<
    EngineOptions,
    "maxNumSeqs" | "schedulerDelayFactor" | "preemptionMode" | "prefillHoldTimeout" | "seed"
  >;

/** The requests of a run. */
export interface WorkloadConfig {
  /** Name in tables and reports: "8 req/s", "CV 4". */
  readonly name: string;
  /** Null keeps the times of the trace. */
  readonly arrivals: ArrivalSpec | null;
  /** Name of the lengths ({@linkcode requestLengths}), or null with a trace. */
  readonly lengths: string | null;
  /** File of a recorded workload. */
  readonly trace: string | null;
  /** Null takes the whole trace. */
  readonly numRequests: number | null;
  /** Fraction of the requests that have high priority. */
  readonly highPriority: number;
}
