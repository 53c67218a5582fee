/**
 * Runs what takes too long for every run of the suite, one set after the other, and writes the outcome to
 * `test/long.md`, which is committed: the tests that `test/long.ts` leaves out otherwise, random faults of
 * NCCL, and the whole GPU verification on the software device.
 *
 *   deno run -A scripts/test_long.ts [SET...]
 *
 * Exit code 1 when a set fails, 2 for a set that is not there.
 */
import { type SetOutcome, summaryWith } from "./long_summary.ts";
import { writeReport } from "./report_file.ts";
import { readSummary } from "./test_summary.ts";

const root = new URL("../", import.meta.url);
const summary = new URL("test/long.md", root);

interface LongSet {
  readonly name: string;
  readonly command: () => readonly string[];
  readonly limitS: number;
}

const deno = (...words: string[]) => [Deno.execPath(), ...words];

const sets: readonly LongSet[] = [
  {
    name: "tests",
    command: () => deno("test", "-A", ...longTestFiles()),
    limitS: 1_800,
  },
  {
    name: "nccl-fuzz",
    command: () => deno("run", "-A", "scripts/nccl_fuzz.ts", "40"),
    limitS: 600,
  },
  {
    name: "gpu-verify",
    command: () => ["scripts/gpu_verify.sh", "--software-device", "--out", "dist/gpu_verify"],
    limitS: 1_080,
  },
];

/** Files whose tests have a long part. */
function longTestFiles(directory = "test"): string[] {
  return [...Deno.readDirSync(new URL(directory, root))].flatMap(({ name, isDirectory }) => {
    const path = `${directory}/${name}`;
    if (isDirectory) return longTestFiles(path);
    const isLong = name.endsWith("_test.ts") &&
      /longTest\(|\bisLong/.test(Deno.readTextFileSync(new URL(path, root)));
    return isLong ? [path] : [];
  }).sort();
}

async function run({ name, command, limitS }: LongSet): Promise<SetOutcome> {
  const [program, ...args] = command();
  console.log(`== ${name}: ${[program, ...args].join(" ")}`);
  const startMs = performance.now();
  const child = new Deno.Command(program, {
    args,
    cwd: root,
    env: { LLUMNIX_TEST_LONG: "1", NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "inherit",
    signal: AbortSignal.timeout(limitS * 1_000),
  }).spawn();
  let output = "";
  for await (const text of child.stdout.pipeThrough(new TextDecoderStream())) {
    output += text;
    await Deno.stdout.write(new TextEncoder().encode(text));
  }
  const { code, signal } = await child.status;
  const counts = readSummary(output);
  const said = counts === null
    ? output.trim().split("\n").at(-1) ?? ""
    : `${counts.passed} passed, ${counts.failed} failed, ${counts.ignored} ignored`;
  return {
    name,
    isWell: code === 0,
    tookS: Math.round((performance.now() - startMs) / 1_000),
    said: signal === "SIGTERM" ? `over its limit of ${limitS} s` : said,
    on: await conditions(),
  };
}

/** What the sets run on. */
async function conditions(): Promise<string> {
  const args = ["rev-parse", "--short", "HEAD"];
  const { stdout } = await new Deno.Command("git", { args, cwd: root }).output();
  const commit = new TextDecoder().decode(stdout).trim();
  const date = new Date().toISOString().slice(0, 10);
  const e2e = Deno.env.get("LLUMNIX_E2E_SOURCE") === "1" ? "the source" : "the executable";
  return `${date}, ${commit}, ${navigator.hardwareConcurrency} cores, e2e tests of ${e2e}`;
}

async function write(outcomes: readonly SetOutcome[]): Promise<void> {
  const before = await Deno.readTextFile(summary).catch(() => "");
  const names = sets.map(({ name }) => name);
  await writeReport(summary, summaryWith(before, names, outcomes));
}

if (import.meta.main) {
  const unknown = Deno.args.find((name) => sets.every((set) => set.name !== name));
  if (unknown !== undefined) {
    const names = sets.map(({ name }) => name).join(", ");
    console.error(`test-long: error: unknown set: ${unknown}; expected some of ${names}`);
    Deno.exit(2);
  }
  const chosen = sets.filter(({ name }) => Deno.args.length === 0 || Deno.args.includes(name));
  const outcomes: SetOutcome[] = [];
  for (const set of chosen) {
    outcomes.push(await run(set));
    await write(outcomes);
  }
  for (const { name, isWell, tookS, said } of outcomes) {
    console.log(`${name.padEnd(12)} ${isWell ? "passed" : "FAILED"} ${tookS} s: ${said}`);
  }
  if (outcomes.some(({ isWell }) => !isWell)) Deno.exit(1);
}
