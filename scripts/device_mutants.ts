/**
 * Shows that the software device and its tests notice mistakes: takes each barrier, wait and event dependency
 * out of kernels and host code in turn, makes the edits of `kernel_edits.ts`, runs the result, and writes which
 * seed noticed it to `test/ffi/software_device/mutants.md`. Exit code 1 if a mutant is not noticed.
 *
 * With names of kernel files, such as `linear_few`, it runs their mutants alone; the report keeps its other
 * rows.
 */
import assert from "node:assert/strict";
import {
  type Bench,
  configure,
  directory,
  filled,
  freshBench,
} from "../test/ffi/software_device/device.ts";
import { Random } from "../src/core/random.ts";
import { compareChoosers } from "../test/executor/cuda/chooser_checks.ts";
import { decoderRuns } from "../test/ffi/cuda/decoder_checks.ts";
import { poisonRuns } from "../test/ffi/cuda/poison_checks.ts";
import { fillCopyCheck } from "../test/ffi/software_device/kv_blocks.ts";
import { type KernelEdit, kernelEdits } from "../test/ffi/software_device/kernel_edits.ts";
import {
  microKernels,
  microLibrary,
  runMicro,
  waysToBreak,
} from "../test/ffi/software_device/micro.ts";
import { takeRaces } from "../test/ffi/software_device/races.ts";
import type { stagedCopy } from "../test/ffi/software_device/staged_copy.ts";
import { buildKernelLibrary } from "./build_kernel_library.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";
import { writeReport } from "./report_file.ts";

const seeds = 20;
const path = (url: URL) => decodeURIComponent(url.pathname);
const kernels = new URL("../ffi/cuda_kernels/", import.meta.url);
const report = new URL("../test/ffi/software_device/mutants.md", import.meta.url);

interface Row {
  readonly what: string;
  /** How the values of the result showed it: "late" or "random, seed 3"; null if they did not. */
  readonly values: string | null;
  /** The checker's report at seed 1; null if there was none. */
  readonly race: string | null;
  /** Why the race checker has no say; null: it has. */
  readonly unchecked: typeof uncheckedKinds[number] | null;
}

const uncheckedKinds = ["host code", "arithmetic"] as const;

/** Whether a run on a fresh device goes wrong: a wrong result, an error of the device. */
function goesWrong(settings: string, run: (bench: Bench) => void): boolean {
  const bench = freshBench(settings);
  try {
    run(bench);
    return false;
  } catch (error) {
    if (error instanceof TypeError || error instanceof ReferenceError) throw error;
    return true;
  }
}

/** The first order of work, "late" before the random ones, at which a run goes wrong. */
function noticedAt(settings: string, run: (bench: Bench) => void): string | null {
  if (goesWrong(`${settings}order=late,seed=1`, run)) return "late, seed 1";
  for (let seed = 1; seed <= seeds; seed++) {
    if (goesWrong(`${settings}order=random,seed=${seed}`, run)) return `random, seed ${seed}`;
  }
  return null;
}

// Host code: lines that wait, or that make something to wait for.

const waitingLine =
  /^\s*cuda\.(?:waitEvent|recordEvent|synchronizeEvent|synchronizeStream)\(.*\);$/gm;

/** Moves six blocks by a version of `stagedCopy`, and looks at them. */
function moveBlocks(copy: typeof stagedCopy): (bench: Bench) => void {
  const byteLength = 4096;
  return ({ cuda, device, read }) => {
    const values = [1, 2, 3, 4, 5, 6];
    const halves = values.map((value) => {
      const half = () => device(filled(byteLength / 2, value));
      return [half(), half()] as const;
    });
    const to = values.map(() => cuda.malloc(byteLength));
    copy(cuda, halves, to, byteLength);
    values.forEach((value, i) =>
      assert.deepEqual(read(to[i], byteLength), filled(byteLength, value))
    );
  };
}

async function hostRows(): Promise<Row[]> {
  const file = new URL("../test/ffi/software_device/staged_copy.ts", import.meta.url);
  const source = await Deno.readTextFile(file);
  const version = async (text: string): Promise<typeof stagedCopy> => {
    // Beside the original, so that its imports hold.
    const copy = await Deno.makeTempFile({ dir: path(new URL(".", file)), suffix: ".ts" });
    try {
      await Deno.writeTextFile(copy, text);
      return (await import(`file://${copy}`)).stagedCopy;
    } finally {
      await Deno.remove(copy);
    }
  };
  const sound = noticedAt("", moveBlocks(await version(source)));
  assert.equal(sound, null, "the program as it is goes wrong");
  const rows: Row[] = [];
  for (const { 0: line, index } of source.matchAll(waitingLine)) {
    const mutant = source.slice(0, index) + source.slice(index + line.length);
    const number = source.slice(0, index).split("\n").length + (line.startsWith("\n") ? 1 : 0);
    const what = `staged_copy.ts:${number} without \`${line.trim()}\``;
    const values = noticedAt("", moveBlocks(await version(mutant)));
    rows.push({ what, values, race: null, unchecked: "host code" });
  }
  return rows;
}

// Kernels: barriers, waits and fences.

const kernelSync =
  /__syncthreads\(\);|__syncwarp\([^;]*\);|grid_wait\(\);|__pipeline_(?:commit|wait_prior)\([^;]*\);|__threadfence(?:_block)?\(\);/g;

/** Runs that show whether the kernels of a file do their work. */
const kernelRuns: Record<string, (bench: Bench) => void> = {
  kv: (bench) => {
    fillCopyCheck(bench, 8192 + 16, 64);
    fillCopyCheck(bench, 2048, 96);
  },
  sampling: () => {
    const random = new Random(7);
    // In small vocabularies the lists of a row meet.
    for (const vocabSize of [90, 300, ...new Array(12).fill(12)]) {
      compareChoosers(random, vocabSize);
    }
  },
  ...decoderRuns,
};

/** Files whose kernels are launched together. */
const together = Object.keys(decoderRuns);

const kernelFiles = [...Deno.readDirSync(kernels)].map(({ name }) => name);

/** The sources of a library that has the kernels of a file. */
function sourcesFor(file: string): string[] {
  const files = together.includes(file) ? together : [file];
  return files.flatMap((name) => [`${name}.cu`, `${name}_fp8.cu`])
    .filter((name) => kernelFiles.includes(name));
}

/** A source without the kernels of other types than bfloat16: they would be compiled for each mutant. */
function narrowed(source: string): string {
  return source.replaceAll(
    /extern "C" __global__ void __launch_bounds__\([\d, ]+\)\s+\w+_(?:f16|f32)(?:_w8|_kv8)?(?:_\d+)?\([^{]*\{[^]*?\n\}\n/g,
    (kernel) => "\n".repeat(kernel.split("\n").length - 1),
  );
}

async function textOf(name: string): Promise<string> {
  const text = await Deno.readTextFile(new URL(name, kernels));
  return name.endsWith(".cu") ? narrowed(text) : text;
}

/** Whether a file is another one, or includes it by way of others. */
async function includes(name: string, other: string): Promise<boolean> {
  if (name === other) return true;
  const included = (await textOf(name)).matchAll(/^#include "(\w+\.(?:h|cu))"/gm);
  for (const [, next] of included) {
    if (kernelFiles.includes(next) && await includes(next, other)) return true;
  }
  return false;
}

/** Libraries of versions of the kernels, each in a directory of its own. */
class Versions {
  readonly #folder: string;
  readonly #compiler = Deno.env.get("CXX") ?? "g++";

  constructor(folder: string) {
    this.#folder = folder;
  }

  /**
   * Builds a library of the kernels with a file in place of the committed one.
   * @param name of the version
   * @param file the kernel file whose runs are wanted
   */
  async build(
    name: string,
    file: string,
    change: { readonly file: string; readonly text: string } | null,
    checked: boolean,
  ): Promise<string> {
    const sources: string[] = [];
    for (const source of sourcesFor(file)) {
      const isChanged = change !== null && await includes(source, change.file);
      sources.push(
        await this.#write(isChanged ? name : "sound", source, isChanged ? change : null),
      );
    }
    const output = `${this.#folder}/${name}${checked ? "_checked" : ""}.so`;
    const objects = this.#folder;
    await buildKernelLibrary({ compiler: this.#compiler, sources, output, objects, checked });
    return output;
  }

  /** Writes a source, and beside it what it includes. @returns its path */
  async #write(
    version: string,
    source: string,
    change: { readonly file: string; readonly text: string } | null,
  ): Promise<string> {
    const directory = `${this.#folder}/${version}`;
    await Deno.mkdir(directory, { recursive: true });
    for (const name of kernelFiles) {
      if (name !== source && !await includes(source, name)) continue;
      const text = name === change?.file ? change.text : await textOf(name);
      await Deno.writeTextFile(`${directory}/${name}`, text);
    }
    return `${directory}/${source}`;
  }
}

async function kernelRows(versions: Versions, files: readonly string[]): Promise<Row[]> {
  const rows: Row[] = [];
  for (const file of files) {
    const run = kernelRuns[file], source = `${file}.cu`, text = await textOf(source);
    const sound = await versions.build(`${file}_sound`, file, null, false);
    assert.equal(noticedAt(`kernels=${sound},`, run), null, `${source} as it is goes wrong`);
    poisonRuns[file]?.(freshBench(`kernels=${sound}`));
    const row = async (
      what: string,
      name: string,
      change: { file: string; text: string },
      unchecked: Row["unchecked"],
      run = kernelRuns[file],
    ) => {
      const plain = await versions.build(name, file, change, false);
      const values = noticedAt(`kernels=${plain},`, run);
      let race: string | null = null;
      if (unchecked === null) {
        const checked = await versions.build(name, file, change, true);
        goesWrong(`kernels=${checked},seed=1`, run);
        race = reportOf(checked);
      }
      rows.push({ what, values, race, unchecked });
      console.error(`${what}: ${values ?? "no"}; ${unchecked ?? race ?? "no"}`);
    };
    for (const { 0: sync, index } of text.matchAll(kernelSync)) {
      const mutant = text.slice(0, index) + ";" + text.slice(index + sync.length);
      const line = text.slice(0, index).split("\n").length;
      const what = `${source}:${line} without \`${sync}\``;
      await row(what, `${file}_${index}`, { file: source, text: mutant }, null);
    }
    for (const [index, edit] of kernelEdits.entries()) {
      if (edit.run !== file) continue;
      const [what, name] = [nameOf(edit), `${file}_edit_${index}`], change = await edited(edit);
      if (edit.isOrder) await row(what, name, change, null);
      else await row(what, name, change, "arithmetic", poisonRuns[file]);
    }
  }
  return rows;
}

async function edited({ file, from, to }: KernelEdit): Promise<{ file: string; text: string }> {
  const text = await textOf(file);
  assert.equal(text.split(from).length, 2, `${file} does not have this text once: ${from}`);
  return { file, text: text.replace(from, () => to) };
}

/** Begins with the file whose runs it takes: by it a report finds the row again. */
function nameOf({ file, run, mistake }: KernelEdit): string {
  return `${run}.cu${file === `${run}.cu` ? "" : ` by ${file}`}: ${mistake}`;
}

/** One of the checker's reports, rather one that names both places. */
function reportOf(library: string): string | null {
  const races = takeRaces(library);
  return races.find((race) => race.includes(" against ")) ?? races[0] ?? null;
}

/** The ways to break the race checker's own small kernels. */
async function microRows(): Promise<Row[]> {
  const plain = await microLibrary(false), checked = await microLibrary(true);
  const bench = freshBench(`kernels=${plain}`);
  // A thread that spins never lets the others run in the plain library: `flag` is the checker's alone.
  const plainKernels = microKernels.filter((name) => name !== "flag");
  const right = new Map(plainKernels.map((name) => [name, runMicro(bench, name, 0)]));
  return [...waysToBreak()].sort(([a], [b]) => a - b).map(([way, name]) => {
    const values = !right.has(name) ? null : noticedAt(
      `kernels=${plain},`,
      (bench) => assert.deepEqual(runMicro(bench, name, way), right.get(name)),
    );
    runMicro(freshBench(`kernels=${checked},seed=1`), name, way);
    const what = `${name} without its part ${way}`;
    return { what, values, race: reportOf(checked), unchecked: null };
  });
}

/** Rows of the committed report, except those of the kernel files in `without`: this run measures them again. */
async function rowsOfReport(without: readonly string[]): Promise<Row[]> {
  const lines = (await Deno.readTextFile(report)).split("\n");
  const table = lines.filter((line) => line.startsWith("| ")).slice(2);
  return table.map((line): Row => {
    const [, what, values, race] = line.split(/(?<!\\)\|/).map((cell) =>
      cell.trim().replaceAll("\\|", "|")
    );
    const seen = (text: string) => text === "no" ? null : text;
    const unchecked = uncheckedKinds.find((kind) => kind === race) ?? null;
    return { what, values: seen(values), race: unchecked === null ? seen(race) : null, unchecked };
  }).filter(({ what }) => !without.some((file) => new RegExp(`^${file}\\.cu\\b`).test(what)));
}

/** Writes the report. @returns the mutants that nothing noticed */
async function writeRows(rows: readonly Row[]): Promise<readonly Row[]> {
  const cell = (text: string) => text.replaceAll("|", "\\|");
  const table = rows.map(({ what, values, race, unchecked }) =>
    `| ${cell(what)} | ${values ?? "no"} | ${cell(unchecked ?? race ?? "no")} |`
  );
  const missed = rows.filter(({ values, race }) => values === null && !race);
  const both = rows.filter(({ unchecked }) => unchecked === null);
  const seen = both.filter(({ race }) => race).length;
  const byValues = both.filter(({ values }) => values !== null).length;
  await writeReport(
    report,
    `# Mutants of the software device

Each row takes one barrier, wait, fence or event dependency out, or makes a mistake of
\`kernel_edits.ts\`. "Values": the first order of work and seed at which the result was wrong or the device
failed, of late order and ${seeds} seeds of random order. "Race": a report of the race checker at seed 1.
Written by \`deno task device-mutants\`.

${rows.length} mutants, ${missed.length} not noticed. The checker reports ${seen} of ${both.length} in
kernels that are about order; values show ${byValues} of them.

| without | values | race |
| --- | --- | --- |
${table.join("\n")}
`,
  );
  return missed;
}

const files = Object.keys(kernelRuns);
refuseUnknownArguments(files);
const only = files.filter((file) => Deno.args.includes(file));
if (directory === null) throw new Error("no software device can be built here");
const folder = await Deno.makeTempDir({ prefix: "device-mutants-" });
const versions = new Versions(folder);
let rows: readonly Row[], missed: readonly Row[] = [];
try {
  if (only.length === 0) {
    rows = [...await hostRows(), ...await kernelRows(versions, files), ...await microRows()];
    missed = await writeRows(rows);
  }
  // A file's run takes minutes: its rows are written at once.
  for (const file of only) {
    const fresh = await kernelRows(versions, [file]);
    rows = [...await rowsOfReport([file]), ...fresh];
    missed = await writeRows(rows);
  }
} finally {
  await Deno.remove(folder, { recursive: true });
}
configure("kernels=plain");
console.error(`${missed.length} mutants not noticed: ${path(report)}`);
for (const { what } of missed) console.error(`not noticed: ${what}`);
Deno.exit(missed.length === 0 ? 0 : 1);
