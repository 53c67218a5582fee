/**
 * Compiles the CUDA kernels, which is committed: `ffi/cuda_kernels/NAME.ptx` from `NAME.cu`, and those of
 * decoders to `NAME.sm_90a.cubin`, too. It
 * needs nvcc 13.0.88 (NVCC, or on PATH); the whole compiler is in the PyPI packages nvidia-cuda-nvcc,
 * nvidia-nvvm, nvidia-cuda-crt and nvidia-cuda-cccl 13.0, and nvidia-cuda-runtime, unpacked over each
 * other. With `--check` nothing is compiled: it fails if a source has changed since its PTX was made.
 */
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
/** Architectures that ptxas must assemble the PTX for. */
const architectures = ["sm_80", "sm_89", "sm_90", "sm_100"];

/** Names of the kernel sources, without ".cu". */
export function kernelModules(): string[] {
  return [...Deno.readDirSync(kernels)].map(({ name }) => name)
    .filter((name) => name.endsWith(".cu")).map((name) => name.slice(0, -3)).sort();
}

/** Texts of a source and of the headers of this directory that it includes. */
function sourceTexts(name: string, seen = new Set<string>()): string[] {
  if (seen.has(name)) return [];
  seen.add(name);
  const text = Deno.readTextFileSync(new URL(name, kernels));
  // "cuda_emulation.h" and the like, beside the software device, are no part of the PTX.
  const headers = [...text.matchAll(/^#include "(\w+\.h)"/gm)].map(([, header]) => header)
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

async function run(command: string, args: readonly string[]): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command(command, { args: [...args] }).output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  if (!success) throw new Error(`${command} ${args.join(" ")}\n${text(stderr)}${text(stdout)}`);
  return text(stdout);
}

/** Whether a kernel is compiled for compute capability 9.0, too: where programmatic launches pay. */
const hasCubin = (module: string) => module !== "kv";

async function compile(nvcc: string, module: string): Promise<void> {
  const source = path(new URL(`${module}.cu`, kernels));
  const output = path(new URL(`${module}.ptx`, kernels));
  const temporary = await Deno.makeTempDir();
  try {
    const raw = `${temporary}/${module}.ptx`;
    await run(nvcc, [...flags, source, "-o", raw]);
    const ptx = (await Deno.readTextFile(raw)).replace(/^\.version .*$/m, `.version ${isa}`)
      .replace(/^\/\/.*\n/gm, "").trimStart();
    const header = `// Generated from ${module}.cu by scripts/build_cuda_kernels.ts (nvcc ` +
      `${compilerVersion}).\n// Source hash: ${await sourceHash(module)}\n`;
    await Deno.writeTextFile(raw, header + ptx);
    const ptxas = nvcc.replace(/nvcc$/, "ptxas");
    for (const architecture of architectures) {
      const log = await run(ptxas, [`-arch=${architecture}`, raw, "-o", `${temporary}/cubin`]);
      if (log.trim() !== "") console.error(log.trim());
    }
    await Deno.copyFile(raw, output);
    if (hasCubin(module)) {
      const cubin = path(new URL(`${module}.sm_90a.cubin`, kernels));
      await run(nvcc, ["-cubin", "-arch=sm_90a", "-std=c++17", source, "-o", cubin]);
    }
    console.error(`${module}.ptx: ${Deno.statSync(output).size} bytes`);
  } finally {
    await Deno.remove(temporary, { recursive: true });
  }
}

async function main(): Promise<void> {
  if (Deno.args.includes("--check")) {
    for (const module of kernelModules()) {
      if (hashInPtx(module) !== await sourceHash(module)) {
        throw new Error(`${module}.ptx is not of this ${module}.cu: deno task cuda-kernels`);
      }
    }
    return;
  }
  const nvcc = Deno.env.get("NVCC") ?? "nvcc";
  const version = await run(nvcc, ["--version"]);
  if (!version.includes(compilerVersion)) {
    throw new Error(`${nvcc} is not nvcc ${compilerVersion}, but:\n${version}`);
  }
  for (const module of kernelModules()) await compile(nvcc, module);
}

if (import.meta.main) {
  refuseUnknownArguments(["--check"]);
  await main();
}
