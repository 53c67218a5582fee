/**
 * Reports that a manager takes in a second, of all instances together: 256 instances every 50 ms. Each takes
 * about 20 us of a core, most of it in the system calls that bring it here.
 */
const MAX_REPORTS_PER_SECOND = 5_120;
/** Instances are told another interval when it differs by more than this factor. */
const TOLERANCE = 1.25;

/**
 * How often instances report: every `--polling-interval`, or less often where so many of them would take a
 * large part of the manager's core. Dispatch does not wait for reports: it counts what it has sent.
 */
export class ReportPace {
  #intervalMs: number;

  /** @param pollingIntervalMs of `--polling-interval` */
  constructor(private readonly pollingIntervalMs: number) {
    this.#intervalMs = pollingIntervalMs;
  }

  /** Least time between two reports of an instance. */
  get intervalMs(): number {
    return this.#intervalMs;
  }

  /** Instances need not be told: they report as often as they are told when they join. */
  get isUsual(): boolean {
    return this.#intervalMs === this.pollingIntervalMs;
  }

  /** So many instances serve now. @returns whether the interval has changed */
  update(numInstances: number): boolean {
    const neededMs = Math.max(
      this.pollingIntervalMs,
      1_000 * numInstances / MAX_REPORTS_PER_SECOND,
    );
    const isUsual = neededMs === this.pollingIntervalMs;
    const ratio = neededMs / this.#intervalMs;
    if (ratio <= TOLERANCE && ratio >= 1 / TOLERANCE && isUsual === this.isUsual) return false;
    if (neededMs === this.#intervalMs) return false;
    this.#intervalMs = neededMs;
    return true;
  }
}
