import type { LoadMetricName } from "../../core/options.ts";

/** Loads at which the manager acts, as they are written: always positive. */
export interface Thresholds {
  readonly migrateOutThreshold: number;
  readonly scaleUpThreshold: number;
  readonly scaleDownThreshold: number;
}

/** Steps are Llumnix's defaults; it has none for a ratio. */
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

/** Whether a metric counts steps, so that a threshold stands for a load of the opposite sign. */
export function countsSteps(metric: LoadMetricName): boolean {
  return metric !== "usage_ratio";
}

/** What unset thresholds are. */
export function defaultThresholds(metric: LoadMetricName): Thresholds {
  return countsSteps(metric) ? inSteps : inFractions;
}

/** The load that a threshold stands for: 3 remaining steps are a load of -3. */
export function thresholdLoad(metric: LoadMetricName, threshold: number): number {
  return countsSteps(metric) ? -threshold : threshold;
}

/** What is wrong with a threshold, for a message after its name and value; null when nothing is. */
export function thresholdProblem(metric: LoadMetricName, threshold: number): string | null {
  if (countsSteps(metric)) {
    return threshold > 0 ? null : `with load metric ${metric} it is a number of steps, greater ` +
      "than 0 (a load is over it when fewer steps remain)";
  }
  if (threshold > 0 && threshold <= 1) return null;
  return `with load metric ${metric} it is a fraction of the blocks, greater than 0 and at most 1 ` +
    "(with remaining_steps it is a number of steps)";
}

/**
 * What is wrong with the thresholds for scaling, each fine by itself; null when nothing is. There has to
 * be a load between them: at any that is over the one and under the other an instance comes and goes.
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
