/** Makes the executable by `deno compile`, which needs `denort`. */

/** Longer than the download of denort takes; without a network it fails at once. */
const timeLimitMs = 30_000;

/**
 * Compiles the bundled program, with the files beside its main module, into `outputPath`.
 * @returns null, or why it cannot be compiled here
 */
export async function compileApp(
  appDirectory: string,
  mainModule: string,
  outputPath: string,
  unstableFlags: readonly string[],
): Promise<string | null> {
  const flags = ["-A", "--no-check", "--no-config", "--no-lock", "--no-npm", "--no-remote"];
  const compiled = await run(Deno.execPath(), [
    ...["compile", "--quiet", ...flags, ...unstableFlags],
    ...["--include", appDirectory, "--output", outputPath, `${appDirectory}/${mainModule}`],
  ]);
  if (compiled !== null) return `denort is not available: ${compiled}`;
  // If DENORT_BIN names the deno CLI, compiling "succeeds" and the result is that CLI.
  const probe = await new Deno.Command(outputPath, { args: ["--version"], stdin: "null" }).output();
  if (new TextDecoder().decode(probe.stdout).startsWith("llumnix ")) return null;
  await Deno.remove(outputPath);
  return "the result of deno compile is not this program: DENORT_BIN does not name a denort";
}

/** Null if the command succeeds within the time limit, otherwise its error in one line. */
async function run(command: string, args: string[]): Promise<string | null> {
  const limit = AbortSignal.timeout(timeLimitMs);
  const child = new Deno.Command(command, {
    args,
    stdin: "null",
    stdout: "null",
    stderr: "piped",
    env: { NO_COLOR: "1" },
    signal: limit,
  });
  const { success, stderr } = await child.output();
  if (success) return null;
  if (limit.aborted) return `it took more than ${timeLimitMs / 1000} s`;
  // The causes are numbered, the innermost last.
  const [message] = new TextDecoder().decode(stderr).split("Stack backtrace:");
  const lines = message.split("\n").map((line) => line.trim());
  return lines.findLast((line) => /^(\d+: |error)/.test(line))?.replace(/^\d+: /, "") ?? lines[0];
}
