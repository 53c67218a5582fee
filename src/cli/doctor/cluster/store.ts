/** Whether a lease store does what a cluster needs, and how fast. */
import { LEADER_KEY } from "../../../cluster/leadership/leader_record.ts";
import { type LeaseStore, storeKey } from "../../../cluster/store/lease_store.ts";
import { LlumnixError, UnavailableError } from "../../../core/errors.ts";
import type { StoreReport } from "./report.ts";

/** Written and removed again. */
const PROBE_KEY = storeKey("doctor");
const READS = 5;
/** Another doctor may write at the same time. */
const WRITE_ATTEMPTS = 3;

/** Reads the leader's record, and writes and removes an entry of its own. Never rejects for what the store does. */
export async function examineStore(store: LeaseStore): Promise<StoreReport> {
  let readMs: number | null = null;
  let failure: string | null = null;
  try {
    readMs = Infinity;
    for (let i = 0; i < READS; i++) {
      readMs = Math.min(readMs, await timed(() => store.get(LEADER_KEY)));
    }
  } catch (error) {
    [readMs, failure] = [null, reasonOf(error)];
  }
  const unread = { server: null, place: null, writeMs: null, writeFailure: failure };
  if (failure !== null) return { name: store.name, readMs, failure, ...unread };
  // Some stores tell their version to few users only.
  const about = await store.describe().catch(() => ({ server: null, place: null }));
  try {
    const writeMs = await probe(store);
    return { name: store.name, ...about, readMs, writeMs, failure, writeFailure: null };
  } catch (error) {
    const writeFailure = reasonOf(error);
    return { name: store.name, ...about, readMs, writeMs: null, failure, writeFailure };
  }
}

/**
 * @returns the time of the faster of two writes
 * @throws {LlumnixError} the store cannot be written
 */
async function probe(store: LeaseStore): Promise<number> {
  for (let attempt = 0; attempt < WRITE_ATTEMPTS; attempt++) {
    const left = await store.get(PROBE_KEY); // by a doctor that was killed
    let written: number | null = null, removed: number | null = null;
    const value = JSON.stringify({ pid: Deno.pid });
    const writeMs = await timed(async () => {
      written = await store.set(PROBE_KEY, value, left?.revision ?? 0);
    });
    if (written === null) continue;
    const removeMs = await timed(async () => {
      removed = await store.set(PROBE_KEY, null, written!);
    });
    if (removed !== null) return Math.min(writeMs, removeMs);
  }
  throw new UnavailableError(
    `its entry "${PROBE_KEY}" changed with each of ${WRITE_ATTEMPTS} attempts to write it`,
  );
}

async function timed(action: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  await action();
  return performance.now() - startMs;
}

function reasonOf(error: unknown): string {
  if (error instanceof LlumnixError) return error.message;
  throw error;
}
