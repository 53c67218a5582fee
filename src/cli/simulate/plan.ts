/** From the command line of `llumnix simulate` to what is run. */
import { UsageError } from "../../core/errors.ts";
import type { Comparison } from "../../sim/experiment/comparison.ts";
import type { ClusterConfig, WorkloadConfig } from "../../sim/experiment/experiment_config.ts";
import { type Preset, type PresetOptions, presets } from "../../sim/experiment/presets.ts";
import { policyNotices } from "../arguments/in_force.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import type { Notice } from "../arguments/status.ts";
import { readCommandLine } from "../command_line.ts";
import { clusterGroups, simulateGroups, workloadArguments } from "./arguments.ts";
import { clusterConfig, type Given, type NamedOptions, readComparison } from "./cluster_options.ts";
import { checkTrace, unknownPreset, workloadsOf } from "./workload_options.ts";

const DEFAULT_NAME = "llumnix";
const workloadNames = ["arrivals", "rate", "cv", "lengths", "trace"];

/** The experiment, and where its results go. */
export interface Plan {
  readonly comparison: Comparison;
  /** The options of each configuration that were written for it, for all, or by the preset. */
  readonly written: readonly string[];
  readonly json: string | null;
  readonly html: string | null;
  /** File for the requests of all runs. */
  readonly csv: string | null;
  /** Things the user should know before it runs. */
  readonly notices: readonly Notice[];
}

/**
 * Reads the command line.
 * @throws {UsageError} anything in it that is unknown, invalid or contradicts the rest
 */
export function readPlan(argv: readonly string[]): Plan {
  const given = readCommandLine(argv, new ArgumentIndex(simulateGroups));
  const preset = presetOf(given);
  const clusters = namedOptions(given, preset);
  refuseTwins(clusters);
  const configs = clusters.map(clusterConfig);
  const json = (given.get("json") ?? null) as string | null;
  const html = (given.get("html") ?? null) as string | null;
  const csv = (given.get("csv") ?? null) as string | null;
  refuseSameFile({ json, html, csv });
  if (csv === "-") {
    throw new UsageError("--csv -: expected a file; only --json and --html go to stdout");
  }
  const trace = given.get("trace") as string | undefined;
  const leftOut = trace === undefined ? null : checkTrace(trace, given);
  const firstSeed = (given.get("first-seed") ?? 1) as number;
  const numSeeds = (given.get("seeds") ?? 3) as number;
  return {
    comparison: {
      title: preset === null ? "Simulation" : titleOf(preset, given),
      clusters: configs,
      workloads: preset === null ? workloadsOf(given) : presetWorkloads(preset, given),
      seeds: Array.from({ length: numSeeds }, (_, i) => firstSeed + i),
      startMs: 1000 * ((given.get("instance-start-time") ?? 10) as number),
    },
    written: clusters.map(({ given }) => writtenOptions(given)),
    json,
    html,
    csv,
    notices: [
      ...(leftOut === null ? [] : [{ severity: "info", message: leftOut } as const]),
      ...clusters.flatMap((cluster, i) => noticesOf(configs[i], cluster.chosen, clusters.length)),
    ],
  };
}

/** @throws {UsageError} one file would overwrite the other */
function refuseSameFile(files: Readonly<Record<string, string | null>>): void {
  const named = Object.entries(files).filter(([, path]) => path !== null);
  for (const [i, [name, path]] of named.entries()) {
    const other = named.slice(i + 1).find(([, second]) => second === path);
    if (other === undefined) continue;
    throw new UsageError(
      `--${name} and --${other[0]} are both ${path}: give each a file of its own`,
    );
  }
}

/** As on a command line. */
function writtenOptions(given: Given): string {
  return [...given].map(([name, value]) => {
    if (value === true) return `--${name}`;
    return value === false ? `--${name}=false` : `--${name} ${value}`;
  }).join(" ");
}

/** Notices on a configuration's policies that are not in force. */
function noticesOf(
  { name, manager, migration, scaling }: ClusterConfig,
  chosen: ReadonlySet<string>,
  numConfigs: number,
): Notice[] {
  const prefix = numConfigs > 1 ? `${name}: ` : "";
  const options = { ...manager, ...migration, ...scaling };
  return policyNotices(options, (argument) => chosen.has(argument)).map((
    { severity, message },
  ) => ({ severity, message: prefix + message }));
}

function presetOf(given: Given): Preset | null {
  const name = given.get("preset") as string | undefined;
  if (name === undefined) return null;
  return presets.find((preset) => preset.name === name) ??
    unknownPreset(name, presets.map((preset) => preset.name));
}

/** A preset's summary is not true of other requests and clusters. */
function titleOf({ name, summary }: Preset, given: Given): string {
  const isOwn = (name: string) => isClusterArgument(name) || Object.hasOwn(workloadArguments, name);
  const changed = [...given.keys()].filter(isOwn).map((name) => `--${name}`);
  return changed.length === 0 ? summary : `Preset ${name} with another ${changed.join(", ")}`;
}

/** The first configuration is the command line's; the others keep what makes them differ. */
function namedOptions(given: Given, preset: Preset | null): NamedOptions[] {
  const own = new Map([...given].filter(([name]) => isClusterArgument(name)));
  const base = preset ? merge(entriesOf(preset.options), own) : own;
  const [first, ...others] = preset?.clusters ?? [{ name: DEFAULT_NAME, options: {} }];
  const compared = (given.get("compare") ?? []) as readonly string[];
  return [
    {
      name: (given.get("name") ?? first.name) as string,
      given: merge(preset ? entriesOf(preset.options) : new Map(), entriesOf(first.options), own),
      chosen: new Set(own.keys()),
    },
    ...others.map(({ name, options }) => ({
      name,
      given: merge(base, entriesOf(options)),
      chosen: new Set<string>(),
    })),
    ...compared.map(readComparison).map((one) => ({ ...one, given: merge(base, one.given) })),
  ];
}

function presetWorkloads(preset: Preset, given: Given): WorkloadConfig[] {
  const common = {
    trace: null,
    numRequests: (given.get("requests") ?? preset.numRequests) as number,
    highPriority: (given.get("high-priority") ?? preset.highPriority) as number,
  };
  if (given.has("trace")) {
    return workloadsOf(given).map((workload) => ({
      ...workload,
      highPriority: common.highPriority,
    }));
  }
  if (workloadNames.some((name) => given.has(name))) {
    return workloadsOf(new Map([["lengths", preset.workloads[0].lengths], ...given]))
      .map((workload) => ({ ...workload, ...common }));
  }
  return preset.workloads.map((workload) => ({ ...workload, ...common }));
}

function isClusterArgument(name: string): boolean {
  return clusterGroups.some(({ table }) => Object.hasOwn(table, name));
}

function entriesOf(options: PresetOptions): Given {
  return new Map(Object.entries(options));
}

/** Later ones win. */
function merge(...maps: readonly Given[]): Given {
  return new Map(maps.flatMap((map) => [...map]));
}

function refuseTwins(clusters: readonly NamedOptions[]): void {
  const names = clusters.map(({ name }) => name);
  const twin = names.find((name, i) => names.indexOf(name) !== i);
  if (twin !== undefined) {
    throw new UsageError(`two configurations are named "${twin}": give each a name of its own`);
  }
}
