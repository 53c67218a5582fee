/**
 * Runs all tests, in two processes at once: the end-to-end tests beside all others. Most of them
 * wait for time limits and for other processes, so that two cores are done in little over half the time.
 *
 *   deno run -A scripts/test.ts [ARGUMENTS OF deno test]
 *
 * With arguments it is `deno test -A ARGUMENTS`. The last line counts both: "ok | 10 passed | 0
 * failed | 1 ignored". Exit code 1 when a test fails, or when a process ends without a count.
 */
import { readSummary, type TestCounts } from "./test_summary.ts";

const END_TO_END = "test/e2e";

interface Run {
  readonly counts: TestCounts | null;
  readonly code: number;
  readonly output: string;
}

if (import.meta.main) Deno.exit(await main(Deno.args));

async function main(args: readonly string[]): Promise<number> {
  if (args.length > 0) {
    return (await new Deno.Command(Deno.execPath(), command(args)).spawn().status).code;
  }
  const endToEnd = run([END_TO_END]);
  const others = await run([`--ignore=${END_TO_END}`], (bytes) => Deno.stdout.writeSync(bytes));
  console.log(`\n== ${END_TO_END}, which ran beside the tests above`);
  const last = await endToEnd;
  console.log(last.output);
  return report([others, last]);
}

function command(args: readonly string[]): Deno.CommandOptions {
  return { args: ["test", "-A", ...args], stdin: "null" };
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
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  const take = async (stream: ReadableStream<Uint8Array<ArrayBuffer>>) => {
    for await (const bytes of stream) {
      pieces.push(bytes);
      show?.(bytes);
    }
  };
  const [{ code }] = await Promise.all([child.status, take(child.stdout), take(child.stderr)]);
  const output = await new Blob(pieces).text();
  return { counts: readSummary(output), code, output };
}

function report(runs: readonly Run[]): number {
  const total = { passed: 0, failed: 0, ignored: 0 };
  let isWell = true;
  for (const { counts, code, output } of runs) {
    total.passed += counts?.passed ?? 0;
    total.failed += counts?.failed ?? 0;
    total.ignored += counts?.ignored ?? 0;
    // An error outside of the tests, such as a file that does not load, is in the exit code alone.
    if (counts === null || (code !== 0 && counts.failed === 0)) total.failed++;
    if (code === 0 && counts !== null) continue;
    isWell = false;
    // Once more, where it is seen: the log of a whole run is long.
    console.log(output.slice(output.lastIndexOf(" ERRORS ")));
  }
  const { passed, failed, ignored } = total;
  console.log(
    `\n${isWell ? "ok" : "FAILED"} | ${passed} passed | ${failed} failed | ${ignored} ignored`,
  );
  return isWell ? 0 : 1;
}
