/**
 * Shows that the software device notices mistakes of synchronization: takes each barrier, wait and event
 * dependency out of kernels and host code in turn, runs the result, and writes which seed noticed it to
 * `test/ffi/software_device/mutants.md`. Exit code 1 if a mutant is not noticed.
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
import { fillCopyCheck } from "../test/ffi/software_device/kv_blocks.ts";
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
  /** The checker's report at seed 1; null if there was none, undefined where it does not apply. */
  readonly race?: string | null;
}

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
    rows.push({ what, values: noticedAt("", moveBlocks(await version(mutant))) });
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

/** Whether a kernel file has an FP8 variant, NAME_fp8.cu. */
function hasVariant(file: string): boolean {
  return [...Deno.readDirSync(kernels)].some(({ name }) => name === `${file}_fp8.cu`);
}

/** A source without the kernels of other types than bfloat16: they would be compiled for each mutant. */
function narrowed(source: string): string {
  return source.replaceAll(
    /extern "C" __global__ void __launch_bounds__\([\d, ]+\)\s+\w+_(?:f16|f32)(?:_w8|_kv8)?(?:_\d+)?\([^{]*\{[^]*?\n\}\n/g,
    (kernel) => "\n".repeat(kernel.split("\n").length - 1),
  );
}

async function kernelRows(folder: string, files: readonly string[]): Promise<Row[]> {
  const compiler = Deno.env.get("CXX") ?? "g++";
  const write = async (name: string, text: string): Promise<string> => {
    const source = `${folder}/${name}.cu`;
    await Deno.writeTextFile(source, text);
    return source;
  };
  /** The kernels for 8 bits of a file, made of the version `name` of it. */
  const writeVariant = async (file: string, name: string): Promise<string> => {
    const text = await Deno.readTextFile(new URL(`${file}_fp8.cu`, kernels));
    return await write(
      `${name}_fp8`,
      narrowed(text.replace(`#include "${file}.cu"`, `#include "${folder}/${name}.cu"`)),
    );
  };
  const build = async (
    file: string,
    name: string,
    text: string,
    others: readonly string[],
    checked: boolean,
  ): Promise<string> => {
    const sources = [await write(name, text), ...others];
    if (hasVariant(file)) sources.push(await writeVariant(file, name));
    const output = `${folder}/${name}${checked ? "_checked" : ""}.so`;
    await buildKernelLibrary({ compiler, sources, output, objects: folder, checked });
    return output;
  };
  const rows: Row[] = [];
  for (const file of files) {
    const run = kernelRuns[file];
    const read = async (name: string) =>
      narrowed(await Deno.readTextFile(new URL(`${name}.cu`, kernels)));
    const source = await read(file);
    const beside = (together.includes(file) ? together : []).filter((other) => other !== file);
    const others = await Promise.all(beside.flatMap((other) => [
      read(other).then((text) => write(`${other}_beside`, text)),
      ...hasVariant(other) ? [writeVariant(other, `${other}_beside`)] : [],
    ]));
    if (together.includes(file)) others.push(`${path(kernels)}fp8_weights.cu`);
    const sound = await build(file, `${file}_sound`, source, others, false);
    assert.equal(noticedAt(`kernels=${sound},`, run), null, `${file}.cu as it is goes wrong`);
    for (const { 0: text, index } of source.matchAll(kernelSync)) {
      const mutant = source.slice(0, index) + ";" + source.slice(index + text.length);
      const line = source.slice(0, index).split("\n").length;
      const name = `${file}_${index}`;
      const plain = await build(file, name, mutant, others, false);
      const checked = await build(file, name, mutant, others, true);
      const values = noticedAt(`kernels=${plain},`, run);
      goesWrong(`kernels=${checked},seed=1`, run);
      const race = reportOf(checked)?.replaceAll(name, file) ?? null;
      rows.push({ what: `${file}.cu:${line} without \`${text}\``, values, race });
    }
  }
  return rows;
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
    return { what: `${name} without its part ${way}`, values, race: reportOf(checked) };
  });
}

/** Rows of the committed report, except those of the kernel files `without`, which are measured anew. */
async function rowsOfReport(without: readonly string[]): Promise<Row[]> {
  const lines = (await Deno.readTextFile(report)).split("\n");
  const table = lines.filter((line) => line.startsWith("| ")).slice(2);
  return table.map((line): Row => {
    const [, what, values, race] = line.split(/(?<!\\)\|/).map((cell) =>
      cell.trim().replaceAll("\\|", "|")
    );
    const seen = (text: string) => text === "no" ? null : text;
    return { what, values: seen(values), race: race === "host code" ? undefined : seen(race) };
  }).filter(({ what }) => !without.some((file) => what.startsWith(`${file}.cu:`)));
}

const files = Object.keys(kernelRuns);
refuseUnknownArguments(files);
const only = files.filter((file) => Deno.args.includes(file));
if (directory === null) throw new Error("no software device can be built here");
const folder = await Deno.makeTempDir({ prefix: "device-mutants-" });
let rows: Row[];
try {
  rows = only.length > 0
    ? [...await rowsOfReport(only), ...await kernelRows(folder, only)]
    : [...await hostRows(), ...await kernelRows(folder, files), ...await microRows()];
} finally {
  await Deno.remove(folder, { recursive: true });
}
configure("kernels=plain");

const cell = (text: string) => text.replaceAll("|", "\\|");
const table = rows.map(({ what, values, race }) => {
  const seen = race === undefined ? "host code" : race ?? "no";
  return `| ${cell(what)} | ${values ?? "no"} | ${cell(seen)} |`;
});
const missed = rows.filter(({ values, race }) => values === null && !race);
const both = rows.filter(({ race }) => race !== undefined);
const text = `# Mutants of the software device

Each row takes one barrier, wait, fence or event dependency out. "Values": the first order of work and
seed at which the result was wrong or the device failed, of late order and ${seeds} seeds of random order.
"Race": a report of the race checker at seed 1. Written by \`deno task device-mutants\`.

${rows.length} mutants, ${missed.length} not noticed. The checker reports ${
  both.filter(({ race }) => race).length
} of ${both.length} in kernels; values show ${
  both.filter(({ values }) => values !== null).length
} of them.

| without | values | race |
| --- | --- | --- |
${table.join("\n")}
`;
await writeReport(report, text);
console.error(`${rows.length} mutants, ${missed.length} not noticed: ${path(report)}`);
for (const { what } of missed) console.error(`not noticed: ${what}`);
Deno.exit(missed.length === 0 ? 0 : 1);
