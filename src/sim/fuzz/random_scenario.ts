import { Random } from "../../core/random.ts";
import { samplingDefaults } from "../../core/sampling.ts";
import { PAGED_VOCAB_SIZE } from "./paged_model.ts";
import {
  type Link,
  type Scenario,
  type ScenarioAction,
  type ScenarioEngine,
  type ScenarioRequest,
  TRANSFER_ROUND,
} from "./scenario.ts";
import { POISON_SEED } from "./timed_model.ts";

/** Requests and actions begin within this time. */
const BUSY_MS = 1_500;
const LINKS: readonly Link[] = [
  "instances",
  "manager_instance",
  "client_instance",
  "client_manager",
];
const BREAKABLE_METHODS = [
  "generate",
  "dispatch",
  "register",
  "migrate_out",
  "migrate_in",
  "migrate_reserve",
  "migrate_commit",
  "migrate_commit",
  "migrate_settle",
  TRANSFER_ROUND,
  TRANSFER_ROUND,
];

/** Draws from one stream of random numbers. */
class Draw {
  constructor(readonly random: Random) {}

  /** Integer from `low` to `high`, both included. */
  between(low: number, high: number): number {
    return low + this.random.below(high - low + 1);
  }

  pick<T>(values: readonly T[]): T {
    return values[this.random.below(values.length)];
  }

  chance(probability: number): boolean {
    return this.random.uniform() < probability;
  }
}

/** Share of the seeds with prefill and decode instances, if there are enough instances. */
const DISAGGREGATED_SHARE = 0.4;

/** Share of the seeds with hanging steps, and of the seeds with poison requests whose steps hang. */
const HANGING_SHARE = 0.2;

/** Share of the seeds whose migration backend needs a group. */
const GROUPED_SHARE = 0.35;
/** Share of the seeds in which some requests are recomputed in place of moved. */
const CROSSOVER_SHARE = 0.25;
/** Call by which the manager invites instances to a group. */
const JOIN_METHOD = "migration_group";

/** Later additions draw from streams of their own, so that other seeds keep their scenarios. */
export function randomScenario(seed: number): Scenario {
  const uniform = randomUniformScenario(seed);
  const disaggregated = withDisaggregation(uniform, new Draw(new Random(seed + 2 ** 41)));
  const hanging = withHangingSteps(disaggregated, new Draw(new Random(seed + 2 ** 42)));
  const grouped = withGroup(hanging, new Draw(new Random(seed + 2 ** 43)));
  return withCrossover(grouped, new Draw(new Random(seed + 2 ** 44)));
}

/** Moves that leave the KV cache behind, in a share of the seeds. */
function withCrossover(scenario: Scenario, draw: Draw): Scenario {
  if (!draw.chance(CROSSOVER_SHARE)) return scenario;
  const migrationCrossover = draw.pick(["auto", "8", "20", "1000"]);
  return { ...scenario, transfer: { ...scenario.transfer, migrationCrossover } };
}

function withGroup(scenario: Scenario, draw: Draw): Scenario {
  if (!draw.chance(GROUPED_SHARE)) return scenario;
  const count = draw.pick([0, 0, 1, 2]);
  const faults = Array.from({ length: count }, (): ScenarioAction => {
    const atMs = draw.random.uniform() * BUSY_MS;
    const type = draw.pick(["crash_after", "break_after", "cut_after"] as const);
    const what = { atMs, method: JOIN_METHOD, count: draw.between(1, 4) };
    if (type !== "cut_after") return { ...what, type };
    const direction = draw.pick(["both", "forth", "back"] as const);
    return { ...what, type, direction, forMs: draw.pick([50, 500, 5_000]) };
  });
  return {
    ...scenario,
    group: {
      initTimeoutMs: draw.pick([300, 2_000]),
      slowShare: draw.pick([0, 0.2]),
      failedShare: draw.pick([0, 0.2]),
    },
    actions: byTime([...scenario.actions, ...faults]),
  };
}

function withHangingSteps(scenario: Scenario, draw: Draw): Scenario {
  const isPoisonHang = draw.chance(HANGING_SHARE);
  const count = draw.chance(HANGING_SHARE) ? draw.between(1, 2) : 0;
  const hangs = Array.from({ length: count }, (): ScenarioAction => {
    const atMs = draw.random.uniform() * BUSY_MS;
    return { atMs, type: "hang_step", instance: draw.random.below(100) };
  });
  return {
    ...scenario,
    timeouts: { ...scenario.timeouts, stepMs: draw.pick([1_500, 5_000]) },
    poisonSteps: isPoisonHang ? "hang" : scenario.poisonSteps,
    actions: byTime([...scenario.actions, ...hangs]),
  };
}

function byTime(actions: ScenarioAction[]): readonly ScenarioAction[] {
  return actions.sort((a, b) => a.atMs - b.atMs);
}

function withDisaggregation(scenario: Scenario, draw: Draw): Scenario {
  const isDisaggregated = draw.chance(DISAGGREGATED_SHARE);
  const { initialInstances } = scenario.manager;
  if (!isDisaggregated || initialInstances < 2) return scenario;
  const numDispatchInstances = draw.between(1, initialInstances - 1);
  return {
    ...scenario,
    manager: { ...scenario.manager, numDispatchInstances },
    migration: { ...scenario.migration, enableMigration: true, enablePdDisagg: true },
  };
}

/** Without prefill and decode instances. */
function randomUniformScenario(seed: number): Scenario {
  const draw = new Draw(new Random(seed));
  const numInstances = draw.pick([1, 2, 2, 3, 3, 4]);
  const numClients = draw.between(1, 2);
  const engine = randomEngine(draw);
  const enableMigration = draw.chance(0.9);
  return {
    seed,
    numClients,
    manager: {
      initialInstances: numInstances,
      loadMetric: draw.pick(["remaining_steps", "usage_ratio", "virtual_usage"]),
      dispatchPolicy: draw.pick(["balanced", "load", "queue", "rr"]),
      numDispatchInstances: draw.chance(0.2) ? draw.between(1, numInstances) : null,
      priorityHeadroomBlocks: draw.chance(0.5) ? draw.between(0, 10) : null,
      pollingInterval: draw.pick([0.03, 0.1]),
      disableLogRequestsManager: false,
    },
    migration: {
      enableMigration,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: draw.pick([
        "balanced",
        "defrag_constrained",
        "defrag_relaxed",
        "defrag_relaxed",
        "waiting_first",
        "waiting_first",
      ]),
      migrateOutThreshold: draw.pick([1, 10, 100, 1000]),
      requestMigrationPolicy: draw.pick(["LCR", "SR", "LR", "FCW", "FCWSR", "FIT", "FIT"]),
      enableDefrag: draw.chance(0.85),
      enablePdDisagg: false,
    },
    scaling: {
      enableScaling: draw.chance(0.2),
      minInstances: 1,
      maxInstances: 5,
      scalingInterval: draw.pick([0.1, 0.5]),
      scalingPolicy: draw.pick(["max_load", "avg_load"]),
      // Steps, or a fraction with usage_ratio: thresholds that are often exceeded.
      scaleUpThreshold: draw.pick([0.5, 10]),
      scaleDownThreshold: draw.pick([0.8, 60]),
    },
    transfer: {
      migrationBufferBlocks: draw.between(1, 8),
      migrationNumLayers: draw.between(1, 2),
      lastStageMaxBlocks: draw.between(1, 4),
      maxStages: draw.between(1, 8),
      migrationCrossover: "0",
    },
    timeouts: {
      instanceMs: draw.pick([1_000, 4_000, 10_000]),
      drainMs: draw.pick([0, 200, 2_000, 30_000]),
      stepMs: 5_000,
    },
    group: null,
    poisonSteps: draw.pick(["crash", "throw"]),
    network: {
      meanDelayMs: draw.pick([0.2, 1, 5, 20]),
      keepAliveMs: draw.pick([300, 3_000]),
      repeatChance: draw.pick([0, 0, 0, 0.1]),
      overtakeChance: draw.pick([0, 0, 0, 0.1]),
    },
    maxClockSkewMs: draw.pick([0, 0, 50]),
    requests: randomRequests(draw, engine, numClients),
    actions: randomActions(draw),
    // Drawn last, so that seeds from before prompts were cut keep all else.
    engine: {
      ...engine,
      maxPieceTokens: draw.pick([undefined, undefined, 8, 16]),
      runsAhead: draw.pick([false, true]),
    },
  };
}

function randomEngine(draw: Draw): ScenarioEngine {
  const blockSize = draw.pick([1, 4, 4, 8]);
  const poolTokens = draw.pick([draw.between(40, 120), draw.between(120, 400)]);
  return {
    maxNumSeqs: draw.between(2, 10),
    schedulerDelayFactor: draw.chance(0.2) ? 0.5 : 0,
    preemptionMode: draw.pick(["recompute", "swap"]),
    blockSize,
    numBlocks: Math.ceil(poolTokens / blockSize),
    numSwapBlocks: draw.chance(0.5) ? Math.ceil(poolTokens / blockSize) : 0,
    maxModelLen: draw.between(50, 100),
    stepMs: draw.pick([2, 10, 30]),
  };
}

function randomRequests(
  draw: Draw,
  engine: ScenarioEngine,
  numClients: number,
): readonly ScenarioRequest[] {
  const count = draw.between(4, 24);
  const abortShare = draw.pick([0, 0.1, 0.4]);
  const poisonShare = draw.pick([0, 0, 0, 0, 0.05]);
  const spreadMs = draw.pick([10, BUSY_MS / 3, BUSY_MS]);
  const requests: ScenarioRequest[] = [];
  for (let i = 0; i < count; i++) {
    const atMs = draw.random.uniform() * spreadMs;
    const promptTokens = draw.chance(0.05)
      ? draw.between(1, engine.maxModelLen + 2)
      : draw.between(1, 24);
    const isPoison = draw.chance(poisonShare);
    const endTokens = draw.chance(0.3) ? [draw.random.below(PAGED_VOCAB_SIZE)] : [];
    requests.push({
      atMs,
      client: draw.random.below(numClients),
      promptTokenIds: Array.from(
        { length: promptTokens },
        () => draw.random.below(PAGED_VOCAB_SIZE),
      ),
      params: {
        ...samplingDefaults,
        maxTokens: draw.chance(0.1) ? draw.between(1, 2) : draw.between(1, 24),
        temperature: 0,
        seed: isPoison ? POISON_SEED : draw.random.below(POISON_SEED),
        stopTokenIds: draw.chance(0.5) ? endTokens : [],
        eosTokenIds: endTokens,
        ignoreEos: draw.chance(0.2),
      },
      isPoison,
      priority: draw.chance(0.2) ? "high" : "normal",
      abortAtMs: draw.chance(abortShare)
        ? atMs + draw.pick([0, draw.random.uniform() * 20, draw.random.uniform() * 500])
        : null,
    });
  }
  return requests.sort((a, b) => a.atMs - b.atMs);
}

function randomActions(draw: Draw): readonly ScenarioAction[] {
  const count = draw.pick([0, 0, 1, 1, 2, 3, 6]);
  const actions = Array.from({ length: count }, () => randomAction(draw));
  return byTime(actions);
}

function randomAction(draw: Draw): ScenarioAction {
  const atMs = draw.random.uniform() * BUSY_MS;
  const instance = draw.random.below(100);
  const forMs = draw.pick([5, 50, 500, 2_000, 12_000]) * (0.5 + draw.random.uniform());
  const pair = {
    between: draw.pick(LINKS),
    first: draw.random.below(100),
    second: draw.random.below(100),
  };
  const direction = draw.pick(["both", "forth", "back"] as const);
  const method = draw.pick(BREAKABLE_METHODS), count = draw.between(1, 5);
  switch (draw.random.below(17)) {
    case 0:
    case 1:
      return { atMs, type: "crash", instance };
    case 2:
      return { atMs, type: "hang", instance, forMs };
    case 3:
      return { atMs, type: "slow", instance };
    case 4:
      return { atMs, type: "reset", instance };
    case 5:
      return { atMs, type: "restart_manager", forMs };
    case 6:
      return { atMs, type: "add" };
    case 7:
      return { atMs, type: "drain", instance };
    case 8:
      return { atMs, type: "terminate", instance };
    case 9:
      return { atMs, type: "crash_client", client: draw.random.below(100) };
    case 10:
      return { atMs, type: "slow_link", ...pair, factor: draw.pick([5, 50]) };
    case 11:
      return { atMs, type: "partition", ...pair, direction, forMs };
    case 12:
    case 13:
      return { atMs, type: "cut_after", method, count, direction, forMs };
    default:
      return { atMs, type: "break_after", method, count };
  }
}
