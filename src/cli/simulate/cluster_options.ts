/** From given options to the configuration of a simulated cluster. */
import { UsageError } from "../../core/errors.ts";
import { crossoverProblem } from "../../instance/llumlet/crossover.ts";
import type { LoadMetricName } from "../../core/options.ts";
import { resolveSimulation } from "../../executor/sim/simulation.ts";
import { resolveEngineConfig } from "../../instance/engine/engine_config.ts";
import { disaggregationProblem } from "../../manager/fleet/disaggregation.ts";
import {
  defaultThresholds,
  scalingThresholdProblem,
  thresholdProblem,
} from "../../manager/load/thresholds.ts";
import type { ClusterConfig } from "../../sim/experiment/experiment_config.ts";
import { camelCase, type Value } from "../arguments/argument.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import { readCommandLine } from "../command_line.ts";
import { UnknownOptionError } from "../unknown_option_error.ts";
import { clusterGroups, type ClusterOptions, simulateGroups } from "./arguments.ts";

/** Values by argument name. */
export type Given = ReadonlyMap<string, Value>;

/** A configuration of the command line or of `--compare`. */
export interface NamedOptions {
  readonly name: string;
  readonly given: Given;
  /** Names of the arguments that were written for this configuration. */
  readonly chosen: ReadonlySet<string>;
}

const index = new ArgumentIndex(clusterGroups);
const whole = new ArgumentIndex(simulateGroups);
const thresholdNames = ["migrate-out-threshold", "scale-up-threshold", "scale-down-threshold"];

/**
 * Reads a value of `--compare`: `NAME: OPTIONS`, options as on a command line.
 * @throws {UsageError} no name, or options that a cluster does not have
 */
export function readComparison(written: string): NamedOptions {
  const [name, ...rest] = written.split(":");
  const words = rest.join(":").trim().split(/\s+/).filter((word) => word !== "");
  if (name.trim() === "" || rest.length === 0) {
    throw new UsageError(
      `--compare "${written}": expected a name and options, such as "rr: --dispatch-policy rr"`,
    );
  }
  try {
    const given = readCommandLine(words, index);
    return { name: name.trim(), given, chosen: new Set(given.keys()) };
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    const place = `--compare "${name.trim()}"`;
    if (error instanceof UnknownOptionError && whole.byOption.has(error.option)) {
      throw new UsageError(
        `${place}: ${error.option} is the same for all configurations: give it before --compare`,
      );
    }
    throw new UsageError(`${place}: ${error.message}`);
  }
}

/**
 * The configuration of a cluster; what is not given has its default.
 * @throws {UsageError} values that contradict each other, or a device that cannot be simulated
 */
export function clusterConfig(
  { name, given }: Pick<NamedOptions, "name" | "given">,
): ClusterConfig {
  const options = withDefaults(given);
  const { instances } = options;
  const maxInstances = options.maxInstances ?? Math.max(instances, options.minInstances);
  checkLimits(options, maxInstances);
  const problem = crossoverProblem(options.migrationCrossover);
  if (problem !== null) throw new UsageError(problem);
  const engine = { ...options, seed: 0 };
  const simulation = resolveSimulation(engine);
  const identity = { instanceId: name, instanceType: "both", maxWaitingRequests: 1 } as const;
  const timed = { ...engine, device: "sim", stepTimeout: 0 } as const; // simulated steps never hang
  resolveEngineConfig(identity, timed, simulation);
  return {
    name,
    engine,
    manager: { ...options, initialInstances: instances, disableLogRequestsManager: true },
    migration: { ...options, enableMigration: options.enableMigration || options.enablePdDisagg },
    transfer: options,
    scaling: { ...options, maxInstances },
    ignorePriorities: options.ignorePriorities,
  };
}

function withDefaults(given: Given): ClusterOptions {
  const metric = (given.get("load-metric") ?? "remaining_steps") as LoadMetricName;
  const thresholds: Readonly<Record<string, number>> = { ...defaultThresholds(metric) };
  const options: Record<string, Value> = {};
  for (const { name, argument } of index.entries) {
    const property = camelCase(name);
    options[property] = given.get(name) ?? thresholds[property] ?? argument.default;
  }
  for (const name of thresholdNames) {
    const threshold = options[camelCase(name)] as number;
    const problem = thresholdProblem(metric, threshold);
    if (problem !== null) throw new UsageError(`--${name} ${threshold}: ${problem}`);
  }
  return options as unknown as ClusterOptions;
}

function checkLimits(options: ClusterOptions, maxInstances: number): void {
  const { minInstances, instances, enableScaling, numDispatchInstances, enablePdDisagg } = options;
  const scalingProblem = enableScaling && scalingThresholdProblem(options.loadMetric, options);
  if (scalingProblem) throw new UsageError(scalingProblem);
  if (minInstances > maxInstances) {
    throw new UsageError(
      `--min-instances ${minInstances} is more than --max-instances ${maxInstances}`,
    );
  }
  if (enableScaling && (instances < minInstances || instances > maxInstances)) {
    throw new UsageError(
      `--instances ${instances} is outside --min-instances ${minInstances} to --max-instances ` +
        `${maxInstances}, between which --enable-scaling keeps the cluster`,
    );
  }
  if (enablePdDisagg) {
    const problem = disaggregationProblem(numDispatchInstances, instances, "--instances");
    if (problem !== null) throw new UsageError(problem);
  }
  if (numDispatchInstances !== null && numDispatchInstances > maxInstances) {
    throw new UsageError(
      `--num-dispatch-instances ${numDispatchInstances} is more than the ${maxInstances} ` +
        "instances that there may be",
    );
  }
}
