/**
 * Runs all tests, in two processes at once: the end-to-end tests beside all others. Most of them
 * wait for time limits and for other processes, so that two cores are done in little over half the time.
 *
 *   deno run -A scripts/test.ts [ARGUMENTS OF deno test]
 *
 * With arguments it is `deno test -A --no-check ARGUMENTS`. After a run with at most three failed tests, their files
 * run once more, alone (`second_run.ts`). The last line counts all: "ok | 10 passed | 0 failed | 1 ignored",
 * and " | 1 unsteady" for a test that passed only alone. Exit code 1 when a test fails, or when a process
 * ends without a count.
 */
import { closingLines, judge, type TestRun } from "./second_run.ts";
import { readSummary } from "./test_summary.ts";

const END_TO_END = "test/e2e";

interface Run extends TestRun {
  /** Stdout and stderr, as they came. */
  readonly output: string;
}

if (import.meta.main) Deno.exit(await main(Deno.args));

async function main(args: readonly string[]): Promise<number> {
  if (args.length > 0) {
    return (await new Deno.Command(Deno.execPath(), command(args)).spawn().status).code;
  }
  const show = (bytes: Uint8Array) => void Deno.stdout.writeSync(bytes);
  const endToEnd = run([END_TO_END]);
  const others = await run([`--ignore=${END_TO_END}`], show);
  console.log(`\n== ${END_TO_END}, which ran beside the tests above`);
  const last = await endToEnd;
  console.log(last.output);
  for (const { code, output } of [others, last]) {
    // Once more, where it is seen: the log of a whole run is long.
    if (code !== 0) console.log(output.slice(output.lastIndexOf(" ERRORS ")));
  }
  const verdict = await judge([others, last], (file) => {
    console.log(`\n== ${file} once more, alone`);
    return run([file], show);
  });
  console.log(`\n${closingLines(verdict).join("\n")}`);
  return verdict.failed === 0 ? 0 : 1;
}

/** Types are left to `deno task check`: both processes would check them all once more. */
function command(args: readonly string[]): Deno.CommandOptions {
  return { args: ["test", "-A", "--no-check", ...args], stdin: "null" };
}

/** Runs `deno test`; its output is shown as it comes, or kept. */
async function run(
  args: readonly string[],
  show?: (bytes: Uint8Array) => void,
): Promise<Run> {
  const child = new Deno.Command(Deno.execPath(), {
    ...command(args),
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const pieces: Uint8Array<ArrayBuffer>[] = [], ofStdout: Uint8Array<ArrayBuffer>[] = [];
  const take = async (
    stream: ReadableStream<Uint8Array<ArrayBuffer>>,
    ...lists: Uint8Array<ArrayBuffer>[][]
  ) => {
    for await (const bytes of stream) {
      for (const list of lists) list.push(bytes);
      show?.(bytes);
    }
  };
  const [{ code }] = await Promise.all([
    child.status,
    take(child.stdout, pieces, ofStdout),
    take(child.stderr, pieces),
  ]);
  const [output, stdout] = await Promise.all([pieces, ofStdout].map((all) => new Blob(all).text()));
  return { counts: readSummary(stdout), code, output, stdout };
}
