/**
 * Builds the CPU kernels as shared libraries into `ffi/cpu_kernels/build/`, unless they are up to date:
 * the fastest set that this processor runs, or with `--all` every set of its architecture. Without a
 * compiler it says so and succeeds, because the committed WASM build works everywhere. With `--wasm` it
 * builds `kernels.wasm`, for which it needs clang and lld of LLVM 19.
 */
import { existsSync } from "node:fs";
import { type KernelSet, kernelSets } from "../ffi/cpu_kernels/kernels.ts";
import { machineProblem } from "../ffi/cpu_kernels/load.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

const sources = new URL("../ffi/cpu_kernels/", import.meta.url);
const buildDirectory = new URL("build/", sources);
const path = (url: URL) => decodeURIComponent(url.pathname);

const commonFlags = [
  ...["-std=gnu11", "-O3", "-ffreestanding", "-ffp-contract=off", "-fno-math-errno"],
  ...["-fvisibility=hidden", "-nostdlib", "-Wall", "-Wextra"],
  ...["-Wno-unused-parameter", "-Wno-unused-function", "-Wno-missing-field-initializers"],
];

const avx2Flags = ["-mavx2", "-mfma", "-mf16c"];
const avx512Flags = [
  ...avx2Flags,
  ...["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mprefer-vector-width=512"],
];

/** Compiler flags of each native kernel set, by architecture. */
const variants: Record<string, Partial<Record<KernelSet, string[]>>> = {
  x86_64: {
    amx: [...avx512Flags, "-mavx512bf16", "-mamx-tile", "-mamx-bf16"],
    avx512bf16: [...avx512Flags, "-mavx512bf16"],
    avx512: avx512Flags,
    avx2: avx2Flags,
  },
  aarch64: { neon: [] },
};

const wasmFlags = [
  ...["--target=wasm32", "-msimd128", "-mrelaxed-simd", "-matomics", "-mbulk-memory"],
  ...["-fno-builtin", "-Wl,--no-entry", "-Wl,--shared-memory", "-Wl,--import-memory"],
  ...["-Wl,--max-memory=4294901760", "-Wl,-z,stack-size=1048576", "-Wl,--stack-first"],
  ...["-Wl,--export=__stack_pointer", "-Wl,--export=__heap_base", "-Wl,--strip-all"],
];

/** Hash over the kernel sources and the WASM flags, stored next to the WASM file. */
export async function wasmSourceHash(): Promise<string> {
  return await hash([...commonFlags, ...wasmFlags]);
}

async function hash(parts: readonly string[]): Promise<string> {
  const names = [...Deno.readDirSync(sources)].map((entry) => entry.name)
    .filter((name) => /\.[ch]$/.test(name)).sort();
  const texts = names.map((name) => name + "\0" + Deno.readTextFileSync(new URL(name, sources)));
  const all = new TextEncoder().encode([...parts, ...texts].join("\0"));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", all));
  return digest.toHex();
}

async function run(command: string, args: readonly string[]) {
  const child = new Deno.Command(command, { args: [...args], stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  return { success, stdout: text(stdout), stderr: text(stderr) };
}

interface Compiler {
  readonly command: string;
  readonly version: string;
}

/** The first compiler that runs; null if there is none. */
async function findCompiler(): Promise<Compiler | null> {
  const given = Deno.env.get("CC");
  for (const command of [...(given ? [given] : []), "clang-19", "clang", "gcc", "cc"]) {
    try {
      const { success, stdout } = await run(command, ["--version"]);
      if (success) return { command, version: stdout.split("\n")[0] };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return null;
}

function readText(url: URL): string | null {
  try {
    return Deno.readTextFileSync(url);
  } catch {
    return null;
  }
}

/** A kernel set to build, and the sources of its library. */
interface Target {
  readonly set: KernelSet;
  readonly flags: readonly string[];
  /** Hash over the sources, the flags and the compiler. */
  readonly key: string;
}

const libraryOf = (set: KernelSet) => path(new URL(`kernels-${set}.so`, buildDirectory));
const stampOf = (set: KernelSet) => new URL(`kernels-${set}.stamp`, buildDirectory);

/** The compiler's error at the latest build from the same sources: "" if it succeeded; null if none was made. */
function latestOutcome({ set, key }: Target): string | null {
  const [stampedKey, complaint] = (readText(stampOf(set)) ?? "").split("\n");
  if (stampedKey !== key || (complaint === "" && !existsSync(libraryOf(set)))) return null;
  return complaint;
}

/**
 * Compiles one set and puts the library in place atomically. If the compiler fails (an old one may not
 * know the instructions), removes any library of older sources.
 * @returns the compiler's error, or "" when the set is built
 */
async function buildNative(compiler: Compiler, { set, flags, key }: Target): Promise<string> {
  const startMs = performance.now();
  const output = libraryOf(set);
  const partial = `${output}.${Deno.pid}`;
  const source = path(new URL("kernels.c", sources));
  const all = [...commonFlags, "-shared", "-fPIC", ...flags, source, "-o", partial];
  const result = await run(compiler.command, all);
  let complaint = "";
  if (result.success) {
    await Deno.rename(partial, output);
  } else {
    await Deno.remove(output).catch(() => {});
    complaint = result.stderr.split("\n").find((line) => line.includes("error")) ??
      "the compiler gave no reason";
  }
  await Deno.writeTextFile(stampOf(set), `${key}\n${complaint}\n`);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  say(complaint === "" ? `built ${set} in ${seconds} s` : `${set} was not built: ${complaint}`);
  return complaint;
}

/** Builds a set unless it is up to date. @returns whether there is a library of it */
async function ensureBuilt(compiler: Compiler, target: Target): Promise<boolean> {
  return (latestOutcome(target) ?? await buildNative(compiler, target)) === "";
}

/** Builds the fastest set that this processor runs; the next one if the compiler cannot. */
async function buildFastest(compiler: Compiler, targets: readonly Target[]): Promise<KernelSet[]> {
  for (const target of targets) {
    if (machineProblem(target.set) !== null) continue;
    if (latestOutcome(target) === null) {
      say(`building ${target.set} for this processor, once: about half a minute ...`);
    }
    if (await ensureBuilt(compiler, target)) return [target.set];
  }
  return [];
}

/** Builds all sets concurrently. */
async function buildAll(compiler: Compiler, targets: readonly Target[]): Promise<KernelSet[]> {
  const missing = targets.filter((target) => latestOutcome(target) === null);
  if (missing.length > 0) {
    say(`building the CPU kernels ${missing.map(({ set }) => set).join(", ")} ...`);
  }
  const areBuilt = await Promise.all(targets.map((target) => ensureBuilt(compiler, target)));
  return targets.filter((_, i) => areBuilt[i]).map(({ set }) => set);
}

/** What to build here, the fastest set first. */
async function targetsFor(compiler: Compiler): Promise<Target[]> {
  const variant = variants[Deno.build.arch];
  const sets = kernelSets.filter((set) => variant[set] !== undefined);
  return await Promise.all(sets.map(async (set) => {
    const flags = variant[set]!;
    const key = await hash([...commonFlags, ...flags, compiler.command, compiler.version]);
    return { set, flags, key };
  }));
}

async function buildNativeSets(isAll: boolean): Promise<string> {
  if (Deno.build.os !== "linux" || variants[Deno.build.arch] === undefined) {
    return `no native sets for ${Deno.build.os} on ${Deno.build.arch}; WASM will be used`;
  }
  const compiler = await findCompiler();
  if (compiler === null) return "no compiler found (CC, clang, gcc, cc); WASM will be used";
  await Deno.mkdir(buildDirectory, { recursive: true });
  const targets = await targetsFor(compiler);
  const built = await (isAll ? buildAll : buildFastest)(compiler, targets);
  for (const target of targets) {
    // A library of older sources may not fit the program.
    if (latestOutcome(target) === null) await Deno.remove(libraryOf(target.set)).catch(() => {});
  }
  if (built.length === 0) return "no native set could be built; WASM will be used";
  return `${built.join(", ")} (${compiler.version})`;
}

function say(line: string): void {
  console.error(`kernels: ${line}`);
}

async function buildWasm(): Promise<string> {
  const output = path(new URL("kernels.wasm", sources));
  const source = path(new URL("kernels.c", sources));
  const result = await run("clang-19", [...commonFlags, ...wasmFlags, source, "-o", output]);
  if (!result.success) {
    throw new Error(`clang-19 could not build the WASM kernels:\n${result.stderr}`);
  }
  await Deno.writeTextFile(new URL("kernels.wasm.hash", sources), await wasmSourceHash() + "\n");
  return `built kernels.wasm, ${Deno.statSync(output).size} bytes`;
}

if (import.meta.main) {
  refuseUnknownArguments(["--all", "--wasm"]);
  const isAll = Deno.args.includes("--all");
  say(await (Deno.args.includes("--wasm") ? buildWasm() : buildNativeSets(isAll)));
}
