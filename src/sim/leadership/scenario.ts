import { Random } from "../../core/random.ts";
import type { StoreFaults } from "../store/sim_store.ts";

/** A run of simulated managers, receivers and their store, as plain data. The same seed gives the same one. */
export interface LeadershipScenario {
  readonly seed: number;
  readonly numManagers: number;
  readonly numReceivers: number;
  readonly leaseMs: number;
  readonly meanDelayMs: number;
  /** Until the last fault ends. */
  readonly storeFaults: StoreFaults;
  /** What the checks may expect. */
  readonly kind: ScenarioKind;
  /** In the order of time. */
  readonly actions: readonly LeadershipAction[];
}

/**
 * `store_away`: nothing fails but the store, for all managers alike: no new epoch and no standstill.
 * `leader_killed`: the leader's process ends. `leader_cut`: the leader's host loses the network.
 * `instances_cut`: the leader loses most instances, and nothing else. `chaos`: anything; decisions stay in
 * order, and afterwards one manager leads.
 */
export type ScenarioKind =
  | "store_away"
  | "leader_killed"
  | "leader_cut"
  | "instances_cut"
  | "chaos";

/** A process: `leader` is the manager that leads when the action begins. */
export type Target = "leader" | "store" | `manager ${number}` | `receiver ${number}`;

export type LeadershipAction =
  & { readonly atMs: number }
  & (
    | { readonly type: "kill"; readonly target: Target; readonly forMs: number }
    | { readonly type: "pause"; readonly target: Target; readonly forMs: number }
    /** Nothing gets from one side to the other, and, unless it is one-way, back. */
    | {
      readonly type: "cut";
      readonly from: readonly Target[];
      readonly to: readonly Target[];
      readonly isOneWay: boolean;
      readonly forMs: number;
    }
    | { readonly type: "stop_store" | "silence_store"; readonly forMs: number }
    | { readonly type: "restore_store"; readonly agoMs: number }
    | { readonly type: "hang_watches" | "compact_store" }
    | { readonly type: "step_clock"; readonly target: Target; readonly byMs: number }
    /** A manager ends in order, and starts again. */
    | { readonly type: "close"; readonly target: Target; readonly forMs: number }
  );

/** When the first leader surely leads, and when nothing fails any more. */
export const FAULTS_BEGIN_MS = 3_000;
export const FAULTS_END_MS = 15_000;
/** The store, lease and connections have settled by then. */
export const END_MS = 30_000;

const LEASES_MS = [600, 1_500, 3_000];
/** By their share of the seeds. */
const KINDS: readonly ScenarioKind[] = [
  "store_away",
  "leader_killed",
  "leader_cut",
  "instances_cut",
  "chaos",
  "chaos",
  "chaos",
  "chaos",
];

export function randomLeadershipScenario(seed: number): LeadershipScenario {
  const random = new Random(seed);
  const kind = KINDS[random.below(KINDS.length)];
  const isChaos = kind === "chaos";
  const share = (max: number) => isChaos && random.below(3) === 0 ? random.uniform() * max : 0;
  const base = {
    seed,
    numManagers: 2 + random.below(3),
    numReceivers: 2 + random.below(4),
    leaseMs: LEASES_MS[random.below(LEASES_MS.length)],
    meanDelayMs: [0.5, 2, 20][random.below(3)],
    kind,
    storeFaults: {
      lostAnswers: share(0.3),
      skippedChanges: share(0.5),
      lateMessages: share(1),
      racingWrites: share(1),
    },
  };
  const makers: Record<ScenarioKind, () => LeadershipAction[]> = {
    store_away: () => [storeAway(random)],
    leader_killed: () => [{ atMs: 5_000, type: "kill", target: "leader", forMs: 8_000 }],
    leader_cut: () => [{ atMs: 5_000, ...cutOff(base), forMs: 8_000 }],
    instances_cut: () => [{ atMs: 5_000, ...withoutInstances(base), forMs: FAULTS_END_MS }],
    chaos: () =>
      Array.from({ length: 1 + random.below(7) }, () => anyAction(random, base))
        .sort((a, b) => a.atMs - b.atMs),
  };
  return { ...base, actions: makers[kind]() };
}

type Size = Pick<LeadershipScenario, "numManagers" | "numReceivers">;

const managers = ({ numManagers }: Size): Target[] =>
  Array.from({ length: numManagers }, (_, i) => `manager ${i}` as const);
const receivers = ({ numReceivers }: Size): Target[] =>
  Array.from({ length: numReceivers }, (_, i) => `receiver ${i}` as const);

function storeAway(random: Random): LeadershipAction {
  const forMs = 100 + random.below(9_000);
  return { atMs: 5_000, type: random.below(2) === 0 ? "stop_store" : "silence_store", forMs };
}

/** The leader's host loses the network. */
function cutOff(size: Size) {
  const to: Target[] = ["store", ...managers(size), ...receivers(size)];
  return { type: "cut", from: ["leader"], to, isOneWay: false } as const;
}

/** All instances but one; those that are left are fewer than a follower hears. */
function withoutInstances(size: Size) {
  return { type: "cut", from: ["leader"], to: receivers(size).slice(1), isOneWay: false } as const;
}

function anyAction(random: Random, size: Size): LeadershipAction {
  const atMs = FAULTS_BEGIN_MS + random.below(FAULTS_END_MS - FAULTS_BEGIN_MS - 3_000);
  const maxMs = FAULTS_END_MS - atMs;
  const forMs = Math.min(maxMs, 50 + Math.floor(random.uniform() ** 2 * 8_000));
  const manager = (): Target =>
    random.below(2) === 0 ? "leader" : `manager ${random.below(size.numManagers)}`;
  const target = manager();
  switch (random.below(12)) {
    case 0:
      return { atMs, type: "kill", target, forMs };
    case 1:
    case 2:
      return { atMs, type: "pause", target, forMs };
    case 3:
      return { atMs, type: "stop_store", forMs };
    case 4:
      return { atMs, type: "silence_store", forMs };
    case 5: {
      const agoMs = random.below(3) === 0 ? Infinity : random.below(4_000);
      return { atMs, type: "restore_store", agoMs };
    }
    case 6:
      return { atMs, type: random.below(2) === 0 ? "hang_watches" : "compact_store" };
    case 7:
      return { atMs, type: "step_clock", target, byMs: random.below(6_000) - 3_000 };
    case 8:
      return { atMs, type: "close", target, forMs };
    default:
      return { atMs, type: "cut", ...anyCut(random, size, target), forMs };
  }
}

/** Partitions of every shape. */
function anyCut(random: Random, size: Size, manager: Target) {
  const isOneWay = random.below(2) === 0;
  const some = (targets: readonly Target[]) => targets.filter(() => random.below(2) === 0);
  const flip = (from: readonly Target[], to: readonly Target[]) =>
    random.below(2) === 0 ? { from, to, isOneWay } : { from: to, to: from, isOneWay };
  switch (random.below(5)) {
    case 0: // a manager from the store
      return flip([manager], ["store"]);
    case 1: // the leader from the followers
      return flip(["leader"], managers(size));
    case 2: // instances from a manager, but not from the store
      return flip([manager], some(receivers(size)));
    case 3: // instances from the store
      return flip(some(receivers(size)), ["store"]);
    default: { // two halves of the hosts, the store on one side
      const all: Target[] = ["store", ...managers(size), ...receivers(size)];
      const half = some(all);
      return flip(half, all.filter((one) => !half.includes(one)));
    }
  }
}
