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

/** A run of a simulated cluster as plain data: the same seed gives the same. */
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
  /** Of backends that need a group; null for one that needs none. */
  readonly group: ScenarioGroup | null;
  /** What a deadly request does to its instance. */
  readonly deadlySteps: "crash" | "throw" | "hang";
  readonly network: Required<
    Pick<NetworkConfig, "meanDelayMs" | "keepAliveMs" | "repeatChance" | "overtakeChance">
  >;
  /** Of processes against each other. */
  readonly maxClockSkewMs: number;
  /** By time. */
  readonly requests: readonly ScenarioRequest[];
  /** By time. */
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
    readonly maxModelLen: number;
    readonly stepMs: number;
  };

export interface ScenarioRequest {
  readonly atMs: number;
  readonly client: number;
  readonly promptTokenIds: readonly number[];
  readonly params: SamplingParams;
  readonly priority: Priority;
  /** Its instance dies of it. */
  readonly isDeadly: boolean;
  /** The client leaves then; null if it stays. */
  readonly abortAtMs: number | null;
}

/**
 * Something that happens to the cluster. Instances are numbered in the order of their launch,
 * modulo those that are there.
 */
export type ScenarioAction =
  & { readonly atMs: number }
  & (
    /** `hang_step`: the step that runs, or the next, never ends, and its process is alive. */
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
    /** Connections break as a message of this method arrives: its answer is lost. */
    | { readonly type: "break_after"; readonly method: string; readonly count: number }
    /** The same with a partition. */
    | Cut & { readonly type: "cut_after"; readonly method: string; readonly count: number }
    /** The instance that gets it dies. */
    | { readonly type: "crash_after"; readonly method: string; readonly count: number }
  );

/** Nothing passes: from the first to the second process, back, or in both directions. */
export interface Cut {
  readonly direction: "both" | "forth" | "back";
  readonly forMs: number;
}

export type Link = "instances" | "manager_instance" | "client_instance" | "client_manager";

/** Nothing fails by itself after it. */
export const FAULTS_END_MS = 5_000;
/** A request that a fault hits again and again as it begins to run fails after more of them. */
const MAX_MILD_FAULTS = 4;
/** Instances that a deadly request may cost. */
const MAX_LOSSES = 5;
/** Stands for the beginning of a round of a transfer, among the methods to break behind. */
export const TRANSFER_ROUND = "round";

/** Actions that may cost a request its instance, its connection or time. */
export function isFault({ type }: ScenarioAction): boolean {
  return type !== "add" && type !== "drain" && type !== "slow" && type !== "slow_link";
}

/** How long nothing passes somewhere, at the longest and all together. */
export function stalledMs({ actions, timeouts }: Scenario): number {
  const stallMs = (action: ScenarioAction) =>
    "forMs" in action ? action.forMs : action.type === "hang_step" ? 2 * timeouts.stepMs : 0;
  return actions.reduce((sum, action) => sum + stallMs(action), 0);
}

/** How long instances hang one after the other, of which deadly requests die, at the longest. */
export function deadlyMs({ deadlySteps, requests, timeouts }: Scenario): number {
  const numDeadly = requests.filter(({ isDeadly }) => isDeadly).length;
  return deadlySteps === "hang" ? numDeadly * MAX_LOSSES * 1.5 * timeouts.stepMs : 0;
}

/** Whether nothing happens, and messages arrive once and in order. */
export function isCalm({ actions, network: { repeatChance, overtakeChance } }: Scenario): boolean {
  return actions.length === 0 && repeatChance === 0 && overtakeChance === 0;
}

/**
 * Whether no request may fail but those that are deadly: instances come back, and requests wait for
 * them however long it takes.
 */
export function isMild({ actions, requests, numClients }: Scenario): boolean {
  const numDeadly = requests.filter(({ isDeadly }) => isDeadly).length;
  // Without a manager API servers try those that may be deadly beside each other.
  const mayBeTriedBeside = numDeadly > 0 && numClients > 1 &&
    actions.some(({ type }) => type === "restart_manager");
  return actions.filter(isFault).length <= MAX_MILD_FAULTS && numDeadly <= 1 && !mayBeTriedBeside;
}
