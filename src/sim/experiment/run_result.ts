import type { Distribution } from "../../core/stats/distribution.ts";
import type { ClusterAverages, ClusterSample, ClusterSampler } from "./cluster_sampler.ts";
import type { ClusterConfig, WorkloadConfig } from "./experiment_config.ts";
import type { MigrationRecorder, MigrationSummary } from "./migration_recorder.ts";
import type { Latencies, RequestRecorder } from "./request_recorder.ts";

/** Result of one run of one workload on one cluster: plain data, for JSON and reports. */
export interface RunResult {
  readonly config: string;
  readonly workload: string;
  readonly seed: number;
  readonly requests: number;
  readonly failed: number;
  /** Why the first failed requests failed. */
  readonly failures: readonly string[];
  readonly all: Latencies;
  /** Null if the workload has no request of high priority. */
  readonly high: Latencies | null;
  readonly normal: Latencies | null;
  readonly itlMs: Distribution;
  readonly preemptions: number;
  readonly migrations: MigrationSummary;
  readonly averages: ClusterAverages | null;
  readonly instanceSeconds: number;
  readonly outputTokens: number;
  readonly engineSteps: number;
  /** From the start to the last token, on the simulated clock. */
  readonly simulatedSeconds: number;
  /** Real time that the simulation took; the only figure that differs between equal runs. */
  readonly wallSeconds: number;
  readonly samples: readonly ClusterSample[];
}

export interface RunParts {
  readonly config: ClusterConfig;
  readonly workload: WorkloadConfig;
  readonly seed: number;
  readonly recorder: RequestRecorder;
  readonly migrations: MigrationRecorder;
  readonly sampler: ClusterSampler;
  readonly engineSteps: number;
  readonly simulatedMs: number;
  readonly wallMs: number;
}

/** How many failures are kept. */
const MAX_FAILURES = 10;

export function summarizeRun(parts: RunParts): RunResult {
  const { config, workload, seed, recorder, migrations, sampler } = parts;
  const high = recorder.latencies("high");
  const hasPriorities = high.requests > 0;
  return {
    config: config.name,
    workload: workload.name,
    seed,
    requests: recorder.numRequests,
    failed: recorder.failures.length,
    failures: recorder.failures.slice(0, MAX_FAILURES),
    all: recorder.latencies(),
    high: hasPriorities ? high : null,
    normal: hasPriorities ? recorder.latencies("normal") : null,
    itlMs: recorder.itlMs,
    preemptions: recorder.numPreemptions,
    migrations: migrations.summary(),
    averages: sampler.averages,
    instanceSeconds: sampler.instanceSeconds,
    outputTokens: recorder.numTokens,
    engineSteps: parts.engineSteps,
    simulatedSeconds: parts.simulatedMs / 1000,
    wallSeconds: parts.wallMs / 1000,
    samples: sampler.samples,
  };
}
