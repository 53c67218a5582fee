/**
 * Takes each rule out of the NCCL pair in turn (`test/ffi/nccl/mutants.ts`), runs the scenarios over it,
 * and writes which scenario noticed it to `test/ffi/nccl/mutants.md`. Arguments: parts of rules, to run
 * these only and write nothing. Exit code 1 if a mutant is not noticed, or the pair as it is fails.
 */
import { type Mutant, mutants } from "../test/ffi/nccl/mutants.ts";
import { scenarios } from "../test/ffi/nccl/scenarios.ts";
import { buildSoftwareDevice } from "./build_software_device.ts";
import { writeReport } from "./report_file.ts";

const root = new URL("../", import.meta.url);
const path = (name: string) => decodeURIComponent(new URL(name, root).pathname);
const chosen = mutants.filter(({ rule }) =>
  Deno.args.length === 0 || Deno.args.some((part) => rule.includes(part))
);
if (chosen.length === 0) {
  console.error(
    `${Deno.args.join(" ")}: no rule matches: ${mutants.map(({ rule }) => rule).join("; ")}`,
  );
  Deno.exit(2);
}
/** For all scenarios, and for one; the event loop of a mutant may stand still. */
const LIMIT_MS = 90_000, LIMIT_OF_ONE_MS = 15_000;
/** After it a scenario says what it waits for; its runner ends it at ten seconds. */
const PATIENCE_MS = 5_000;
/** Mutants at a time: they mostly wait. */
const AT_A_TIME = 2;

/** A scenario that failed, by its number, and why. */
interface Failure {
  readonly index: number;
  readonly reason: string;
}

/** A copy of the bindings, with the mutant's change. */
async function copyWith(mutant: Mutant | null): Promise<string> {
  const folder = await Deno.makeTempDir({ prefix: "nccl-mutant-" });
  for (const directory of ["", "nccl/", "cuda/"]) {
    await Deno.mkdir(`${folder}/ffi/${directory}`, { recursive: true });
    for (const { name, isFile } of Deno.readDirSync(path(`ffi/${directory}`))) {
      if (!isFile || !name.endsWith(".ts")) continue;
      await Deno.copyFile(path(`ffi/${directory}${name}`), `${folder}/ffi/${directory}${name}`);
    }
  }
  if (mutant !== null) {
    const file = `${folder}/ffi/nccl/${mutant.file}`;
    const text = await Deno.readTextFile(file);
    if (text.split(mutant.from).length !== 2) {
      throw new Error(`"${mutant.rule}": its text does not occur once in ${mutant.file}`);
    }
    await Deno.writeTextFile(file, text.replace(mutant.from, () => mutant.to));
  }
  return folder;
}

/** Runs scenarios [first, end) over a copy; null if they all pass. */
async function run(
  folder: string,
  device: string,
  first = 0,
  end = scenarios.length,
): Promise<Failure | null> {
  const runner = path("test/ffi/nccl/run_scenarios.ts");
  const range = [String(first), String(end)];
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-check", runner, device, `${folder}/ffi/nccl`, ...range],
    env: {
      LLUMNIX_SOFTWARE_DEVICE: "progress=20",
      LLUMNIX_TEST_PATIENCE_MS: String(PATIENCE_MS),
      NO_COLOR: "1",
    },
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let isHung = false;
  const limitMs = end - first === 1 ? LIMIT_OF_ONE_MS : LIMIT_MS;
  const limit = setTimeout(() => (isHung = true, child.kill("SIGKILL")), limitMs);
  const { success, stdout, stderr } = await child.output();
  clearTimeout(limit);
  if (success) return null;
  const lines = new TextDecoder().decode(stdout).trim().split("\n");
  const reason = isHung
    ? "the process hangs"
    : lines.find((line) => line.startsWith("REASON "))?.slice(7) ??
      new TextDecoder().decode(stderr).split("\n")[0];
  const index = Number(lines.filter((line) => !line.startsWith("REASON ")).at(-1));
  return { index, reason };
}

/** The first scenario that fails twice: once alone is chance. */
async function noticedBy(folder: string, device: string): Promise<Failure | null> {
  for (let first = 0; first < scenarios.length;) {
    const failure = await run(folder, device, first);
    if (failure === null) return null;
    const { index } = failure;
    if (await run(folder, device, index, index + 1) !== null) return failure;
    console.error(`  not again: ${scenarios[index].name}: ${failure.reason}`);
    first = index + 1;
  }
  return null;
}

const built = await buildSoftwareDevice();
if ("missing" in built) throw new Error(`no software device: ${built.missing}`);
/** A copy: somebody may build the device anew meanwhile. */
const directory = `${await Deno.makeTempDir({ prefix: "nccl-mutants-device-" })}/`;
for (const { name, isFile } of Deno.readDirSync(built.directory)) {
  if (isFile && name.includes(".so")) await Deno.copyFile(built.directory + name, directory + name);
}

async function check(mutant: Mutant | null): Promise<Failure | null> {
  const folder = await copyWith(mutant);
  try {
    return await noticedBy(folder, directory);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const asItIs = await check(null);
if (asItIs !== null) {
  throw new Error(`the pair as it is fails: ${scenarios[asItIs.index].name}: ${asItIs.reason}`);
}
const rows: string[] = [];
let missed = 0, next = 0;

async function checkNext(): Promise<void> {
  for (let i = next++; i < chosen.length; i = next++) {
    const { rule, file } = chosen[i];
    const noticed = await check(chosen[i]);
    if (noticed === null) missed++;
    const scenario = noticed === null ? "**not noticed**" : scenarios[noticed.index].name;
    const cells = [rule, file, scenario, noticed?.reason ?? ""];
    rows[i] = `| ${cells.map((text) => text.replaceAll("|", "\\|").slice(0, 160)).join(" | ")} |`;
    console.error(`${noticed === null ? "MISSED " : "noticed"} ${rule}: ${scenario}`);
  }
}

await Promise.all(Array.from({ length: AT_A_TIME }, checkNext));
if (Deno.args.length === 0) {
  const head = `# Mutants of the NCCL pair

Each row takes one rule out of the pair (\`mutants.ts\`) and runs the scenarios until one fails. Written by
\`deno task nccl-mutants\`.

| Rule | File | Noticed by the scenario | Which says |
|---|---|---|---|
`;
  const table = path("test/ffi/nccl/mutants.md");
  await writeReport(table, `${head}${rows.join("\n")}\n`);
}
await Deno.remove(directory, { recursive: true });
console.error(`${chosen.length - missed} of ${chosen.length} mutants noticed`);
Deno.exit(missed === 0 ? 0 : 1);
