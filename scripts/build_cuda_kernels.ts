/**
 * Compiles the CUDA kernels, which are committed: from `ffi/cuda_kernels/NAME.cu` PTX for every device
 * (`NAME.ptx`), and machine code of compute capability 9.0 (`NAME.sm_90a.cubin`).
 * `table.md` says what each kernel takes of a multiprocessor; a kernel that takes too much is an error.
 *
 * It needs nvcc 13.0.88 (NVCC, or on PATH) and nvdisasm (NVDISASM, or on PATH). With `--fetch` it takes both
 * from PyPI, whose packages `cuda_compiler.ts` names. With `--check` nothing is compiled: it fails if a source
 * has changed since its products were made.
 */
import {
  type CompiledKernel,
  complaintsOf,
  parsePtxas,
  tableOf,
  type Target,
  targets,
} from "./cuda_kernel_table.ts";
import { compilerVersion, type CudaCompiler, fetchCompiler } from "./cuda_compiler.ts";
import { earlyAccesses, waitingKernels } from "./cuda_kernel_waits.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

const kernels = new URL("../ffi/cuda_kernels/", import.meta.url);
const path = (url: URL) => decodeURIComponent(url.pathname);

const flags = ["-ptx", "-arch=compute_80", "-std=c++17"];
/**
 * PTX ISA of the committed files. nvcc 13 writes 9.0, which needs a driver of CUDA 13 (580); the kernels
 * use nothing that 7.8 (CUDA 11.8, driver 520) does not have, and ptxas checks that.
 */
const isa = "7.8";
/** Target of the machine code, which kernels need to be launched programmatically. */
const nativeTarget = "sm_90a";

/** Names of the kernel sources, without ".cu". */
export function kernelModules(): string[] {
  return [...Deno.readDirSync(kernels)].map(({ name }) => name)
    .filter((name) => name.endsWith(".cu")).map((name) => name.slice(0, -3)).sort();
}

/** Texts of a source and of the files of this directory that it includes. */
function sourceTexts(name: string, seen = new Set<string>()): string[] {
  if (seen.has(name)) return [];
  seen.add(name);
  const text = Deno.readTextFileSync(new URL(name, kernels));
  // "cuda_emulation.h" and the like, beside the software device, are no part of the PTX.
  const headers = [...text.matchAll(/^#include "(\w+\.(?:h|cu))"/gm)].map(([, header]) => header)
    .filter((header) => !header.includes("emulation"));
  return [text, ...headers.flatMap((header) => sourceTexts(header, seen))];
}

/** Hash of what a module's PTX is made of: its source, its headers, the flags. */
export async function sourceHash(module: string): Promise<string> {
  const texts = sourceTexts(`${module}.cu`);
  const all = new TextEncoder().encode([compilerVersion, isa, ...flags, ...texts].join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", all)).toHex();
}

/** The hash that a committed PTX names; null if there is no such file. */
export function hashInPtx(module: string): string | null {
  try {
    const text = Deno.readTextFileSync(new URL(`${module}.ptx`, kernels));
    return /^\/\/ Source hash: (\w+)$/m.exec(text)?.[1] ?? "";
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

/** The hash of a committed cubin that the PTX beside it names, and the file's own. */
export async function cubinHashes(module: string): Promise<{ named: string; found: string }> {
  const ptx = await Deno.readTextFile(new URL(`${module}.ptx`, kernels));
  const named = /^\/\/ Hash of the cubin: (\w+)$/m.exec(ptx)?.[1] ?? "none";
  return { named, found: await hashOf(await Deno.readFile(cubinOf(module))) };
}

const cubinOf = (module: string) => new URL(`${module}.${nativeTarget}.cubin`, kernels);

async function hashOf(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Runs a command; gives what it printed, also where it prints errors. */
async function run(command: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) throw new Error(`${command} ${args.join(" ")}\n${text(stderr)}${text(stdout)}`);
  return text(stdout) + text(stderr);
}

/** What the compiler makes of a module. */
interface Compiled {
  /** With the hashes that it is committed with. */
  readonly ptx: string;
  readonly cubin: Uint8Array<ArrayBuffer>;
  readonly kernels: ReadonlyMap<Target, readonly CompiledKernel[]>;
}

async function compile(nvcc: string, module: string): Promise<Compiled> {
  const source = path(new URL(`${module}.cu`, kernels));
  const temporary = await Deno.makeTempDir();
  const kernelsOf = new Map<Target, CompiledKernel[]>();
  try {
    const raw = `${temporary}/${module}.ptx`, cubin = `${temporary}/${module}.cubin`;
    const native = ["-cubin", `-arch=${nativeTarget}`, "-std=c++17", "-Xptxas", "-v"];
    await run(nvcc, [...flags, source, "-o", raw]);
    const ptx = (await Deno.readTextFile(raw)).replace(/^\.version .*$/m, `.version ${isa}`)
      .replace(/^\/\/.*\n/gm, "").trimStart();
    await Deno.writeTextFile(raw, ptx);
    for (const target of targets) {
      const log = target.name === nativeTarget
        ? await run(nvcc, [...native, source, "-o", cubin])
        : await run(nvcc.replace(/nvcc$/, "ptxas"), [
          ...["-v", `-arch=${target.name}`, raw, "-o", `${temporary}/assembled`],
        ]);
      kernelsOf.set(target, parsePtxas(log));
    }
    const code = await Deno.readFile(cubin);
    const header = `// Generated from ${module}.cu by scripts/build_cuda_kernels.ts (nvcc ` +
      `${compilerVersion}).\n// Source hash: ${await sourceHash(module)}\n` +
      `// Hash of the cubin: ${await hashOf(code)}\n`;
    return { ptx: header + ptx, cubin: code, kernels: kernelsOf };
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

async function write(module: string, { ptx, cubin }: Compiled): Promise<void> {
  await Deno.writeFile(cubinOf(module), cubin);
  await Deno.writeTextFile(new URL(`${module}.ptx`, kernels), ptx);
  console.error(`${module}.ptx: ${ptx.length} bytes`);
}

/** nvcc puts a hash of the place of a source into names of what only that source sees. */
const placeHash = /[0-9a-f]{8}(_\d+_[a-z0-9_]+?_cu_)[0-9a-f]{8}/g;

/** In what a committed product differs from one that was compiled just now; null: in nothing. */
async function differenceOf(module: string, { ptx, cubin }: Compiled): Promise<string | null> {
  const committed = await Deno.readFile(cubinOf(module));
  const isSame = committed.length === cubin.length &&
    committed.every((byte, i) => byte === cubin[i]);
  if (!isSame) return `${module}.${nativeTarget}.cubin is not what the compiler makes`;
  const lines = [await Deno.readTextFile(new URL(`${module}.ptx`, kernels)), ptx]
    .map((text) => text.replaceAll(placeHash, "$1").split("\n"));
  const line = lines[0].findIndex((text, i) => text !== lines[1][i]);
  return line < 0 && lines[0].length === lines[1].length
    ? null
    : `${module}.ptx is not what the compiler makes, from line ${line + 1} on`;
}

/** Refuses kernels that touch memory of the kernel before them without having waited for it. */
async function checkWaits(nvdisasm: string): Promise<void> {
  for (const module of kernelModules()) {
    const sass = await run(nvdisasm, ["-c", path(cubinOf(module))]);
    const source = sourceTexts(`${module}.cu`).filter((text) => text.includes("__global__")).join();
    if (source.includes("grid_wait();") && waitingKernels(sass).length === 0) {
      throw new Error(
        `${module}.cu calls grid_wait(), but no kernel of its machine code waits for the kernel before it`,
      );
    }
    const found = earlyAccesses(sass);
    if (found.length === 0) continue;
    const lines = found.map(({ kernel, instruction }) => `${kernel}: ${instruction}`);
    throw new Error(`before their wait for the kernel before:\n${lines.join("\n")}`);
  }
}

const table = new URL("table.md", kernels);

async function tableText(all: ReadonlyMap<Target, readonly CompiledKernel[]>): Promise<string> {
  const file = await Deno.makeTempFile({ suffix: ".md" });
  await Deno.writeTextFile(
    file,
    `# What kernels take

Registers of a thread; shared memory of a block x blocks of a multiprocessor; bytes that are loading
in a multiprocessor while it computes. For a layer of 4096 inputs and one row. Limits are in
\`scripts/cuda_kernel_table.ts\`. Written by \`deno task cuda-kernels\`.

${tableOf(all)}
`,
  );
  const config = path(new URL("../deno.json", import.meta.url));
  await run(Deno.execPath(), ["fmt", "-q", "--config", config, file]);
  const text = await Deno.readTextFile(file);
  await Deno.remove(file);
  return text;
}

/** @throws {Error} a kernel takes too much */
function refuseHeavyKernels(all: ReadonlyMap<Target, readonly CompiledKernel[]>): void {
  const complaints = [...all].flatMap(([target, kernels]) =>
    kernels.flatMap((kernel) => complaintsOf(kernel, target))
  );
  if (complaints.length > 0) throw new Error(complaints.join("\n"));
}

/**
 * Compiles all modules.
 * @param use is called with each
 * @returns all kernels by target
 */
async function compileAll(
  { nvcc }: CudaCompiler,
  use: (module: string, compiled: Compiled) => Promise<void>,
): Promise<Map<Target, CompiledKernel[]>> {
  const version = await run(nvcc, ["--version"]);
  if (!version.includes(compilerVersion)) {
    throw new Error(`${nvcc} is not nvcc ${compilerVersion}, but:\n${version}`);
  }
  const all = new Map<Target, CompiledKernel[]>(targets.map((target) => [target, []]));
  for (const module of kernelModules()) {
    const compiled = await compile(nvcc, module);
    await use(module, compiled);
    for (const [target, some] of compiled.kernels) all.get(target)!.push(...some);
  }
  return all;
}

/**
 * Compiles everything, and compares it with what is committed, which it leaves as it is.
 * @returns what differs
 * @throws {Error} the committed machine code does not wait where it has to
 */
export async function compareWithCompiled(compiler: CudaCompiler): Promise<string[]> {
  const found: string[] = [];
  const all = await compileAll(compiler, async (module, compiled) => {
    const difference = await differenceOf(module, compiled);
    if (difference !== null) found.push(difference);
  });
  if (await tableText(all) !== await Deno.readTextFile(table)) {
    found.push("table.md is not of these kernels");
  }
  await checkWaits(compiler.nvdisasm);
  return found;
}

async function build(compiler: CudaCompiler): Promise<void> {
  const all = await compileAll(compiler, write);
  await Deno.writeTextFile(table, await tableText(all));
  await checkWaits(compiler.nvdisasm);
  refuseHeavyKernels(all);
}

async function checkHashes(): Promise<void> {
  for (const module of kernelModules()) {
    if (hashInPtx(module) !== await sourceHash(module)) {
      throw new Error(`${module}.ptx is not of this ${module}.cu: deno task cuda-kernels`);
    }
    const { named, found } = await cubinHashes(module);
    if (named !== found) throw new Error(`the cubin of ${module} is not that of its PTX`);
  }
}

async function main(): Promise<void> {
  if (Deno.args.includes("--check")) return await checkHashes();
  if (!Deno.args.includes("--fetch")) {
    const [nvcc, nvdisasm] = ["nvcc", "nvdisasm"].map((name) =>
      Deno.env.get(name.toUpperCase()) ?? name
    );
    return await build({ nvcc, nvdisasm });
  }
  const directory = await Deno.makeTempDir({ prefix: "cuda-compiler-" });
  try {
    await build(await fetchCompiler(directory));
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

if (import.meta.main) {
  refuseUnknownArguments(["--check", "--fetch"]);
  await main();
}
