/**
 * Move a request's KV cache, or compute it again at the destination? `--migration-crossover` decides: by
 * the request's length alone, or with `auto` by the measured speed of the path as well.
 */
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { MigrationReport } from "../../core/protocol/migration.ts";

/** Shorter requests are recomputed; `auto`: as the path to the destination is measured. */
export type CrossoverSetting = "auto" | number;

/** Weight of what was measured before in the measure of a path. */
const MEMORY = 0.8;
/** A path whose measure is older is measured again, by moving a request. */
const MEASURE_MS = 60_000;
/** Most paths that are remembered. */
const MAX_PATHS = 1_024;

/** Reads `--migration-crossover`; null if it is neither `auto` nor a number of tokens. */
export function parseCrossover(text: string): CrossoverSetting | null {
  if (text === "auto") return text;
  return /^\d{1,9}$/.test(text) ? Number(text) : null;
}

/** What is wrong with `--migration-crossover`; null if nothing is. */
export function crossoverProblem(text: string): string | null {
  if (parseCrossover(text) !== null) return null;
  return `--migration-crossover ${text}: expected auto or a number of tokens, such as 512`;
}

/** What moving to an instance took, latest migrations first in weight. */
interface Path {
  bytes: number;
  /** Of the copies of {@linkcode bytes}. */
  copyMs: number;
  /** Of a migration, beside its copies. */
  besideMs: number;
  measuredMs: number;
  /** What the owner was told last. */
  isSlow: boolean | null;
}

/** A path as it is measured: for the log. */
export interface PathMeasure {
  readonly destinationId: InstanceId;
  /** Tokens whose KV cache is moved in a second. */
  readonly movedTokensPerSecond: number;
  readonly besideMs: number;
  /** Tokens of prompts that this instance computes in a second. */
  readonly prefillTokensPerSecond: number;
  /** Requests of fewer tokens are recomputed faster; Infinity: all are. */
  readonly crossoverTokens: number;
}

export interface CrossoverArgs {
  readonly setting: CrossoverSetting;
  /** Of the KV cache over all layers. */
  readonly bytesPerToken: number;
  nowMs(): number;
  /** Milliseconds in which this instance computes a token of a prompt; null before the first prompt. */
  prefillTokenMs(): number | null;
  /** Told of a path when it is measured first, and when it becomes slower than recomputing or faster. */
  readonly onMeasure?: (measure: PathMeasure) => void;
}

/** Decides for the source, which knows its paths and, as all instances have one model, the prefill speed. */
export class Crossover {
  readonly #args: CrossoverArgs;
  readonly #paths = new Map<InstanceId, Path>();

  constructor(args: CrossoverArgs) {
    this.#args = args;
  }

  /** Whether a running request of this length is to be recomputed at the destination. */
  recomputes(lengthTokens: number, destinationId: InstanceId): boolean {
    const { setting, nowMs } = this.#args;
    if (setting !== "auto") return lengthTokens < setting;
    const path = this.#paths.get(destinationId);
    if (path === undefined || nowMs() - path.measuredMs > MEASURE_MS) return false;
    const measure = this.#measure(destinationId, path);
    return measure !== null && lengthTokens < measure.crossoverTokens;
  }

  /**
   * Takes the measure of a migration.
   * @param fast bytes and time of the copies that nothing slowed down on purpose
   */
  note(report: MigrationReport, fast: { readonly bytes: number; readonly ms: number }): void {
    const { destinationId, transfer, totalMs } = report;
    if (report.outcome !== "committed" || fast.bytes === 0) return;
    const besideMs = Math.max(0, totalMs - transfer.transferMs);
    const before = this.#paths.get(destinationId);
    const path: Path = {
      bytes: (before?.bytes ?? 0) * MEMORY + fast.bytes,
      copyMs: (before?.copyMs ?? 0) * MEMORY + fast.ms,
      besideMs: before === undefined
        ? besideMs
        : before.besideMs * MEMORY + besideMs * (1 - MEMORY),
      measuredMs: this.#args.nowMs(),
      isSlow: before?.isSlow ?? null,
    };
    this.#paths.delete(destinationId);
    this.#paths.set(destinationId, path);
    // The path that was used least recently: its instance is most probably gone.
    if (this.#paths.size > MAX_PATHS) this.#paths.delete(this.#paths.keys().next().value!);
    const measure = this.#measure(destinationId, path);
    const isSlow = measure?.crossoverTokens === Infinity;
    if (measure === null || isSlow === path.isSlow) return;
    path.isSlow = isSlow;
    this.#args.onMeasure?.(measure);
  }

  /** Null while no prompt was computed. */
  #measure(destinationId: InstanceId, { bytes, copyMs, besideMs }: Path): PathMeasure | null {
    const prefillMs = this.#args.prefillTokenMs();
    if (prefillMs === null || prefillMs <= 0) return null;
    const moveMs = copyMs / bytes * this.#args.bytesPerToken;
    return {
      destinationId,
      movedTokensPerSecond: 1_000 / moveMs,
      besideMs,
      prefillTokensPerSecond: 1_000 / prefillMs,
      crossoverTokens: moveMs >= prefillMs ? Infinity : besideMs / (prefillMs - moveMs),
    };
  }
}

/** A line for the log. */
export function describePath(measure: PathMeasure, setting: CrossoverSetting): string {
  const { destinationId, movedTokensPerSecond, besideMs, prefillTokensPerSecond } = measure;
  const { crossoverTokens } = measure;
  const path = `the path to ${destinationId} moves ${Math.round(movedTokensPerSecond)} tokens/s ` +
    `beside ${besideMs.toFixed(1)} ms a migration, and prompts are computed at ` +
    `${Math.round(prefillTokensPerSecond)} tokens/s: `;
  const isAuto = setting === "auto";
  if (crossoverTokens === Infinity) {
    return path + "moving is slower than recomputing for every request; " +
      (isAuto ? "requests are recomputed there" : "see --migration-crossover auto");
  }
  return path + `requests below ${Math.ceil(crossoverTokens)} tokens are recomputed faster` +
    (isAuto ? ", and they are" : "");
}
