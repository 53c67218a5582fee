import { Random } from "../../core/random.ts";
import { samplingDefaults } from "../../core/sampling.ts";
import { PAGED_VOCAB_SIZE } from "../fuzz/paged_model.ts";
import type { Scenario, ScenarioRequest } from "../fuzz/scenario.ts";
import { POISON_SEED } from "../fuzz/timed_model.ts";

/** A service on hosts with agents, as plain data. The same seed gives the same one. */
export interface HostsScenario {
  readonly seed: number;
  readonly numManagers: number;
  /** Instances that the managers' options ask for; those of hosts come on top. */
  readonly initialInstances: number;
  readonly hosts: readonly HostPlan[];
  readonly meanDelayMs: number;
  /** Share of the frames that arrive a second time. */
  readonly repeatChance: number;
  /** Longest time until a process of an instance runs. */
  readonly launchMs: number;
  readonly isScaled: boolean;
  readonly requests: readonly ScenarioRequest[];
  /** In the order of time. */
  readonly actions: readonly HostsAction[];
}

export interface HostPlan {
  readonly name: string;
  readonly slots: number;
  readonly initialInstances: number;
  /** When its agent starts. */
  readonly atMs: number;
}

/** What happens. Numbers select a host, or an instance that runs, modulo how many there are. */
export type HostsAction =
  & { readonly atMs: number }
  & (
    | { readonly type: "crash_instance"; readonly instance: number }
    /** The agent's process ends, and another one starts; instances go on. */
    | { readonly type: "crash_agent"; readonly host: number; readonly forMs: number }
    /** The agent's connections break. */
    | { readonly type: "reset_agent"; readonly host: number }
    /** All processes of a host end. It comes back without them; Infinity: it does not. */
    | { readonly type: "lose_host"; readonly host: number; readonly forMs: number }
    /** Nothing passes to or from a host, whose processes go on. */
    | { readonly type: "cut_host"; readonly host: number; readonly forMs: number }
    /** The agent is asked to stop, and starts again later. */
    | { readonly type: "stop_host"; readonly host: number; readonly forMs: number }
    /** An instance crashes, and the answer to the next start is lost with its connection. */
    | { readonly type: "lose_answer"; readonly instance: number }
    /** An instance crashes, and the leader ends as its next order to start one arrives. */
    | { readonly type: "kill_leader_at_start"; readonly instance: number }
    | { readonly type: "kill_leader" }
    /** Another manager leads, and the one before goes on until it is told. */
    | { readonly type: "change_leader" }
    /** The leader's host loses the network for a while. */
    | { readonly type: "cut_leader"; readonly forMs: number }
    /** What an operator orders. */
    | { readonly type: "add" }
    | { readonly type: "remove"; readonly instance: number }
    | { readonly type: "drain"; readonly instance: number }
    | { readonly type: "drain_host"; readonly host: number; readonly atOnce: number | null }
    | { readonly type: "keep_host"; readonly host: number }
  );

export type ActionOf<T extends HostsAction["type"]> = Extract<HostsAction, { readonly type: T }>;

/** Actions begin between these, and their faults end by the last. */
const ACTIONS_BEGIN_MS = 4_000;
const ACTIONS_END_MS = 40_000;
export const FAULTS_END_MS = 50_000;
/** A host that stays away for so long is lost for good. */
export const LOST_HOST_MS = 30_000;
/** All has settled by then: also the share of a lost host is gone. */
export const END_MS = FAULTS_END_MS + LOST_HOST_MS + 40_000;
/** Requests come within this time. */
const REQUESTS_END_MS = 42_000;

export function randomHostsScenario(seed: number): HostsScenario {
  const random = new Random(seed);
  const pick = <T>(values: readonly T[]) => values[random.below(values.length)];
  const numHosts = 1 + random.below(4);
  // Either each host brings its instances, or the managers' options say how many there are.
  const byHost = random.below(3) > 0;
  const hosts = Array.from({ length: numHosts }, (_, i): HostPlan => {
    const slots = 1 + random.below(3);
    return {
      name: "abcd"[i],
      slots,
      initialInstances: byHost ? Math.min(slots, random.below(4) === 0 ? 2 : 1) : 0,
      atMs: random.below(4) === 0 ? random.below(8_000) : random.below(200),
    };
  });
  const numSlots = hosts.reduce((sum, { slots }) => sum + slots, 0);
  const numActions = pick([1, 2, 3, 3, 4, 6, 8]);
  const actions = Array.from({ length: numActions }, () => randomAction(random));
  if (random.below(2) === 0) actions.push(...orderAndChange(random));
  actions.sort((a, b) => a.atMs - b.atMs);
  return {
    seed,
    numManagers: 2 + random.below(2),
    initialInstances: byHost ? 0 : 1 + random.below(numSlots),
    hosts,
    meanDelayMs: pick([0.5, 2, 20]),
    repeatChance: pick([0, 0, 0.1]),
    launchMs: pick([20, 300, 3_000]),
    isScaled: random.below(6) === 0,
    requests: randomRequests(random),
    actions,
  };
}

/** What an operator orders, and a change of the leader that should not undo it. */
function orderAndChange(random: Random): HostsAction[] {
  const atMs = ACTIONS_BEGIN_MS + random.below(ACTIONS_END_MS - ACTIONS_BEGIN_MS);
  const changeMs = atMs + 2_000 + random.below(6_000);
  const number = random.below(100);
  const orders: HostsAction[] = [
    { atMs, type: "add" },
    { atMs, type: "remove", instance: number },
    { atMs, type: "drain", instance: number },
    { atMs, type: "drain_host", host: number, atOnce: null },
  ];
  const changes: HostsAction[] = [
    { atMs: changeMs, type: "kill_leader" },
    { atMs: changeMs, type: "change_leader" },
    { atMs: changeMs, type: "cut_leader", forMs: 3_000 },
  ];
  return [orders[random.below(orders.length)], changes[random.below(changes.length)]];
}

function randomAction(random: Random): HostsAction {
  const atMs = ACTIONS_BEGIN_MS + random.below(ACTIONS_END_MS - ACTIONS_BEGIN_MS);
  const host = random.below(100), instance = random.below(100);
  const forMs = Math.min(FAULTS_END_MS - atMs, 50 + Math.floor(random.uniform() ** 2 * 20_000));
  switch (random.below(19)) {
    case 0:
    case 1:
      return { atMs, type: "crash_instance", instance };
    case 2:
      return { atMs, type: "crash_agent", host, forMs };
    case 3:
      return { atMs, type: "reset_agent", host };
    case 4:
      return { atMs, type: "lose_host", host, forMs };
    case 5:
      return { atMs, type: "lose_host", host, forMs: Infinity };
    case 6:
      return { atMs, type: "cut_host", host, forMs };
    case 7:
      return { atMs, type: "stop_host", host, forMs };
    case 8:
    case 9:
      return { atMs: random.below(2) === 0 ? 0 : atMs, type: "lose_answer", instance };
    case 10:
      return { atMs, type: "kill_leader_at_start", instance };
    case 11:
    case 12:
      return { atMs, type: "kill_leader" };
    case 13:
      return { atMs, type: "change_leader" };
    case 14:
      return { atMs, type: "cut_leader", forMs };
    case 15:
      return { atMs, type: "add" };
    case 16:
      return { atMs, type: random.below(2) === 0 ? "remove" : "drain", instance };
    case 17:
      return { atMs, type: "drain_host", host, atOnce: random.below(2) === 0 ? 1 : null };
    default:
      return { atMs, type: "keep_host", host };
  }
}

function randomRequests(random: Random): ScenarioRequest[] {
  const count = 10 + random.below(30);
  return Array.from({ length: count }, (): ScenarioRequest => ({
    atMs: 2_000 + random.below(REQUESTS_END_MS - 2_000),
    client: random.below(2),
    promptTokenIds: Array.from(
      { length: 1 + random.below(20) },
      () => random.below(PAGED_VOCAB_SIZE),
    ),
    params: {
      ...samplingDefaults,
      maxTokens: 1 + random.below(60),
      temperature: 0,
      seed: random.below(POISON_SEED),
      eosTokenIds: [],
    },
    priority: "normal",
    isPoison: false,
    abortAtMs: null,
  }));
}

/** What the instances and clients of the fuzzer's simulation want to know. */
export function engineScenario({ seed, meanDelayMs, repeatChance }: HostsScenario): Scenario {
  return {
    seed,
    numClients: 2,
    manager: {
      initialInstances: 0,
      loadMetric: "remaining_steps",
      dispatchPolicy: "load",
      numDispatchInstances: null,
      priorityHeadroomBlocks: null,
      pollingInterval: 0.1,
      disableLogRequestsManager: false,
    },
    migration: {
      enableMigration: true,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: "defrag_constrained",
      migrateOutThreshold: 3,
      requestMigrationPolicy: "SR",
      enableDefrag: true,
      enablePdDisagg: false,
    },
    scaling: {
      enableScaling: false,
      minInstances: 1,
      maxInstances: 8,
      scalingInterval: 1,
      scalingPolicy: "avg_load",
      scaleUpThreshold: 10,
      scaleDownThreshold: 60,
    },
    transfer: {
      migrationBufferBlocks: 8,
      migrationNumLayers: 1,
      lastStageMaxBlocks: 2,
      maxStages: 8,
      migrationCrossover: "0",
    },
    timeouts: { instanceMs: 4_000, drainMs: 5_000, stepMs: 5_000 },
    group: null,
    poisonSteps: "crash",
    network: { meanDelayMs, keepAliveMs: 3_000, repeatChance, overtakeChance: 0 },
    maxClockSkewMs: 0,
    requests: [],
    actions: [],
    engine: {
      maxNumSeqs: 8,
      schedulerDelayFactor: 0,
      preemptionMode: "recompute",
      blockSize: 4,
      numBlocks: 100,
      numSwapBlocks: 0,
      maxModelLen: 100,
      stepMs: 20,
    },
  };
}
