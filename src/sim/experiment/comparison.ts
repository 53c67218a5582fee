import type { ClusterConfig, WorkloadConfig } from "./experiment_config.ts";
import { runExperiment } from "./experiment_run.ts";
import type { RunResult } from "./run_result.ts";

/** A comparison runs every workload on every cluster with every seed. */
export interface Comparison {
  readonly title: string;
  /** The others are compared with the first. */
  readonly clusters: readonly ClusterConfig[];
  readonly workloads: readonly WorkloadConfig[];
  /** All clusters get the same requests from the same seed. */
  readonly seeds: readonly number[];
  /** See {@linkcode ExperimentRunArgs.startMs}. */
  readonly startMs: number;
}

/** Progress of a comparison. */
export interface ComparisonProgress {
  readonly run: number;
  readonly numRuns: number;
  readonly cluster: string;
  readonly workload: string;
  readonly seed: number;
  readonly endedRequests: number;
  /** Null for a whole trace, whose length is not known in advance. */
  readonly numRequests: number | null;
}

/**
 * Runs a comparison, one run after the other.
 * @throws {UsageError} a workload or a cluster is impossible
 */
export async function runComparison(
  comparison: Comparison,
  onProgress: (progress: ComparisonProgress) => void = () => {},
): Promise<RunResult[]> {
  const { clusters, workloads, seeds, startMs } = comparison;
  const results: RunResult[] = [];
  const numRuns = clusters.length * workloads.length * seeds.length;
  for (const workload of workloads) {
    for (const config of clusters) {
      for (const seed of seeds) {
        const state = {
          run: results.length + 1,
          numRuns,
          cluster: config.name,
          workload: workload.name,
          seed,
          numRequests: workload.numRequests,
        };
        results.push(
          await runExperiment({
            config,
            workload,
            seed,
            startMs,
            onProgress: (endedRequests) => onProgress({ ...state, endedRequests }),
          }),
        );
      }
    }
  }
  return results;
}
