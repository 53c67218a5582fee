import type { InstanceId, InstanceType } from "../../core/messages.ts";
import type { LoadMetricName } from "../../core/options.ts";
import { migrationLoad } from "../load/load_metric.ts";
import type { LoadState } from "../load/load_state.ts";
import { thresholdLoad } from "../load/thresholds.ts";
import { balanced } from "./balanced.ts";
import { defragConstrained } from "./defrag_constrained.ts";
import { defragRelaxed } from "./defrag_relaxed.ts";

/** An instance that may take part in migration. */
export interface MigrationCandidate {
  readonly instanceId: InstanceId;
  readonly instanceType: InstanceType;
  readonly state: LoadState;
  readonly killedRequests: number;
  readonly lastRunningBlocks: number;
  /** Is the source or the destination of a migration now. */
  readonly isMigrating: boolean;
  /** Its migration backend is initialised (gloo and nccl need a group). */
  readonly isBackendReady: boolean;
}

/** A candidate and its migration load. */
export interface LoadedCandidate extends MigrationCandidate {
  readonly load: number;
}

/** Source and destination of one migration. */
export interface MigrationPair {
  readonly source: InstanceId;
  readonly destination: InstanceId;
}

export type PairMigrationPolicyName = "balanced" | "defrag_constrained" | "defrag_relaxed";

export interface PairMigrationOptions {
  readonly loadMetric: LoadMetricName;
  readonly pairMigrationPolicy: PairMigrationPolicyName;
  readonly enableDefrag: boolean;
  /** As written: positive (`src/manager/load/thresholds.ts`). */
  readonly migrateOutThreshold: number;
  readonly enablePdDisagg: boolean;
}

/** What a policy may ask: the load that counts as too much, and loads of other states. */
export interface PairContext {
  readonly thresholdLoad: number;
  loadOf(state: LoadState): number;
}

/** Which instances give, and which pairs of a giver and a taker are kept. */
export interface PairMigrationPolicy {
  isSource(candidate: LoadedCandidate, context: PairContext): boolean;
  keeps(source: LoadedCandidate, destination: LoadedCandidate, context: PairContext): boolean;
}

/** One line per policy. */
const policies: Readonly<Record<PairMigrationPolicyName, PairMigrationPolicy>> = {
  balanced,
  defrag_constrained: defragConstrained,
  defrag_relaxed: defragRelaxed,
};

/** The policy in force: without `--enable-defrag` it is `balanced`, whatever is asked for. */
export function pairPolicyInForce(
  options: Pick<PairMigrationOptions, "pairMigrationPolicy" | "enableDefrag">,
): PairMigrationPolicyName {
  return options.enableDefrag ? options.pairMigrationPolicy : "balanced";
}

/** One way for requests to go. */
interface Round {
  isSource(candidate: LoadedCandidate): boolean;
  isDestination(candidate: LoadedCandidate): boolean;
  keeps(source: LoadedCandidate, destination: LoadedCandidate): boolean;
}

/**
 * Which instances exchange requests now (behaviour page, section 3). Sources by descending and
 * destinations by ascending load are paired by rank; where loads are equal, the earlier candidate is
 * first in both. No instance is in two pairs, of one round or of several: the earlier pair stands.
 */
export function pairMigrations(
  candidates: readonly MigrationCandidate[],
  options: PairMigrationOptions,
): MigrationPair[] {
  const { loadMetric, enableDefrag, migrateOutThreshold } = options;
  const loadOf = (state: LoadState) => migrationLoad(loadMetric, state, enableDefrag);
  const context = { thresholdLoad: thresholdLoad(loadMetric, migrateOutThreshold), loadOf };
  const policy = policies[pairPolicyInForce(options)];
  const loaded = candidates
    .filter(({ isMigrating, isBackendReady }) => isBackendReady && !isMigrating)
    .map((candidate) => ({ ...candidate, load: loadOf(candidate.state) }));

  const byLoad = loadRound(policy, context);
  const rounds = options.enablePdDisagg ? [prefillToDecode, among("decode", byLoad)] : [byLoad];
  const busy = new Set<InstanceId>();
  return rounds.flatMap((round) => pairByRank(loaded, round, busy));
}

function loadRound(policy: PairMigrationPolicy, context: PairContext): Round {
  return {
    isSource: (candidate) => policy.isSource(candidate, context),
    isDestination: ({ load, killedRequests }) =>
      killedRequests === 0 && load < context.thresholdLoad,
    keeps: (source, destination) => policy.keeps(source, destination, context),
  };
}

/** A round of which only instances of one type take part. */
function among(type: InstanceType, round: Round): Round {
  return {
    isSource: (candidate) => candidate.instanceType === type && round.isSource(candidate),
    isDestination: (candidate) => candidate.instanceType === type && round.isDestination(candidate),
    keeps: round.keeps,
  };
}

/**
 * Requests leave the prefill instances because they can go on nowhere else, so that no condition of
 * balance may hold them back; only an instance that drains takes none.
 */
const prefillToDecode: Round = {
  isSource: ({ instanceType }) => instanceType === "prefill",
  isDestination: ({ instanceType, killedRequests, state }) =>
    instanceType === "decode" && killedRequests === 0 && !state.isDraining,
  keeps: () => true,
};

/** @param busy instances that are in a pair already; those of the new pairs are added */
function pairByRank(
  candidates: readonly LoadedCandidate[],
  round: Round,
  busy: Set<InstanceId>,
): MigrationPair[] {
  const free = candidates.filter(({ instanceId }) => !busy.has(instanceId));
  const sources = free.filter(round.isSource).sort((a, b) => compareLoads(b.load, a.load));
  const destinations = free.filter(round.isDestination)
    .sort((a, b) => compareLoads(a.load, b.load));
  const pairs: MigrationPair[] = [];
  for (let rank = 0; rank < Math.min(sources.length, destinations.length); rank++) {
    const source = sources[rank], destination = destinations[rank];
    const ids = [source.instanceId, destination.instanceId];
    if (source === destination || ids.some((id) => busy.has(id))) continue;
    if (!round.keeps(source, destination)) continue;
    for (const id of ids) busy.add(id);
    pairs.push({ source: source.instanceId, destination: destination.instanceId });
  }
  return pairs;
}

/** Equal infinities are equal; their difference is not a number. */
function compareLoads(a: number, b: number): number {
  return a === b ? 0 : a - b;
}
