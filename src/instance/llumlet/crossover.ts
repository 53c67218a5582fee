/**
 * Move a request's KV cache, or compute it again at the destination? `--migration-crossover` decides: by
 * the request's length alone, or with `auto` by the measured speed of the path as well.
 */
import type { InstanceId } from "../../core/protocol/generate.ts";
import type { MigrationDestination, MigrationReport } from "../../core/protocol/migration.ts";

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

/** What a migration shows of the path to its destination. */
export interface FastCopies {
  /** Bytes and time of the copies that nothing slowed down on purpose. */
  readonly bytes: number;
  readonly ms: number;
  /** Instead: of a copy that was given up because it took too long. It would have taken more time. */
  readonly isLate: boolean;
}

/** Where a path leads; its host is named if that is another one than the source's. */
export type PathEnd = Pick<MigrationDestination, "instanceId" | "hostName">;

/** What moving to an instance took, latest migrations first in weight. */
interface Path {
  bytes: number;
  /** Of the copies of {@linkcode bytes}. */
  copyMs: number;
  /** Of a migration, beside its copies. */
  besideMs: number;
  measuredMs: number;
  /** So many tokens did not get through in time; Infinity: all did. */
  lateTokens: number;
  lateMs: number;
  /** What the owner was told last. */
  isSlow: boolean | null;
}

/** A path as it is measured: for the log. */
export interface PathMeasure {
  readonly destinationId: InstanceId;
  /** Of the destination, if that is another host. */
  readonly hostName?: string;
  /** Tokens whose KV cache is moved in a second. */
  readonly movedTokensPerSecond: number;
  readonly besideMs: number;
  /** Tokens of prompts that this instance computes in a second. */
  readonly prefillTokensPerSecond: number;
  /** Requests of fewer tokens are recomputed faster; Infinity: all are. */
  readonly crossoverTokens: number;
  /** Requests of as many tokens or more take too long to move; Infinity: none does. */
  readonly lateTokens: number;
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
  /** By name of another host: the path to the instance there to which a request moved last. */
  readonly #hostPaths = new Map<string, Path>();

  constructor(args: CrossoverArgs) {
    this.#args = args;
  }

  /**
   * Whether a running request of this length is to be recomputed at the destination. If no request has
   * moved there yet, the path to another instance of the same other host says it.
   */
  recomputes(lengthTokens: number, end: PathEnd): boolean {
    const { setting } = this.#args;
    if (setting !== "auto") return lengthTokens < setting;
    const path = this.#ifRecent(this.#paths.get(end.instanceId)) ??
      this.#ifRecent(this.#hostPaths.get(end.hostName ?? ""));
    const measure = path && this.#measure(end, path);
    return measure !== null &&
      (lengthTokens < measure.crossoverTokens || lengthTokens >= measure.lateTokens);
  }

  #ifRecent(path: Path | undefined): Path | null {
    return path !== undefined && this.#args.nowMs() - path.measuredMs <= MEASURE_MS ? path : null;
  }

  /**
   * Takes the measure of a migration that committed, or that was given up because copying took too long.
   * @param end where the request moved to
   */
  note(report: MigrationReport, fast: FastCopies, end: PathEnd): void {
    const { transfer, totalMs } = report;
    if (fast.bytes === 0 || (report.outcome !== "committed" && !fast.isLate)) return;
    const besideMs = Math.max(0, totalMs - (fast.isLate ? fast.ms : transfer.transferMs));
    const { instanceId, hostName } = end;
    const before = this.#paths.get(instanceId);
    const path: Path = {
      bytes: (before?.bytes ?? 0) * MEMORY + fast.bytes,
      copyMs: (before?.copyMs ?? 0) * MEMORY + fast.ms,
      besideMs: before === undefined
        ? besideMs
        : before.besideMs * MEMORY + besideMs * (1 - MEMORY),
      measuredMs: this.#args.nowMs(),
      lateTokens: before?.lateTokens ?? Infinity,
      lateMs: before?.lateMs ?? 0,
      isSlow: before?.isSlow ?? null,
    };
    if (fast.isLate) {
      path.lateTokens = fast.bytes / this.#args.bytesPerToken;
      path.lateMs = path.measuredMs;
    }
    keep(this.#paths, instanceId, path);
    if (hostName !== undefined) keep(this.#hostPaths, hostName, path);
    const measure = this.#measure(end, path);
    const isSlow = measure?.crossoverTokens === Infinity || fast.isLate;
    if (measure === null || isSlow === path.isSlow) return;
    path.isSlow = isSlow;
    this.#args.onMeasure?.(measure);
  }

  /** Null while no prompt was computed. */
  #measure(
    { instanceId, hostName }: PathEnd,
    { bytes, copyMs, besideMs, lateTokens, lateMs }: Path,
  ): PathMeasure | null {
    const prefillMs = this.#args.prefillTokenMs();
    if (prefillMs === null || prefillMs <= 0) return null;
    const moveMs = copyMs / bytes * this.#args.bytesPerToken;
    return {
      destinationId: instanceId,
      hostName,
      movedTokensPerSecond: 1_000 / moveMs,
      besideMs,
      prefillTokensPerSecond: 1_000 / prefillMs,
      // Some shorter ones would be late as well: nobody knows by how much that copy was.
      lateTokens: this.#args.nowMs() - lateMs > MEASURE_MS ? Infinity : lateTokens / 2,
      crossoverTokens: moveMs >= prefillMs ? Infinity : besideMs / (prefillMs - moveMs),
    };
  }
}

/** Remembers a path as the one used last. The one used least recently goes: its end is most probably gone. */
function keep(paths: Map<string, Path>, name: string, path: Path): void {
  paths.delete(name);
  paths.set(name, path);
  if (paths.size > MAX_PATHS) paths.delete(paths.keys().next().value!);
}

/** A line for the log. */
export function describePath(measure: PathMeasure, setting: CrossoverSetting): string {
  const { destinationId, hostName, movedTokensPerSecond, besideMs, prefillTokensPerSecond } =
    measure;
  const { crossoverTokens, lateTokens } = measure;
  const where = hostName === undefined ? destinationId : `${destinationId} on ${hostName}`;
  const path = `the path to ${where} moves ${Math.round(movedTokensPerSecond)} tokens/s ` +
    `beside ${besideMs.toFixed(1)} ms a migration, and prompts are computed at ` +
    `${Math.round(prefillTokensPerSecond)} tokens/s: `;
  const isAuto = setting === "auto";
  if (lateTokens < Infinity && crossoverTokens < Infinity) {
    return path + `requests of ${Math.ceil(lateTokens)} tokens or more take too long to move; ` +
      (isAuto ? "they are recomputed there" : "see --migration-crossover auto");
  }
  if (crossoverTokens === Infinity) {
    return path + "moving is slower than recomputing for every request; " +
      (isAuto ? "requests are recomputed there" : "see --migration-crossover auto");
  }
  return path + `requests below ${Math.ceil(crossoverTokens)} tokens are recomputed faster` +
    (isAuto ? ", and they are" : "");
}
