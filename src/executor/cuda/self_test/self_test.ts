/**
 * The self-test: before a device serves for the first time, its kernels are compared with those of the CPU,
 * each attempt in a process of its own, which a faulting kernel may take with it. A fast path that is wrong
 * is left out, if the device is right without it.
 */
import { UsageError } from "../../../core/errors.ts";
import { selfCommand } from "../../../core/self_command.ts";
import type { EngineOptions } from "../../../core/options.ts";
import type { ResolvedModel } from "../../../model/resolve.ts";
import type { SelfTest, SelfTestDevice, SelfTestOutcome } from "../load.ts";
import { type CudaPath, cudaPaths } from "../paths.ts";
import { cacheKey, readOutcome, writeOutcome } from "./cache.ts";
import type { CaseResult } from "./cases.ts";
import { encodeTask } from "./child.ts";
import { testedModel } from "./model.ts";
import type { SelfTestTask } from "./run.ts";

/** Tokens of the longest prompt: two parts of a context on a GPU; the software device is slow. */
const LONGEST_PROMPT = 300, LONGEST_ON_SOFTWARE = 24;
/** An attempt takes a second or two on a GPU. */
const ATTEMPT_LIMIT_MS = 60_000;

/** What came of one attempt. */
export interface Attempt {
  readonly plain: readonly CudaPath[];
  readonly cases: readonly CaseResult[];
  /** How the kernels or their process ended, if there are no results. */
  readonly fault: string | null;
  /** Why the process could not run the test, which says nothing of the kernels. */
  readonly unable?: string;
}

export const isPassed = ({ error, limit }: CaseResult): boolean => error <= limit;

export function hasPassed({ cases, fault }: Attempt): boolean {
  return fault === null && cases.length > 0 && cases.every(isPassed);
}

/** Runs one attempt; replaced in tests. */
export type Try = (task: SelfTestTask) => Promise<Attempt>;

/** The self-test of `--cuda-self-test`, whose outcome is kept for the next start. */
export const selfTest: SelfTest = async (model, device, options, plain) => {
  if (options.cudaSelfTest === "off") return { plain, warnings: [] };
  const task = taskFor(model, device, options, plain);
  const key = await cacheKey(task.model, device, options, plain);
  const known = options.cudaSelfTest === "auto" ? await readOutcome(key) : null;
  if (known !== null) return known;
  const { name } = device.info;
  let isTested = true;
  const tryOnce: Try = async (task) => {
    const attempt = await tryInProcess(task);
    isTested &&= attempt.unable === undefined;
    return attempt;
  };
  const outcome = await findPlainPaths(task, tryOnce, `${name}, driver ${device.driverVersion}`);
  if (isTested) await writeOutcome(key, outcome);
  return outcome;
};

/** What a process tests for a model on a device. */
export function taskFor(
  model: ResolvedModel,
  { info, softwareDevice }: SelfTestDevice,
  options: EngineOptions,
  plain: readonly CudaPath[],
): SelfTestTask {
  const longest = softwareDevice ? LONGEST_ON_SOFTWARE : LONGEST_PROMPT;
  const small = testedModel(model, longest + 64);
  return { model: small, options, ordinal: info.ordinal, plain, longest };
}

/**
 * Tries all fast paths that are not excluded; if that is wrong, none; if that is right, all but one.
 * @param device for people
 * @throws {UsageError} nothing gives right results
 */
export async function findPlainPaths(
  task: SelfTestTask,
  tryOnce: Try,
  device: string,
): Promise<SelfTestOutcome> {
  const first = await tryOnce(task);
  if (first.unable !== undefined) {
    const warning = `${device} could not be tested, and serves all the same: ${first.unable}`;
    return { plain: task.plain, warnings: [warning] };
  }
  if (hasPassed(first)) return { plain: task.plain, warnings: [] };
  const passes = async (paths: readonly CudaPath[]) =>
    hasPassed(await tryOnce({ ...task, plain: [...task.plain, ...paths] }));
  const left = suspects(first).filter((path) => !task.plain.includes(path));
  if (left.length === 0 || !await passes(left)) {
    const what = first.fault === null ? "give wrong results" : "fail";
    throw new UsageError(
      `--device cuda: the kernels ${what} on ${device}, so nothing is served from it. ` +
        "Please report this with the output of `llumnix doctor --self-test`. " +
        `${
          describe(first)
        }. Use another device, or --device cpu; --cuda-self-test off serves all the same.`,
    );
  }
  let without: readonly CudaPath[] = left;
  for (const path of left) {
    if (!await passes([path])) continue;
    without = [path];
    break;
  }
  const warning = `The self-test of ${device} failed and passes without ${without.join(", ")}: ` +
    `serving so. ${describe(first)}. \`llumnix doctor --self-test\` repeats it.`;
  return { plain: [...task.plain, ...without], warnings: [warning] };
}

/** The fast paths, those first that explain a failure best. */
function suspects({ cases }: Attempt): CudaPath[] {
  const ofTokens: readonly CudaPath[] = ["ahead", "sampling"];
  const others = cudaPaths.filter((path) => !ofTokens.includes(path));
  const areLogitsRight = cases.length > 0 && cases.filter(({ limit }) => limit > 0).every(isPassed);
  return areLogitsRight ? [...ofTokens, ...others] : [...others, ...ofTokens];
}

/** What an attempt showed, in a line. */
export function describe({ cases, fault, unable }: Attempt): string {
  if (unable !== undefined) return `The test could not run: ${unable}`;
  if (fault !== null) return `The test broke off: ${fault}`;
  if (cases.length === 0) return "The test compared nothing";
  const shown = ({ name, error, limit }: CaseResult) =>
    `${name}: error ${
      error === Infinity ? "beyond measure" : error.toExponential(1)
    }, limit ${limit}`;
  return cases.filter((one) => !isPassed(one)).map(shown).join("; ") || "All cases pass";
}

/** Runs an attempt as `llumnix doctor child cuda-self-test`. */
export const tryInProcess: Try = async (task) => {
  const { plain } = task;
  const [command, ...leading] = selfCommand();
  const limit = AbortSignal.timeout(ATTEMPT_LIMIT_MS);
  const child = new Deno.Command(command, {
    args: [...leading, "doctor", "child", "cuda-self-test", encodeTask(task)],
    ...{ stdin: "null", stdout: "piped", stderr: "piped", signal: limit },
  });
  const { success, stdout, stderr, code, signal } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (limit.aborted) {
    return { plain, cases: [], fault: `it did not end in ${ATTEMPT_LIMIT_MS / 1000} s` };
  }
  const said = text(stderr).slice(-400) || "without a word";
  if (signal !== null) return { plain, cases: [], fault: `${signal}, ${said}` };
  if (!success) return { plain, cases: [], fault: null, unable: `code ${code}, ${said}` };
  return { plain, ...readAnswer(text(stdout)) };
};

function readAnswer(text: string): Pick<Attempt, "cases" | "fault" | "unable"> {
  const { cases = [], failure = null, unable } = JSON.parse(text.split("\n").at(-1)!);
  const numbers = (cases as (Omit<CaseResult, "error"> & { error: number | null })[])
    .map((one) => ({ ...one, error: one.error ?? Infinity }));
  return { cases: numbers, fault: failure, unable };
}
