/** Which paths between hosts are measured, and how fast they are. */
import type { Peer } from "../../../bus/bus.ts";
import { type Clock, sleep } from "../../../core/clock.ts";
import { LlumnixError } from "../../../core/errors.ts";
import type { PathQuestion } from "../../../core/protocol/examination.ts";
import type { Step } from "../examine.ts";
import type { PathReport } from "./report.ts";

/** Paths that are measured; each takes 0.3 s at most, and slow ones 2 s. */
export const MAX_MEASURED_PATHS = 20;
/** Before each but the first: what waited meanwhile goes on. */
const PAUSE_MS = 100;
/** After this time no other measurement begins. */
const MAX_TOTAL_MS = 60_000;
/** Longer than the leader waits for its agents. */
const PATH_TIMEOUT_MS = 16_000;

/** How many paths lead from each host to each other one. */
export function numPaths(numHosts: number): number {
  return numHosts * (numHosts - 1);
}

/**
 * All paths between hosts. Where these are too many, a ring: each host sends to the next one. Where the ring is too
 * long as well, its first paths.
 */
export function choosePaths(hosts: readonly string[]): PathQuestion[] {
  if (hosts.length < 2) return [];
  const ring = hosts.map((from, i) => ({ from, to: hosts[(i + 1) % hosts.length] }));
  if (numPaths(hosts.length) > MAX_MEASURED_PATHS) return ring.slice(0, MAX_MEASURED_PATHS);
  return hosts.flatMap((from) => hosts.filter((to) => to !== from).map((to) => ({ from, to })));
}

/**
 * Asks the leader for one path after the other. Stops when the leader is gone, or after a minute.
 * @returns the paths that were tried
 */
export async function measurePaths(
  leader: Peer,
  paths: readonly PathQuestion[],
  clock: Clock,
  step: Step,
): Promise<PathReport[]> {
  const untilMs = clock.nowMs() + MAX_TOTAL_MS;
  const reports: PathReport[] = [];
  await step(`measuring ${paths.length} paths, one at a time`, async () => {
    for (const path of paths) {
      if (!leader.isOpen || clock.nowMs() >= untilMs) return;
      if (reports.length > 0) await sleep(clock, PAUSE_MS);
      reports.push(await measure(leader, path));
    }
  });
  return reports;
}

async function measure(leader: Peer, path: PathQuestion): Promise<PathReport> {
  try {
    const options = { timeoutMs: PATH_TIMEOUT_MS };
    const { data: speed } = await leader.call("measure_path", { data: path }, options);
    return { ...path, speed, failure: null };
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    return { ...path, speed: null, failure: error.message };
  }
}
