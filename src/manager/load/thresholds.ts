import type { LoadMetricName } from "../../core/options.ts";

/** Loads at which the manager acts, as the user writes them: always positive. */
export interface Thresholds {
  readonly migrateOutThreshold: number;
  readonly scaleUpThreshold: number;
  readonly scaleDownThreshold: number;
}

/** Llumnix's defaults. It has none for ratios. */
const inSteps: Thresholds = {
  migrateOutThreshold: 3,
  scaleUpThreshold: 10,
  scaleDownThreshold: 60,
};
const inFractions: Thresholds = {
  migrateOutThreshold: 0.85,
  scaleUpThreshold: 0.85,
  scaleDownThreshold: 0.3,
};

/** Whether a metric counts remaining steps: then a threshold stands for a load of the opposite sign. */
export function countsSteps(metric: LoadMetricName): boolean {
  return metric !== "usage_ratio";
}

/** The thresholds that are in force where none is set. */
export function defaultThresholds(metric: LoadMetricName): Thresholds {
  return countsSteps(metric) ? inSteps : inFractions;
}

/** The load that a threshold stands for: 3 remaining steps are a load of -3. */
export function thresholdLoad(metric: LoadMetricName, threshold: number): number {
  return countsSteps(metric) ? -threshold : threshold;
}

/** The error in a threshold, as the end of a message that begins with its name and value; else null. */
export function thresholdProblem(metric: LoadMetricName, threshold: number): string | null {
  if (countsSteps(metric)) {
    return threshold > 0 ? null : `with load metric ${metric} it must be a number of steps ` +
      "greater than 0 (an instance is over it if fewer steps remain)";
  }
  if (threshold > 0 && threshold <= 1) return null;
  return `with load metric ${metric} it must be a fraction of the blocks, greater than 0 and at most ` +
    "1 (with remaining_steps it is a number of steps)";
}

/**
 * The error in a pair of scaling thresholds, each valid by itself; null if there is none. The two must
 * leave loads between them: at a load beyond both, scaling would add an instance and remove it again.
 */
export function scalingThresholdProblem(
  metric: LoadMetricName,
  { scaleUpThreshold: up, scaleDownThreshold: down }: Omit<Thresholds, "migrateOutThreshold">,
): string | null {
  if (thresholdLoad(metric, down) < thresholdLoad(metric, up)) return null;
  const [adds, removes, order] = countsSteps(metric)
    ? [`fewer than ${up} steps remain`, `more than ${down} do`, "more"]
    : [`more than ${up} of the blocks are used`, `less than ${down} are`, "less"];
  const defaults = defaultThresholds(metric);
  return `--scale-up-threshold ${up} and --scale-down-threshold ${down} contradict each other: with ` +
    `load metric ${metric} an instance is added when ${adds} and removed when ${removes}, so that ` +
    `instances come and go all the time; --scale-down-threshold must be ${order} than ` +
    `--scale-up-threshold (defaults: ${defaults.scaleUpThreshold} and ${defaults.scaleDownThreshold})`;
}
