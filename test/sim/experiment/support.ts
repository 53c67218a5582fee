import type {
  ClusterConfig,
  WorkloadConfig,
} from "../../../src/sim/experiment/experiment_config.ts";

type Overrides = {
  readonly [Part in keyof ClusterConfig]?: Partial<ClusterConfig[Part]>;
};

/** Four instances of LLaMA-7B on A10 that dispatch by load and migrate; `overrides` win. */
export function clusterConfig(overrides: Overrides = {}): ClusterConfig {
  return {
    name: "test",
    ignorePriorities: false,
    ...overrides,
    engine: {
      model: "llama-7b",
      dtype: "auto",
      maxModelLen: null,
      maxNumBatchedTokens: null,
      blockSize: 16,
      gpuMemoryUtilization: 0.9,
      numGpuBlocksOverride: null,
      swapSpace: 0,
      profilingResultFilePath: "",
      gpuType: "a10",
      maxNumSeqs: 256,
      schedulerDelayFactor: 0,
      preemptionMode: null,
      prefillHoldTimeout: 2,
      seed: 0,
      ...overrides.engine,
    },
    manager: {
      initialInstances: 4,
      loadMetric: "virtual_usage",
      dispatchPolicy: "load",
      numDispatchInstances: null,
      priorityHeadroomBlocks: null,
      pollingInterval: 0.05,
      disableLogRequestsManager: true,
      ...overrides.manager,
    },
    migration: {
      enableMigration: true,
      pairMigrationFrequency: 1,
      pairMigrationPolicy: "defrag_constrained",
      migrateOutThreshold: 3,
      requestMigrationPolicy: "SR",
      enableDefrag: true,
      enablePdDisagg: false,
      ...overrides.migration,
    },
    transfer: {
      migrationBufferBlocks: 512,
      migrationNumLayers: 1,
      lastStageMaxBlocks: 4,
      maxStages: 3,
      migrationCrossover: "0",
      ...overrides.transfer,
    },
    scaling: {
      enableScaling: false,
      minInstances: 1,
      maxInstances: 4,
      scalingInterval: 10,
      scalingPolicy: "avg_load",
      scaleUpThreshold: 10,
      scaleDownThreshold: 60,
      ...overrides.scaling,
    },
  } as ClusterConfig;
}

/** 200 short requests, 10 a second; `overrides` win. */
export function workloadConfig(overrides: Partial<WorkloadConfig> = {}): WorkloadConfig {
  return {
    name: "test",
    arrivals: { kind: "poisson", rate: 10 },
    lengths: "s-s",
    trace: null,
    numRequests: 200,
    highPriority: 0,
    ...overrides,
  };
}
