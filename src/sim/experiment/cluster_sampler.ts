import type { Clock } from "../../core/clock.ts";
import type { InstanceInfo } from "../../core/protocol/instance_info.ts";
import type { ExperimentInstances } from "./experiment_instances.ts";

const FIRST_INTERVAL_MS = 500;
/** At this many samples every other one is dropped and the interval is doubled. */
const MAX_SAMPLES = 600;

/** The cluster at one moment. Fractions are of the blocks of all serving instances. */
export interface ClusterSample {
  readonly timeMs: number;
  readonly instances: number;
  readonly running: number;
  readonly waiting: number;
  /** Fractions of all blocks; see {@linkcode fragmentation}. */
  readonly used: number;
  readonly fragmented: number;
  /** Fraction of the blocks in use, and waiting requests, by instance. */
  readonly byInstance: Readonly<
    Record<string, { readonly used: number; readonly waiting: number }>
  >;
}

/** Averages over the time in which requests arrive, or over the whole run if all arrive at once. */
export interface ClusterAverages {
  readonly utilisation: number;
  readonly fragmentation: number;
  readonly instances: number;
}

/** Samples all instances at equal intervals, which grow so that the number of samples is bounded. */
export class ClusterSampler {
  readonly #args: { readonly clock: Clock; readonly instances: ExperimentInstances };
  #samples: ClusterSample[] = [];
  #intervalMs = FIRST_INTERVAL_MS;
  #startMs = 0;
  #tick = 0;
  #isAveraging = true;
  #numAveraged = 0;
  readonly #sums = { utilisation: 0, fragmentation: 0, instances: 0 };
  /** Instance time until the last sample, summed over all instances. */
  #instanceMs = 0;
  #sampledMs = 0;

  constructor(args: { readonly clock: Clock; readonly instances: ExperimentInstances }) {
    this.#args = args;
  }

  start(): void {
    this.#startMs = this.#sampledMs = this.#args.clock.nowMs();
    this.#schedule();
  }

  /** No more requests come. */
  stopAveraging(): void {
    this.#isAveraging = this.#numAveraged === 0;
  }

  get samples(): readonly ClusterSample[] {
    return this.#samples;
  }

  /** Null if the run ended before the first sample. */
  get averages(): ClusterAverages | null {
    const count = this.#numAveraged;
    if (count === 0) return null;
    const { utilisation, fragmentation, instances } = this.#sums;
    return {
      utilisation: utilisation / count,
      fragmentation: fragmentation / count,
      instances: instances / count,
    };
  }

  /** Time that instances existed, summed over them. Includes instances that start or drain. */
  get instanceSeconds(): number {
    return (this.#instanceMs + this.#unsampledMs()) / 1000;
  }

  #schedule(): void {
    this.#args.clock.after(FIRST_INTERVAL_MS, () => {
      this.#schedule();
      this.#sample();
    });
  }

  #sample(): void {
    const { clock, instances } = this.#args;
    const sample = sampleOf(clock.nowMs() - this.#startMs, instances.infos(), instances.numAlive);
    this.#instanceMs += this.#unsampledMs();
    this.#sampledMs = clock.nowMs();
    if (this.#isAveraging) {
      this.#numAveraged++;
      this.#sums.utilisation += sample.used;
      this.#sums.fragmentation += sample.fragmented;
      this.#sums.instances += sample.instances;
    }
    if (this.#tick++ % (this.#intervalMs / FIRST_INTERVAL_MS) === 0) this.#keep(sample);
  }

  /** Instance time since the last sample, with the number of instances that exist now. */
  #unsampledMs(): number {
    const { clock, instances } = this.#args;
    return instances.numAlive * (clock.nowMs() - this.#sampledMs);
  }

  #keep(sample: ClusterSample): void {
    this.#samples.push(sample);
    if (this.#samples.length < MAX_SAMPLES) return;
    this.#samples = this.#samples.filter((_, i) => i % 2 === 0);
    this.#intervalMs *= 2;
  }
}

function sampleOf(
  timeMs: number,
  infos: readonly InstanceInfo[],
  instances: number,
): ClusterSample {
  let running = 0, waiting = 0, usedBlocks = 0, totalBlocks = 0;
  const byInstance: Record<string, { used: number; waiting: number }> = {};
  for (const info of infos) {
    running += info.runningRequests;
    waiting += info.waitingRequests;
    usedBlocks += info.usedBlocks;
    totalBlocks += info.totalBlocks;
    byInstance[info.instanceId] = {
      used: info.usedBlocks / info.totalBlocks,
      waiting: info.waitingRequests,
    };
  }
  return {
    timeMs,
    instances,
    running,
    waiting,
    used: totalBlocks === 0 ? 0 : usedBlocks / totalBlocks,
    fragmented: fragmentation(infos),
    byInstance,
  };
}

/**
 * Share of the cluster's memory that is free but of no use to waiting requests (OSDI'24, section 6.3).
 * Counts the blocks that requests at the heads of the queues need, the smallest first, for as many
 * requests as would fit into the free blocks of all instances together.
 */
export function fragmentation(
  infos: readonly Pick<InstanceInfo, "totalBlocks" | "freeBlocks" | "firstWaitingBlocks">[],
): number {
  let totalBlocks = 0, freeBlocks = 0;
  const demands: number[] = [];
  for (const info of infos) {
    totalBlocks += info.totalBlocks;
    freeBlocks += info.freeBlocks;
    if (info.firstWaitingBlocks > 0) demands.push(Math.ceil(info.firstWaitingBlocks));
  }
  let fragmentedBlocks = 0;
  for (const demand of demands.sort((a, b) => a - b)) {
    if (fragmentedBlocks + demand > freeBlocks) break;
    fragmentedBlocks += demand;
  }
  return totalBlocks === 0 ? 0 : fragmentedBlocks / totalBlocks;
}
