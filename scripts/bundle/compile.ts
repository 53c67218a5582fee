/** The executable by `deno compile`, for which `denort` has to be had. */

/** Longer than it takes to download denort; without a network the answer comes at once. */
const timeLimitMs = 30_000;

/**
 * Compiles the bundled program into `outputPath`.
 * @returns null, or the reason why it cannot be done here
 */
export async function compileApp(
  appPath: string,
  outputPath: string,
  unstableFlags: readonly string[],
): Promise<string | null> {
  const flags = ["-A", "--no-check", "--no-config", "--no-lock", "--no-npm", "--no-remote"];
  const compiled = await run(Deno.execPath(), [
    ...["compile", "--quiet", ...flags, ...unstableFlags],
    ...["--output", outputPath, appPath],
  ]);
  if (compiled !== null) return `denort cannot be had: ${compiled}`;
  // With DENORT_BIN naming the deno CLI, compiling "succeeds" and the result is that CLI.
  const probe = await new Deno.Command(outputPath, { args: ["--version"], stdin: "null" }).output();
  if (new TextDecoder().decode(probe.stdout).startsWith("llumnix ")) return null;
  await Deno.remove(outputPath);
  return "deno compile made something else than this program: DENORT_BIN names no denort";
}

/** Null when the command succeeds within the time limit, else what went wrong in one line. */
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
  if (limit.aborted) return `not done within ${timeLimitMs / 1000} s`;
  // The causes are numbered, the innermost last.
  const [message] = new TextDecoder().decode(stderr).split("Stack backtrace:");
  const lines = message.split("\n").map((line) => line.trim());
  return lines.findLast((line) => /^(\d+: |error)/.test(line))?.replace(/^\d+: /, "") ?? lines[0];
}
