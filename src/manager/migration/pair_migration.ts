import type {
  LoadedCandidate,
  MigrationCandidate,
  MigrationPair,
  PairContext,
  PairMigrationPolicy,
} from "./policy.ts";
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { LoadMetricName } from "../../core/options.ts";
import { migrationLoad } from "../load/load_metric.ts";
import type { LoadState } from "../load/load_state.ts";
import { thresholdLoad } from "../load/thresholds.ts";
import { balanced } from "./policies/balanced.ts";
import { defragConstrained } from "./policies/defrag_constrained.ts";
import { defragRelaxed } from "./policies/defrag_relaxed.ts";
import { isAbout } from "./policies/near.ts";
import { roomBlocks } from "./policies/room.ts";
import { waitingFirst } from "./policies/waiting_first.ts";

export type PairMigrationPolicyName =
  | "balanced"
  | "defrag_constrained"
  | "defrag_relaxed"
  | "waiting_first";

export interface PairMigrationOptions {
  readonly loadMetric: LoadMetricName;
  readonly pairMigrationPolicy: PairMigrationPolicyName;
  readonly enableDefrag: boolean;
  /** As the user writes it: positive (`src/manager/load/thresholds.ts`). */
  readonly migrateOutThreshold: number;
  readonly enablePdDisagg: boolean;
}

/** One line per policy. */
const policies: Readonly<Record<PairMigrationPolicyName, PairMigrationPolicy>> = {
  balanced,
  defrag_constrained: defragConstrained,
  defrag_relaxed: defragRelaxed,
  waiting_first: waitingFirst,
};

/** The policy in force: without `--enable-defrag` it is always `balanced`. */
export function pairPolicyInForce(
  options: Pick<PairMigrationOptions, "pairMigrationPolicy" | "enableDefrag">,
): PairMigrationPolicyName {
  return options.enableDefrag ? options.pairMigrationPolicy : "balanced";
}

/** Which instances one round of pairing pairs. */
interface Round {
  isSource(candidate: LoadedCandidate): boolean;
  isDestination(candidate: LoadedCandidate): boolean;
  keeps(source: LoadedCandidate, destination: LoadedCandidate): boolean;
}

/**
 * Which instances exchange requests now (src/manager/README.md, "Pair migration"). Sources, sorted by
 * descending load, and destinations, sorted by ascending load, are paired by rank; among equal loads
 * the earlier candidate comes first in both. No instance is in two pairs, of the same round or of
 * different ones: the earlier pair stands.
 */
export function pairMigrations(
  candidates: readonly MigrationCandidate[],
  options: PairMigrationOptions,
): MigrationPair[] {
  const { loadMetric, enableDefrag, migrateOutThreshold, enablePdDisagg } = options;
  const loadOf = (state: LoadState) => migrationLoad(loadMetric, state, enableDefrag);
  const context: PairContext = {
    thresholdLoad: thresholdLoad(loadMetric, migrateOutThreshold),
    loadOf,
    roomOf: (state) => roomBlocks(state, loadMetric, migrateOutThreshold),
  };
  const policy = policies[pairPolicyInForce(options)];
  const loaded: LoadedCandidate[] = [];
  for (const candidate of candidates) {
    if (!candidate.isBackendReady || candidate.isMigrating) continue;
    loaded.push({ ...candidate, load: loadOf(candidate.state) });
  }

  const busy = new Set<InstanceId>();
  const pairs: MigrationPair[] = [];
  const add = (more: readonly MigrationPair[]) => {
    pairs.push(...more);
    for (const { source, destination } of more) busy.add(source).add(destination);
  };
  let others = loaded;
  if (enablePdDisagg) {
    add(pairByRank(loaded, prefillToDecode));
    others = loaded.filter(({ instanceId, instanceType }) =>
      !busy.has(instanceId) && instanceType === "decode"
    );
  }
  if (policy.pairBeforeLoad) {
    add(policy.pairBeforeLoad(others, context));
    others = others.filter(({ instanceId }) => !busy.has(instanceId));
  }
  add(pairByRank(others, loadRound(policy, context)));
  return pairs;
}

function loadRound(policy: PairMigrationPolicy, context: PairContext): Round {
  return {
    isSource: (candidate) => policy.isSource(asSource(candidate, context), context),
    isDestination: ({ load, killedRequests, isHostDrained }) =>
      killedRequests === 0 && !isHostDrained && load < context.thresholdLoad,
    keeps: (source, destination) => policy.keeps(source, destination, context),
  };
}

/**
 * Headroom is there to make normal requests move away. If only high-priority requests run, none should
 * move: it would take the headroom along, overload its destination, and move on from there.
 */
function asSource(candidate: LoadedCandidate, { loadOf }: PairContext): LoadedCandidate {
  const { state } = candidate;
  const hasOthers = state.runningHighPriorityRequests < state.runningRequests;
  if (state.headroomBlocks === 0 || hasOthers) return candidate;
  return { ...candidate, load: loadOf({ ...state, headroomBlocks: 0 }) };
}

/**
 * Requests on prefill instances can only go on elsewhere, so that no balance condition may hold them
 * back. A draining decode instance takes none.
 */
const prefillToDecode: Round = {
  isSource: ({ instanceType }) => instanceType === "prefill",
  isDestination: ({ instanceType, killedRequests, state, isHostDrained }) =>
    instanceType === "decode" && killedRequests === 0 && !state.isDraining && !isHostDrained,
  keeps: () => true,
};

function pairByRank(candidates: readonly LoadedCandidate[], round: Round): MigrationPair[] {
  const sources = candidates.filter(round.isSource).sort((a, b) => compareLoads(b.load, a.load));
  if (sources.length === 0) return []; // the usual case
  const destinations = candidates.filter(round.isDestination)
    .sort((a, b) => compareLoads(a.load, b.load));
  const busy = new Set<InstanceId>();
  const pairs: MigrationPair[] = [];
  for (let rank = 0; rank < Math.min(sources.length, destinations.length); rank++) {
    const source = sources[rank];
    bringNearer(source, destinations, rank, (one) => one !== source && !busy.has(one.instanceId));
    const destination = destinations[rank];
    const ids = [source.instanceId, destination.instanceId];
    if (source === destination || ids.some((id) => busy.has(id))) continue;
    if (!round.keeps(source, destination)) continue;
    for (const id of ids) busy.add(id);
    pairs.push({ source: source.instanceId, destination: destination.instanceId });
  }
  return pairs;
}

/**
 * Exchanges the destination of this rank for one on the source's host, if a later one has about the same
 * load: a path within a host is faster than one between hosts.
 */
function bringNearer(
  { hostName }: LoadedCandidate,
  destinations: LoadedCandidate[],
  rank: number,
  isFree: (destination: LoadedCandidate) => boolean,
): void {
  const { load, hostName: otherHost } = destinations[rank];
  if (hostName === null || hostName === otherHost) return;
  for (let i = rank + 1; i < destinations.length; i++) {
    if (!isAbout(destinations[i].load, load)) return;
    if (destinations[i].hostName !== hostName || !isFree(destinations[i])) continue;
    destinations.splice(rank, 0, ...destinations.splice(i, 1));
    return;
  }
}

/** Equal infinities are equal; their difference is not a number. */
function compareLoads(a: number, b: number): number {
  return a === b ? 0 : a - b;
}
