/**
 * Compiles the CUDA kernels, which are committed: from `ffi/cuda_kernels/NAME.cu` PTX for every device
 * (`NAME.ptx`), and machine code of compute capability 9.0 (`NAME.sm_90a.cubin`).
 * `table.md` says what each kernel takes of a multiprocessor; a kernel that takes too much is an error.
 *
 * It needs nvcc 13.0.88 (NVCC, or on PATH) and nvdisasm (NVDISASM, or on PATH). The compiler is in the PyPI
 * packages nvidia-cuda-nvcc, nvidia-nvvm, nvidia-cuda-crt and nvidia-cuda-cccl 13.0, and
 * nvidia-cuda-runtime, unpacked over each other; nvdisasm is in nvidia-cuda-nvdisasm 13. With `--check`
 * nothing is compiled: it fails if a source has changed since its products were made.
 */
import {
  type CompiledKernel,
  complaintsOf,
  parsePtxas,
  tableOf,
  type Target,
  targets,
} from "./cuda_kernel_table.ts";
import { earlyAccesses, waitingKernels } from "./cuda_kernel_waits.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

const kernels = new URL("../ffi/cuda_kernels/", import.meta.url);
const path = (url: URL) => decodeURIComponent(url.pathname);

const compilerVersion = "V13.0.88";
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
  return { named, found: await hashOfFile(cubinOf(module)) };
}

const cubinOf = (module: string) => new URL(`${module}.${nativeTarget}.cubin`, kernels);

async function hashOfFile(file: URL): Promise<string> {
  const bytes = await Deno.readFile(file);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Runs a command; gives what it printed, also where it prints errors. */
async function run(command: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) throw new Error(`${command} ${args.join(" ")}\n${text(stderr)}${text(stdout)}`);
  return text(stdout) + text(stderr);
}

/** Compiles a module; gives its kernels by target. */
async function compile(nvcc: string, module: string): Promise<Map<Target, CompiledKernel[]>> {
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
    await Deno.copyFile(cubin, cubinOf(module));
    const header = `// Generated from ${module}.cu by scripts/build_cuda_kernels.ts (nvcc ` +
      `${compilerVersion}).\n// Source hash: ${await sourceHash(module)}\n` +
      `// Hash of the cubin: ${await hashOfFile(cubinOf(module))}\n`;
    await Deno.writeTextFile(new URL(`${module}.ptx`, kernels), header + ptx);
    console.error(`${module}.ptx: ${header.length + ptx.length} bytes`);
    return kernelsOf;
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

/** Refuses kernels that touch memory of the kernel before them without having waited for it. */
async function checkWaits(): Promise<void> {
  const nvdisasm = Deno.env.get("NVDISASM") ?? "nvdisasm";
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

/** @throws {Error} after it has written the table: a kernel takes too much */
async function writeTable(all: ReadonlyMap<Target, CompiledKernel[]>): Promise<void> {
  const table = new URL("table.md", kernels);
  await Deno.writeTextFile(
    table,
    `# What kernels take

Registers of a thread; shared memory of a block x blocks of a multiprocessor; bytes that are loading
in a multiprocessor while it computes. For a layer of 4096 inputs and one row. Limits are in
\`scripts/cuda_kernel_table.ts\`. Written by \`deno task cuda-kernels\`.

${tableOf(all)}
`,
  );
  await new Deno.Command(Deno.execPath(), { args: ["fmt", "-q", path(table)] }).output();
  const complaints = [...all].flatMap(([target, kernels]) =>
    kernels.flatMap((kernel) => complaintsOf(kernel, target))
  );
  if (complaints.length > 0) throw new Error(complaints.join("\n"));
}

async function main(): Promise<void> {
  if (Deno.args.includes("--check")) {
    for (const module of kernelModules()) {
      if (hashInPtx(module) !== await sourceHash(module)) {
        throw new Error(`${module}.ptx is not of this ${module}.cu: deno task cuda-kernels`);
      }
      const { named, found } = await cubinHashes(module);
      if (named !== found) throw new Error(`the cubin of ${module} is not that of its PTX`);
    }
    return;
  }
  const nvcc = Deno.env.get("NVCC") ?? "nvcc";
  const version = await run(nvcc, ["--version"]);
  if (!version.includes(compilerVersion)) {
    throw new Error(`${nvcc} is not nvcc ${compilerVersion}, but:\n${version}`);
  }
  const all = new Map<Target, CompiledKernel[]>(targets.map((target) => [target, []]));
  for (const module of kernelModules()) {
    for (const [target, compiled] of await compile(nvcc, module)) {
      all.get(target)!.push(...compiled);
    }
  }
  await checkWaits();
  await writeTable(all);
}

if (import.meta.main) {
  refuseUnknownArguments(["--check"]);
  await main();
}
