/** Checks of a new executable before it is started in the place of the old one. */
import { ConflictError } from "../../core/errors.ts";
import { fileProblem } from "../../core/file_problem.ts";

/** The first run of an executable may unpack it. */
const TIMEOUT_MS = 60_000;
/** Characters of a failed program's output that its error shows. */
const MAX_SHOWN_CHARS = 1_000;

/**
 * Runs the executable twice: it must tell its version, and accept the arguments of this process.
 * @param command the words that start it
 * @param argv the arguments of this process, from the name of its role on
 * @throws {ConflictError} it cannot be run, is another program, or refuses the arguments
 */
export async function checkCandidate(
  command: readonly string[],
  argv: readonly string[],
): Promise<void> {
  const { code, output } = await run([...command, "--version"]);
  if (code !== 0 || !/^llumnix \S/m.test(output)) {
    throw new ConflictError(
      `${command[0]} is not this program, or does not run here: --version ended with code ${code}` +
        ` and said: ${shown(output.trim().split("\n")[0])}`,
    );
  }
  // Reads the arguments and the configuration file, and looks at nothing else.
  const check = await run([...command, ...argv, "--print-config"]);
  if (check.code === 0) return;
  throw new ConflictError(
    `${command[0]} refuses the arguments of this process: ${shown(check.output)}`,
  );
}

async function run([program, ...args]: readonly string[]) {
  const limit = AbortSignal.timeout(TIMEOUT_MS);
  try {
    const child = new Deno.Command(program, { args, stdin: "null", signal: limit });
    const { code, stdout, stderr } = await child.output();
    if (limit.aborted) {
      throw new ConflictError(`${program} did not end within ${TIMEOUT_MS / 1000} s`);
    }
    const output = [stdout, stderr].map((bytes) => new TextDecoder().decode(bytes)).join("");
    return { code, output };
  } catch (error) {
    if (error instanceof ConflictError) throw error;
    throw new ConflictError(`${program} cannot be started: ${fileProblem(error)}`, {
      cause: error,
    });
  }
}

function shown(output: string): string {
  const text = output.trim();
  return text === "" ? "nothing" : text.slice(-MAX_SHOWN_CHARS);
}
