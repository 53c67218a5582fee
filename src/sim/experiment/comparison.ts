import type { ClusterConfig, WorkloadConfig } from "./experiment_config.ts";
import { runExperiment } from "./experiment_run.ts";
import type { RequestRow } from "./request_recorder.ts";
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

/** What is told while a comparison runs. */
export interface ComparisonEvents {
  readonly onProgress?: (progress: ComparisonProgress) => void;
  /** A run has ended. @param requests its requests, to be read at once */
  readonly onRun?: (result: RunResult, requests: Iterable<RequestRow>) => void;
}

/**
 * Runs a comparison, one run after the other.
 * @throws {UsageError} a workload or a cluster is impossible
 */
export async function runComparison(
  comparison: Comparison,
  { onProgress = () => {}, onRun = () => {} }: ComparisonEvents = {},
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
        let requests: Iterable<RequestRow> = [];
        const result = await runExperiment({
          config,
          workload,
          seed,
          startMs,
          onProgress: (endedRequests) => onProgress({ ...state, endedRequests }),
          onEnd: (recorder) => requests = recorder.rows(),
        });
        results.push(result);
        onRun(result, requests);
      }
    }
  }
  return results;
}

/**
 * The part of a comparison that can be shown after some of its runs: the workloads that all clusters
 * have run, or the clusters that have run the first workload. Null: no run has ended.
 */
export function finishedPart(
  comparison: Comparison,
  runs: readonly RunResult[],
): { readonly comparison: Comparison; readonly runs: readonly RunResult[] } | null {
  const hasRun = (workload: string, cluster: string) =>
    runs.some((run) => run.workload === workload && run.config === cluster);
  const { clusters, workloads } = comparison;
  const finished = workloads.filter((workload) =>
    clusters.every((cluster) => hasRun(workload.name, cluster.name))
  );
  const shown = finished.length > 0 ? finished : workloads.slice(0, 1);
  const part = {
    ...comparison,
    workloads: shown,
    clusters: clusters.filter((cluster) => hasRun(shown[0].name, cluster.name)),
  };
  if (part.clusters.length === 0) return null;
  const names = new Set(shown.map(({ name }) => name));
  return { comparison: part, runs: runs.filter(({ workload }) => names.has(workload)) };
}
