import type { Priority, SamplingParams } from "../../core/protocol/generate.ts";
import type {
  EngineOptions,
  ManagerOptions,
  MigrationOptions,
  ScalingOptions,
  TransferOptions,
} from "../../core/options.ts";
import type { NetworkConfig } from "../network/sim_bus.ts";
import type { GroupFaults } from "./sim_group.ts";

/** A run of a simulated cluster as plain data. The same seed gives the same scenario. */
export interface Scenario {
  readonly seed: number;
  readonly numClients: number;
  readonly manager: ManagerOptions;
  readonly migration: MigrationOptions;
  readonly scaling: ScalingOptions;
  readonly transfer: TransferOptions;
  readonly engine: ScenarioEngine;
  readonly timeouts: {
    readonly instanceMs: number;
    readonly drainMs: number;
    readonly stepMs: number;
  };
  /** Faults of the group that the migration backend needs; null if it needs none. */
  readonly group: ScenarioGroup | null;
  /** What a poison request does to its instance. */
  readonly poisonSteps: "crash" | "throw" | "hang";
  readonly network: Required<
    Pick<NetworkConfig, "meanDelayMs" | "keepAliveMs" | "repeatChance" | "overtakeChance">
  >;
  /** Largest difference of a process's clock from the true time. */
  readonly maxClockSkewMs: number;
  /** In the order of time. */
  readonly requests: readonly ScenarioRequest[];
  /** In the order of time. */
  readonly actions: readonly ScenarioAction[];
}

export type ScenarioGroup = Pick<GroupFaults, "initTimeoutMs" | "slowShare" | "failedShare">;

export type ScenarioEngine =
  & Pick<EngineOptions, "maxNumSeqs" | "schedulerDelayFactor" | "preemptionMode">
  & {
    readonly blockSize: number;
    readonly numBlocks: number;
    readonly numSwapBlocks: number;
    /** Longer prompts come in pieces; absent: all come whole. */
    readonly maxPieceTokens?: number;
    /** Steps begin before the output of the one before is known. Default false. */
    readonly runsAhead?: boolean;
    readonly maxModelLen: number;
    readonly stepMs: number;
  };

export interface ScenarioRequest {
  readonly atMs: number;
  readonly client: number;
  readonly promptTokenIds: readonly number[];
  readonly params: SamplingParams;
  readonly priority: Priority;
  /** A poison request: its instance crashes on it. */
  readonly isPoison: boolean;
  /** When the client aborts it; null: never. */
  readonly abortAtMs: number | null;
}

/**
 * Something that happens to the cluster. A number selects an instance, in the order of launch, modulo the
 * number of instances that run.
 */
export type ScenarioAction =
  & { readonly atMs: number }
  & (
    /** `hang_step`: the current step, or the next, never ends, while the process lives on. */
    | { readonly type: "crash" | "slow" | "reset" | "hang_step"; readonly instance: number }
    | { readonly type: "hang"; readonly instance: number; readonly forMs: number }
    | { readonly type: "restart_manager"; readonly forMs: number }
    | { readonly type: "add" }
    | { readonly type: "drain"; readonly instance: number }
    | { readonly type: "terminate"; readonly instance: number }
    | { readonly type: "crash_client"; readonly client: number }
    | Cut & {
      readonly type: "partition";
      readonly between: Link;
      readonly first: number;
      readonly second: number;
    }
    | {
      readonly type: "slow_link";
      readonly between: Link;
      readonly first: number;
      readonly second: number;
      readonly factor: number;
    }
    /** The connections of sender and receiver break as a message arrives: its answer is lost. */
    | { readonly type: "break_after"; readonly method: string; readonly count: number }
    /** As `break_after`, with a partition. */
    | Cut & { readonly type: "cut_after"; readonly method: string; readonly count: number }
    /** As `break_after`: the receiving instance crashes. */
    | { readonly type: "crash_after"; readonly method: string; readonly count: number }
  );

/** No message passes from the first to the second process, back, or in both directions. */
export interface Cut {
  readonly direction: "both" | "forth" | "back";
  readonly forMs: number;
}

export type Link = "instances" | "manager_instance" | "client_instance" | "client_manager";

/** After this time nothing fails at random. */
export const FAULTS_END_MS = 5_000;
/** With more faults, a request that each of them hits as it begins to run fails. */
const MAX_MILD_FAULTS = 4;
/** Most instances that a poison request crashes. */
const MAX_LOSSES = 5;
/** Stands for the begin of a transfer round, among the methods after which connections break. */
export const TRANSFER_ROUND = "round";

/** Actions that may cost a request its instance, its connection or time. */
export function isFault({ type }: ScenarioAction): boolean {
  return type !== "add" && type !== "drain" && type !== "slow" && type !== "slow_link";
}

/** Upper bound of the time during which messages or steps are held up somewhere. */
export function stalledMs({ actions, timeouts }: Scenario): number {
  const stallMs = (action: ScenarioAction) =>
    "forMs" in action ? action.forMs : action.type === "hang_step" ? 2 * timeouts.stepMs : 0;
  return actions.reduce((sum, action) => sum + stallMs(action), 0);
}

/** Upper bound of the time during which poison requests make one instance after the other hang. */
export function poisonMs({ poisonSteps, requests, timeouts }: Scenario): number {
  const numPoison = requests.filter(({ isPoison }) => isPoison).length;
  return poisonSteps === "hang" ? numPoison * MAX_LOSSES * 1.5 * timeouts.stepMs : 0;
}

/** Whether there are no actions, and messages arrive once and in order. */
export function isCalm({ actions, network: { repeatChance, overtakeChance } }: Scenario): boolean {
  return actions.length === 0 && repeatChance === 0 && overtakeChance === 0;
}

/**
 * Whether only poison requests may fail. Instances are replaced, and requests wait for them
 * without a limit.
 */
export function isMild({ actions, requests, numClients }: Scenario): boolean {
  const numPoison = requests.filter(({ isPoison }) => isPoison).length;
  // Without a manager several API servers may isolate requests at the same time.
  const mayBeIsolatedTogether = numPoison > 0 && numClients > 1 &&
    actions.some(({ type }) => type === "restart_manager");
  return actions.filter(isFault).length <= MAX_MILD_FAULTS && numPoison <= 1 &&
    !mayBeIsolatedTogether;
}
