/** The experiments of the Llumnix paper (OSDI'24, section 6) and of Llumnix's releases. */
import type { ArrivalSpec } from "../../workload/arrivals.ts";

/** Values of command-line arguments, by name. */
export type PresetOptions = Readonly<Record<string, string | number | boolean>>;

export interface PresetCluster {
  readonly name: string;
  readonly options: PresetOptions;
}

export interface PresetWorkload {
  readonly name: string;
  readonly arrivals: ArrivalSpec;
  readonly lengths: string;
}

export interface Preset {
  readonly name: string;
  readonly summary: string;
  readonly numRequests: number;
  readonly highPriority: number;
  /** Options of all clusters. */
  readonly options: PresetOptions;
  /** The others are compared with the first. */
  readonly clusters: readonly PresetCluster[];
  readonly workloads: readonly PresetWorkload[];
}

/** 16 instances of LLaMA-7B on A10; polling 50 ms, at most 3 stages (section 6.1). */
const paperCluster: PresetOptions = {
  "model": "llama-7b",
  "gpu-type": "a10",
  "instances": 16,
  "polling-interval": 0.05,
  "max-stages": 3,
  "migration-buffer-blocks": 512,
};

/**
 * The paper's Llumnix: dispatch by freeness, migration from the least free instance to the freest, short
 * requests first. Before those, our rule: waiting requests move to where they fit, or get room made.
 */
const llumnix: PresetOptions = {
  "dispatch-policy": "load",
  "load-metric": "virtual_usage",
  "enable-migration": true,
  "enable-defrag": true,
  "pair-migration-policy": "waiting_first",
  "request-migration-policy": "FIT",
};

/** Llumnix's default dispatch by load, without migration. */
const load: PresetOptions = {
  "dispatch-policy": "load",
  "load-metric": "remaining_steps",
  "enable-migration": false,
};

/** Dispatch to the instance with the least memory in use, waiting requests included; no migration. */
const infaas: PresetOptions = {
  "dispatch-policy": "load",
  "load-metric": "usage_ratio",
  "enable-migration": false,
};

const roundRobin: PresetOptions = { "dispatch-policy": "rr", "enable-migration": false };

const poisson = (rate: number): ArrivalSpec => ({ kind: "poisson", rate });

function poissonAt(lengths: string, rates: readonly number[]): PresetWorkload[] {
  return rates.map((rate) => ({
    name: `${lengths.toUpperCase()} ${rate} req/s`,
    arrivals: poisson(rate),
    lengths,
  }));
}

export const presets: readonly Preset[] = [
  {
    name: "osdi24-serving",
    summary: "Serving (section 6.3): Poisson arrivals, against INFaaS++ and round robin.",
    numRequests: 10_000,
    highPriority: 0,
    options: paperCluster,
    clusters: [
      { name: "llumnix", options: llumnix },
      { name: "load", options: load },
      { name: "infaas++", options: infaas },
      { name: "round robin", options: roundRobin },
    ],
    // The paper's rates. The last rate of each line is the one at which the simulated cluster, which is
    // faster than the paper's, begins to queue.
    workloads: [
      ...poissonAt("s-s", [32, 38, 44]),
      ...poissonAt("m-m", [7.4, 8, 9.5]),
      ...poissonAt("l-l", [2.6, 3.2, 3.7]),
      ...poissonAt("s-l", [4.1, 4.4, 5.2]),
      ...poissonAt("l-s", [10, 16, 20]),
    ],
  },
  {
    name: "osdi24-priorities",
    summary: "Priorities (section 6.4): bursts with 10% high, against the same without priorities.",
    numRequests: 10_000,
    highPriority: 0.1,
    options: paperCluster,
    clusters: [
      // 60 of 851 blocks. The paper's 751 would slow normal requests far more than in the paper.
      { name: "llumnix", options: { ...llumnix, "priority-headroom-blocks": 60 } },
      { name: "no priorities", options: { ...llumnix, "ignore-priorities": true } },
      { name: "paper's headroom", options: llumnix },
    ],
    // The paper's rate, and those at which the simulated cluster begins to queue: CV 8, CV 6.
    workloads: [26, 50, 56].flatMap((rate) =>
      [2, 4, 6, 8].map((cv): PresetWorkload => ({
        name: `S-S ${rate} req/s CV ${cv}`,
        arrivals: { kind: "gamma", rate, cv },
        lengths: "s-s",
      }))
    ),
  },
  {
    name: "osdi24-autoscaling",
    summary: "Auto-scaling (section 6.5): 1 to 16 instances, against INFaaS++.",
    numRequests: 10_000,
    highPriority: 0,
    options: {
      ...paperCluster,
      "instances": 1,
      "enable-scaling": true,
      "min-instances": 1,
      "max-instances": 16,
      "scale-up-threshold": 10,
      "scale-down-threshold": 60,
    },
    clusters: [
      { name: "llumnix", options: llumnix },
      // Thresholds are steps: the metric must count them, as both do in the paper.
      { name: "infaas++", options: load },
    ],
    workloads: [
      ...poissonAt("l-l", [2, 2.5, 3]),
      ...[2, 4, 6].map((cv): PresetWorkload => ({
        name: `L-L 2 req/s CV ${cv}`,
        arrivals: { kind: "gamma", rate: 2, cv },
        lengths: "l-l",
      })),
    ],
  },
  {
    name: "osdi24-scalability",
    summary: "Scalability (section 6.6): 64 instances, requests of 64 tokens in and out.",
    numRequests: 10_000,
    highPriority: 0,
    options: { ...paperCluster, "instances": 64 },
    clusters: [
      { name: "llumnix", options: llumnix },
      { name: "infaas++", options: infaas },
    ],
    workloads: [50, 150, 250, 350].map((rate) => ({
      name: `64 in, 64 out, ${rate} req/s`,
      arrivals: poisson(rate),
      lengths: "fixed:64:64",
    })),
  },
  {
    name: "v0.1.0",
    summary: "Llumnix v0.1.0: Qwen2.5-7B, ShareGPT, against round robin and queue size.",
    numRequests: 10_000,
    highPriority: 0,
    options: { ...paperCluster, "model": "qwen2.5-7b" },
    clusters: [
      { name: "llumnix", options: { ...llumnix, "load-metric": "remaining_steps" } },
      { name: "round robin", options: roundRobin },
      { name: "queue size", options: { "dispatch-policy": "queue", "enable-migration": false } },
    ],
    // At the first rate the simulated cluster begins to queue; at the others it is overloaded.
    workloads: [38, 54, 56, 58].map((rate) => ({
      name: `ShareGPT ${rate} req/s`,
      arrivals: poisson(rate),
      lengths: "sharegpt",
    })),
  },
];
