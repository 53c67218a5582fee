/** Checks of a new executable before it is started in the place of the old one. */
import { type Clock, realClock } from "../../core/clock.ts";
import { ConflictError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { endOfText, signalIfRunning } from "./child.ts";

/** The first run of an executable may unpack it. */
const TIMEOUT_MS = 60_000;
/** How long a program that has ended may keep its output open: what it has started may hold it. */
const OUTPUT_TIMEOUT_MS = 1_000;
/** Characters of a failed program's output that its error shows. */
const MAX_SHOWN_CHARS = 1_000;

export interface CheckOptions {
  /** Time for each of the two runs. Default: a minute. */
  readonly timeoutMs?: number;
  /** Ends the check, because this process stops. */
  readonly signal?: AbortSignal;
  readonly clock?: Clock;
}

/**
 * Runs the executable twice: it must tell its version, and accept the arguments of this process.
 * @param command the words that start it
 * @param argv the arguments of this process, from the name of its role on
 * @throws {ConflictError} it cannot be run, takes too long, is another program, or refuses the
 *   arguments; or this process stops
 */
export async function checkCandidate(
  command: readonly string[],
  argv: readonly string[],
  options: CheckOptions = {},
): Promise<void> {
  const { code, output } = await run([...command, "--version"], options);
  if (code !== 0 || !/^llumnix \S/m.test(output)) {
    throw new ConflictError(
      `${command[0]} is not this program, or does not run here: --version ended with code ${code}` +
        ` and said: ${shown(output.trim().split("\n")[0])}`,
    );
  }
  // Reads the arguments and the configuration file, and looks at nothing else.
  const check = await run([...command, ...argv, "--print-config"], options);
  if (check.code === 0) return;
  throw new ConflictError(
    `${command[0]} refuses the arguments of this process: ${shown(check.output)}`,
  );
}

/** @throws {ConflictError} it cannot be started, takes too long and is killed, or this process stops */
async function run([program, ...args]: readonly string[], options: CheckOptions) {
  const { timeoutMs = TIMEOUT_MS, signal, clock = realClock } = options;
  const stopping = () => new ConflictError("this process is stopping");
  if (signal?.aborted) throw stopping();
  const child = spawn(program, args);
  let failure: ConflictError | null = null;
  const kill = (error: ConflictError) => {
    failure ??= error;
    signalIfRunning(child, "SIGKILL"); // it may ignore SIGTERM, and has nothing to put in order
  };
  const cancelTimer = clock.after(timeoutMs, () => {
    const what = [program, args.at(-1)].join(" ");
    kill(new ConflictError(`${what} did not end within ${timeoutMs / 1000} s`));
  });
  const stop = () => kill(stopping());
  signal?.addEventListener("abort", stop);
  const texts = [child.stdout, child.stderr].map((stream) => endOfText(stream, MAX_SHOWN_CHARS));
  try {
    const { code } = await child.status;
    const cancelWait = clock.after(OUTPUT_TIMEOUT_MS, () => texts.forEach((text) => text.stop()));
    const output = (await Promise.all(texts.map((text) => text.whole))).join("");
    cancelWait();
    if (failure !== null) throw failure;
    return { code, output };
  } finally {
    cancelTimer();
    signal?.removeEventListener("abort", stop);
  }
}

function spawn(program: string, args: string[]) {
  try {
    const options = { args, stdin: "null", stdout: "piped", stderr: "piped" } as const;
    return new Deno.Command(program, options).spawn();
  } catch (error) {
    throw new ConflictError(`${program} cannot be started: ${fileProblem(error)}`, {
      cause: error,
    });
  }
}

function shown(output: string): string {
  const text = output.trim();
  return text === "" ? "nothing" : text.slice(-MAX_SHOWN_CHARS);
}
