/** A process's place in a cluster of several managers (`--cluster`): it leads, follows, or finds the leader. */
import type { Address, Bus } from "../bus/bus.ts";
import { type Clock, realClock } from "../core/clock.ts";
import { parseAddress } from "../bus/address.ts";
import { UnavailableError, UsageError } from "../core/errors.ts";
import { isLoopback } from "../core/hosts.ts";
import type { ServedSettings } from "../core/protocol/membership.ts";
import type { LeaderFence } from "../core/leader_fence.ts";
import type { Log } from "../core/log.ts";
import type { LeadershipStatus } from "../core/protocol/leadership.ts";
import { MANAGER_WAIT_MS } from "../core/manager_wait.ts";
import { Audience } from "../cluster/leadership/audience.ts";
import { CALLS_PER_LEASE, Candidate, DEFAULT_LEASE_MS } from "../cluster/leadership/candidate.ts";
import type { ElectionChange } from "../cluster/leadership/election.ts";
import { hearingPeriodMs } from "../cluster/leadership/hearing.ts";
import { LeaderFinder } from "../cluster/leadership/leader_finder.ts";
import type { LeaderRecord } from "../cluster/leadership/leader_record.ts";
import {
  ManagerContacts,
  type ManagerContactsConfig,
} from "../cluster/leadership/manager_contacts.ts";
import type { LeaseStore } from "../cluster/store/lease_store.ts";
import { openLeaseStore, parseStoreUrl } from "../cluster/store/stores.ts";
import { clusterCredentials } from "./cluster_credentials.ts";

/** The lease store that processes of several hosts meet in, and how this one enters it. */
export interface ClusterOptions {
  /** `--cluster`: URL of the store; null: there is one manager, and no store. */
  readonly cluster?: string | null;
  /** `--cluster-credentials`: a file; null: the environment's, or none. */
  readonly clusterCredentials?: string | null;
  /** `--cluster-lease` in seconds: silence of a leader after which another manager takes over. */
  readonly clusterLease?: number;
}

/** The same where there is a store. */
export type ClusterPlace = ClusterOptions & { readonly cluster: string };

/** Null: there is no store. */
export function clusterPlace(options: ClusterOptions = {}): ClusterPlace | null {
  const { cluster } = options;
  return cluster ? { ...options, cluster } : null;
}

function leaseMsOf({ clusterLease }: ClusterOptions): number {
  return clusterLease === undefined ? DEFAULT_LEASE_MS : clusterLease * 1000;
}

/** The instances that a manager has heard lately. They call every manager. */
export function audienceOf(options: ClusterOptions, clock: Clock = realClock): Audience {
  return new Audience(clock, hearingPeriodMs(leaseMsOf(options)));
}

async function openStore(place: ClusterPlace): Promise<LeaseStore> {
  return await openLeaseStore(place.cluster, {
    timeoutMs: leaseMsOf(place) / CALLS_PER_LEASE,
    credentials: clusterCredentials(place.clusterCredentials ?? null),
  });
}

/** A candidate and its store. */
export interface Candidacy {
  readonly candidate: Candidate;
  /** See {@linkcode Candidate.close}. */
  resign(heir?: string): Promise<void>;
}

export interface CandidacyConfig {
  readonly place: ClusterPlace;
  /** Of this process alone. */
  readonly processId: string;
  /** Where this manager listens already. */
  readonly address: Address;
  readonly bus: Bus;
  readonly log: Log;
  readonly heard: () => number;
  readonly onChange: (change: ElectionChange) => void;
  /** What this manager serves; undefined: whatever its instances do. */
  readonly settings: ServedSettings | undefined;
  /** See {@linkcode CandidateConfig}. */
  readonly onStranger: (reason: string) => void;
}

/**
 * Stands for election.
 * @throws {UsageError} `--cluster` is no URL of a cluster, its credentials cannot be used, or other hosts
 *   cannot reach the address
 */
export async function stand(config: CandidacyConfig): Promise<Candidacy> {
  const { place, processId, address, bus, log, heard, onChange, settings, onStranger } = config;
  checkReach(place.cluster, address);
  warnOfLoopback(address, log);
  const store = await openStore(place);
  let leader = "";
  const candidate = new Candidate({
    store,
    clock: realClock,
    leaseMs: leaseMsOf(place),
    id: processId,
    address,
    bus,
    heard,
    settings,
    onStranger,
    onChange,
    onRecord: (record) => {
      if (record === null || record.leader === leader || record.leader === processId) return;
      leader = record.leader;
      showLeader(record, log);
    },
    onStoreProblem: (problem) => showProblem(problem, store, log),
  });
  return {
    candidate,
    async resign(heir) {
      await candidate.close(heir);
      await store.close();
    },
  };
}

/**
 * Managers of other hosts would take a leader at such an address for one that has ended.
 * @throws {UsageError} the store has a server on another host, and the address is of this host alone
 */
function checkReach(url: string, address: Address): void {
  const hosts = parseStoreUrl(url).servers.map((server) =>
    server.replace(/:\d+$/, "").replace(/^\[|\]$/g, "")
  );
  if (hosts.every(isLoopback)) return;
  const parsed = parseAddress(address);
  if (parsed.scheme === "tcp" && !isLoopback(parsed.host)) return;
  throw new UsageError(
    `--manager-address ${address}: managers, API servers and instances of other hosts cannot connect to ` +
      "it; with a store on another host, expected tcp:HOST:PORT with an address of this host that they reach",
  );
}

/** A manager on the host of the store may have reached the store by an address that other hosts do not know. */
function warnOfLoopback(address: Address, log: Log): void {
  const parsed = parseAddress(address);
  if (parsed.scheme !== "tcp" || !isLoopback(parsed.host)) return;
  log.warn(
    `others are told that this manager is at ${address}: processes of other hosts cannot connect to it, and ` +
      "their managers take over when it leads. For several hosts, give --cluster the store's address on the " +
      "network",
  );
}

/**
 * What a manager shows of the leader and of the store.
 * @param candidate null: the manager does not stand for election yet
 */
export function leadershipStatus(candidate: Candidate | null): LeadershipStatus {
  const { leadership = null, record = null, storeProblem = null } = candidate ?? {};
  return {
    isLeader: leadership !== null,
    epoch: leadership?.epoch ?? record?.epoch ?? 0,
    leader: record?.leader ?? "",
    address: record?.address ?? "",
    storeProblem: storeProblem?.message ?? null,
  };
}

/** A finder and its store. */
export interface FoundLeader extends AsyncDisposable {
  /** Where the leader serves, as far as is known. */
  readonly address: Address;
  /** Makes connections to every manager: see {@linkcode ManagerContacts}. */
  contacts(config: Pick<ManagerContactsConfig, "bus" | "call" | "onOpen">): ManagerContacts;
}

export interface LeaderSearch {
  readonly place: ClusterPlace;
  readonly fence: LeaderFence;
  readonly log: Log;
  /** Another manager leads, after the one that was found first. */
  readonly onMove: (address: Address) => void;
}

/**
 * Waits for a manager that leads, and follows its successors.
 * @throws {UsageError} `--cluster` is no URL of a cluster, or its credentials cannot be used
 * @throws {UnavailableError} no manager has led within a minute
 */
export async function findLeader(search: LeaderSearch): Promise<FoundLeader> {
  const { place, fence, log, onMove } = search;
  const store = await openStore(place);
  let isFound = false;
  const finder = new LeaderFinder({
    store,
    clock: realClock,
    leaseMs: leaseMsOf(place),
    fence,
    onMove: (address) => {
      if (!isFound) return;
      log.info(`another manager leads now, at ${address}`);
      onMove(address);
    },
    onStoreProblem: (problem) => showProblem(problem, store, log),
  });
  const late = Promise.withResolvers<null>();
  const cancel = realClock.after(MANAGER_WAIT_MS, () => late.resolve(null));
  const address = await Promise.race([finder.found, late.promise]);
  cancel();
  if (address !== null) {
    isFound = true;
    return {
      get address() {
        return finder.address!;
      },
      contacts: (config) =>
        new ManagerContacts({
          ...config,
          store,
          clock: realClock,
          periodMs: hearingPeriodMs(leaseMsOf(place)),
        }),
      async [Symbol.asyncDispose]() {
        finder.close();
        await store.close();
      },
    };
  }
  const why = finder.storeProblem?.message ?? "none stands for election";
  finder.close();
  await store.close();
  throw new UnavailableError(
    `no manager leads the cluster ${place.cluster} (${why}). Start one: llumnix manager --cluster ${place.cluster}`,
  );
}

function showLeader({ leader, address, epoch }: LeaderRecord, log: Log): void {
  if (leader !== "") log.info(`following ${leader} at ${address}, which leads in epoch ${epoch}`);
}

function showProblem(problem: Error | null, { name }: LeaseStore, log: Log): void {
  if (problem === null) log.info(`the lease store answers again: ${name}`);
  else log.warn(`cannot use the lease store, and go on without it: ${problem.message}`);
}
