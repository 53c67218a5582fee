/** Makes the report of `llumnix doctor --cluster`. What does not answer is a line of it, not an error. */
import type { Bus, Peer } from "../../../bus/bus.ts";
import type { LeaderRecord } from "../../../cluster/leadership/leader_record.ts";
import type { LeaseStore } from "../../../cluster/store/lease_store.ts";
import type { Clock } from "../../../core/clock.ts";
import { LlumnixError } from "../../../core/errors.ts";
import type { ClusterReport, InstanceAddress } from "../../../core/protocol/examination.ts";
import { fullVersion } from "../../../core/version.ts";
import type { Step } from "../examine.ts";
import { examineAddresses, MAX_ADDRESSES, type Target } from "./addresses.ts";
import { hostReports } from "./hosts.ts";
import { type Beats, type Managers, readManagers, watchBeats } from "./leader.ts";
import { choosePaths, measurePaths, numPaths } from "./paths.ts";
import type {
  AddressReport,
  ClusterDoctorReport,
  CrossoverReport,
  LeaderReport,
  PathReport,
} from "./report.ts";
import { examineStore } from "./store.ts";
import { problemsOf, warningsOf } from "./verdict.ts";

/** Limit of the connection to the leader; a busy host may take seconds. */
const CONNECT_TIMEOUT_MS = 5_000;
/** The leader waits for its agents two seconds for each of five questions. */
const CLUSTER_TIMEOUT_MS = 12_000;

export interface ClusterExamination {
  /** `--cluster`. */
  readonly url: string;
  readonly store: LeaseStore;
  /** With the cluster's key. */
  readonly bus: Bus;
  readonly clock: Clock;
  /** `--prefill-tokens-per-second`; null: as instances have measured it. */
  readonly prefillTokensPerSecond: number | null;
  readonly step: Step;
}

/**
 * Examines a cluster. Takes about three seconds, and half a second for each path; minutes if hardly anything
 * answers.
 */
export async function examineCluster(
  { url, store, bus, clock, prefillTokensPerSecond, step }: ClusterExamination,
): Promise<ClusterDoctorReport> {
  const startMs = clock.nowMs();
  const storeReport = await step("asking the lease store", () => examineStore(store));
  const managers = await managersIn(store);
  const watching = watchBeats(store, managers, clock);
  await using leader = await Leader.open(bus, managers.record);
  const cluster = await step("asking the leader", () => leader.examineCluster());
  const { targets, numOmitted } = targetsOf(managers, cluster);
  const addresses = await step(
    `connecting to ${targets.length} addresses`,
    () => examineAddresses(bus, targets),
  );
  const present = cluster?.hosts.filter(({ process }) => process !== null) ?? [];
  const names = present.map(({ host }) => host);
  const paths = leader.peer === null
    ? []
    : await measurePaths(leader.peer, choosePaths(names), clock, step);
  const beats = await step("watching the leader's record", () => watching);
  const ended = addresses.filter((one) => isEnded(one, managers, beats));
  const facts = {
    schema: 1,
    version: fullVersion(),
    cluster: url,
    tookMs: Math.round(clock.nowMs() - startMs),
    store: storeReport,
    leader: leaderReport(managers, beats, leader.failure, addresses),
    settings: cluster?.settings ??
      addresses.map(({ process }) => process?.settings).find((one) => one !== undefined) ?? null,
    hosts: hostReports(cluster, addresses),
    addresses: addresses.filter((one) => !ended.includes(one)),
    endedManagers: ended.map(({ address }) => address),
    numAddressesOmitted: numOmitted + (cluster?.numInstancesOmitted ?? 0),
    refusals: cluster?.refusals ?? [],
    paths,
    numPathsOmitted: numPaths(names.length + (cluster?.numHostsOmitted ?? 0)) - paths.length,
    crossover: crossoverOf(paths, addresses, prefillTokensPerSecond),
  } as const;
  const isStoreAway = storeReport.failure !== null; // that says it all
  const managerProblem = managers.problem === null || isStoreAway ? [] : [managers.problem];
  return {
    ...facts,
    problems: [...managerProblem, ...problemsOf(facts)],
    warnings: warningsOf(facts),
  };
}

/** What the store says of managers; null as far as it says nothing. */
interface FoundManagers extends Managers {
  /** What is wrong with the leader's record; null: nothing. */
  readonly problem: string | null;
  readonly isRead: boolean;
}

async function managersIn(store: LeaseStore): Promise<FoundManagers> {
  try {
    return { ...await readManagers(store), problem: null, isRead: true };
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    return { record: null, candidates: [], problem: error.message, isRead: false };
  }
}

/** The manager that leads, as long as it does. */
class Leader implements AsyncDisposable {
  private constructor(
    /** Null: there is none, or it is out of reach. */
    readonly peer: Peer | null,
    public failure: string | null,
  ) {}

  static async open(bus: Bus, record: LeaderRecord | null): Promise<Leader> {
    if (record === null || record.leader === "") return new Leader(null, null);
    try {
      const options = { timeoutMs: CONNECT_TIMEOUT_MS };
      return new Leader(await bus.connect(record.address, {}, options), null);
    } catch (error) {
      if (!(error instanceof LlumnixError)) throw error;
      return new Leader(null, error.message);
    }
  }

  async examineCluster(): Promise<ClusterReport | null> {
    if (this.peer === null) return null;
    try {
      const options = { timeoutMs: CLUSTER_TIMEOUT_MS };
      return (await this.peer.call("examine_cluster", { data: null }, options)).data;
    } catch (error) {
      if (!(error instanceof LlumnixError)) throw error;
      this.failure = error.message;
      return null;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.peer?.close();
  }
}

/** Managers first, then instances, spread over the hosts where there are too many. */
function targetsOf(
  { record, candidates }: Managers,
  cluster: ClusterReport | null,
): { readonly targets: Target[]; readonly numOmitted: number } {
  const managers: Target[] = candidates.map(({ address }) => ({
    ...{ who: "manager", host: null, address },
  }));
  if (record !== null && record.leader !== "") {
    managers.unshift({ who: "leader", host: null, address: record.address });
  }
  const instances = spread(cluster?.instances ?? []).map(({ instanceId, address, hostName }) => ({
    ...{ who: instanceId, host: hostName ?? null, address },
  }));
  const all = [...managers, ...instances];
  return {
    targets: all.slice(0, MAX_ADDRESSES),
    numOmitted: Math.max(0, all.length - MAX_ADDRESSES),
  };
}

/** The first of each host, then the second of each, and so on. */
function spread(instances: readonly InstanceAddress[]): InstanceAddress[] {
  const seen = new Map<string, number>();
  const ranked = instances.map((instance) => {
    const host = instance.hostName ?? instance.instanceId;
    const rank = seen.get(host) ?? 0;
    seen.set(host, rank + 1);
    return { instance, rank };
  });
  return ranked.sort((a, b) => a.rank - b.rank).map(({ instance }) => instance);
}

function leaderReport(
  { record, isRead }: FoundManagers,
  { beatMs, watchedMs, isLong, successor }: Beats,
  failure: string | null,
  addresses: readonly AddressReport[],
): LeaderReport {
  const none = { epoch: null, process: null, address: null, leaseMs: null };
  const hasChanged = successor !== null;
  const common = { beatMs, hasChanged, watchedMs: Math.round(watchedMs), failure };
  if (record === null) return { state: isRead ? "none" : "unknown", ...none, ...common };
  const { epoch, leaseMs, leader, address } = record;
  const said = { ...none, ...common, epoch, leaseMs };
  if (leader === "") return { ...said, state: "resigned" };
  const there = addresses.find(({ who }) => who === "leader")?.process;
  const isOther = there != null && there.process !== leader;
  return {
    ...said,
    state: beatMs !== null ? "leads" : isLong ? "silent" : "unknown",
    process: leader,
    address,
    failure: isOther
      ? `the process at its address is ${there.process}, and the record names ${leader}`
      : failure,
  };
}

/** A manager's entry stays in the store for a while after its process has been killed. */
function isEnded(
  { who, address, process }: AddressReport,
  { candidates }: Managers,
  { silent }: Beats,
): boolean {
  if (who !== "manager" || process !== null || silent === null) return false;
  return candidates.some((one) => one.address === address && silent.has(one.id));
}

function crossoverOf(
  paths: readonly PathReport[],
  addresses: readonly AddressReport[],
  given: number | null,
): CrossoverReport | null {
  const measured = paths.flatMap(({ from, to, speed }) =>
    speed === null ? [] : [{ from, to, speed }]
  );
  const costs = addresses.flatMap(({ process }) => process?.cost ?? []);
  if (measured.length === 0 || costs.length === 0) return null;
  const { from, to, speed } = measured.reduce((slowest, one) =>
    one.speed.bytesPerSecond < slowest.speed.bytesPerSecond ? one : slowest
  );
  const rates = costs.flatMap(({ prefillTokensPerSecond }) => prefillTokensPerSecond ?? []);
  const prefill = given ?? (rates.length === 0 ? null : Math.max(...rates));
  const { bytesPerToken } = costs[0];
  const moved = speed.bytesPerSecond / bytesPerToken;
  return {
    ...{ from, to, bytesPerToken },
    movedTokensPerSecond: Math.round(moved),
    prefillTokensPerSecond: prefill === null ? null : Math.round(prefill),
    faster: prefill === null ? null : moved > prefill ? "move" : "recompute",
  };
}
