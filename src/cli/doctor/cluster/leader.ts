/** What a lease store says of the managers of a cluster, and whether they still say so. */
import { DEFAULT_LEASE_MS } from "../../../cluster/leadership/candidate.ts";
import { CANDIDATES, readReport } from "../../../cluster/leadership/hearing.ts";
import {
  LEADER_KEY,
  type LeaderRecord,
  readLeaderRecord,
} from "../../../cluster/leadership/leader_record.ts";
import { type LeaseStore, namesOfKey } from "../../../cluster/store/lease_store.ts";
import { type Clock, sleep } from "../../../core/clock.ts";
import { LlumnixError } from "../../../core/errors.ts";

/** Of a longer lease it is not found out whether its leader is silent. */
const MAX_WATCH_MS = 6_000;
/** The leader changes its record five times in a lease, and candidates their reports once in 1.5 leases. */
const WATCH_LEASES = 2;
const READS_PER_LEASE = 10;
/** A cluster has far fewer. */
const MAX_CANDIDATES = 16;

/** The entries of managers. */
export interface Managers {
  /** Null: there is none. */
  readonly record: LeaderRecord | null;
  /** Other managers, at most 16. */
  readonly candidates: readonly CandidateEntry[];
}

export interface CandidateEntry {
  readonly id: string;
  readonly address: string;
  readonly beat: number;
}

/** How the entries changed while they were watched. */
export interface Beats {
  /** Until the record was seen to change; null: it was not. */
  readonly beatMs: number | null;
  readonly watchedMs: number;
  /** It was watched for longer than the lease. */
  readonly isLong: boolean;
  /** The manager that leads in the end, if that is another one. */
  readonly successor: LeaderRecord | null;
  /** Ids of candidates whose reports did not change; null: they were not watched for long enough. */
  readonly silent: ReadonlySet<string> | null;
}

/** @throws {LlumnixError} the store does not answer, or has something else at the leader's place */
export async function readManagers(store: LeaseStore): Promise<Managers> {
  const [entry, { entries }] = [await store.get(LEADER_KEY), await store.list(CANDIDATES)];
  const record = entry === null ? null : readLeaderRecord(entry);
  const candidates = entries.flatMap(({ key, value }) => {
    const report = readReport(value), id = namesOfKey(key)[1];
    if (report?.address === undefined || id === undefined || id === record?.leader) return [];
    return [{ id, address: report.address, beat: report.beat }];
  });
  return { record, candidates: candidates.slice(0, MAX_CANDIDATES) };
}

/** Watches for two leases, six seconds at most. Never rejects for what the store does: a read that fails is no beat. */
export async function watchBeats(
  store: LeaseStore,
  { record, candidates }: Managers,
  clock: Clock,
): Promise<Beats> {
  const leaseMs = record?.leaseMs ?? DEFAULT_LEASE_MS;
  const hasAny = record !== null || candidates.length > 0;
  const limitMs = hasAny ? Math.min(MAX_WATCH_MS, WATCH_LEASES * leaseMs) : 0;
  const startMs = clock.nowMs();
  const passedMs = () => clock.nowMs() - startMs;
  let beatMs: number | null = null;
  let last: Managers | null = null;
  while (passedMs() < limitMs) {
    await sleep(clock, Math.min(limitMs, leaseMs) / READS_PER_LEASE);
    last = await readManagers(store).catch(ofStore) ?? last;
    const isSame = last?.record?.beat === record?.beat && last?.record?.epoch === record?.epoch;
    if (beatMs === null && last !== null && !isSame) beatMs = passedMs();
  }
  const watchedMs = passedMs();
  const beatsOf = new Map(last?.candidates.map(({ id, beat }) => [id, beat]));
  const isLong = last !== null && watchedMs > leaseMs;
  const successor = last?.record && last.record.leader !== record?.leader ? last.record : null;
  return {
    ...{ beatMs, watchedMs, isLong, successor },
    silent: isLong && watchedMs >= WATCH_LEASES * leaseMs
      ? new Set(candidates.filter(({ id, beat }) => beatsOf.get(id) === beat).map(({ id }) => id))
      : null,
  };
}

function ofStore(error: unknown): null {
  if (error instanceof LlumnixError) return null;
  throw error;
}
