/**
 * Compiles CUDA kernels for the CPU: a library that the software device loads in place of a GPU's code.
 */

const device = new URL("../ffi/software_device/", import.meta.url);
const path = (url: URL) => decodeURIComponent(url.pathname);

/** What a library of kernels is made of. */
export interface KernelLibraryOptions {
  readonly compiler: string;
  /** Paths of the `.cu` files. */
  readonly sources: readonly string[];
  /** Path of the library. */
  readonly output: string;
  /** Directory for object files. Those of the emulator are made once and used again. */
  readonly objects: string;
  /** Whether the race checker sees each access of the kernels. */
  readonly checked: boolean;
}

const emulatorUnits = ["emulator", "instructions", "tensor", "faults", "launches"];
const commonFlags = ["-std=c++20", "-g", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"];
/**
 * Each access of an instrumented kernel calls a function of `races.cpp`, which stands in for libtsan.
 * A volatile access is told from a plain one: threads may spin on it.
 */
const checkedFlags = ["-O1", "-fsanitize=thread", "--param", "tsan-distinguish-volatile=1"];
/** Compilers leave copies of blocks to the C library, which is not instrumented. */
const renamed = ["memcpy", "memset", "memmove"].map((name) =>
  `--redefine-sym=${name}=emulated_${name}`
);

/** Runs a command to its end, and gives what it wrote. @throws {Error} with what it complains of */
export async function run(command: string, args: readonly string[]): Promise<string> {
  const child = new Deno.Command(command, { args: [...args], stdout: "piped", stderr: "piped" });
  const { success, stdout, stderr } = await child.output();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes).trim();
  if (!success) throw new Error(`${command} ${args.join(" ")}\n${text(stderr)}`);
  return text(stdout);
}

/** Names of the kernels in a source: `extern "C" __global__ void name(`. */
export function kernelNames(source: string): string[] {
  const kernel = /extern "C" __global__ void\s+(?:__launch_bounds__\([^)]*\)\s+)?(\w+)\(/g;
  return [...source.matchAll(kernel)].map(([, name]) => name);
}

const includeDirectories = [`${path(device)}kernels`, path(new URL("../cuda_kernels", device))];

/** Texts of the headers that kernels may include. */
function headerTexts(): Promise<string[]> {
  const names = includeDirectories.flatMap((directory) =>
    [...Deno.readDirSync(directory)].map(({ name }) => `${directory}/${name}`)
  );
  const headers = names.filter((name) => name.endsWith(".h")).sort();
  return Promise.all(headers.map((name) => Deno.readTextFile(name)));
}

/** Texts of the kernel sources that a source includes, for variants of their kernels. */
function includedSources(text: string): Promise<string[]> {
  const names = [...text.matchAll(/^#include "(\w+\.cu)"/gm)].map(([, name]) => name);
  return Promise.all(names.map((name) => Deno.readTextFile(`${includeDirectories[1]}/${name}`)));
}

async function sha256(texts: readonly string[]): Promise<string> {
  const bytes = new TextEncoder().encode(texts.join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Builds a library of kernels. @throws {Error} if the compiler refuses a source */
export async function buildKernelLibrary(options: KernelLibraryOptions): Promise<void> {
  const { compiler, sources, output, objects, checked } = options;
  const emulator = await Promise.all(
    [...emulatorUnits, ...(checked ? ["races", "instrumentation"] : ["no_checker"])]
      .map((name) => emulatorObject(compiler, name, objects)),
  );
  const name = output.slice(output.lastIndexOf("/") + 1);
  const headers = await headerTexts();
  const compile = async (source: string, index: number): Promise<string> => {
    const text = await Deno.readTextFile(source);
    const included = await includedSources(text);
    const flags = [
      ...[...commonFlags, ...(checked ? checkedFlags : ["-O2"])],
      ...includeDirectories.map((directory) => `-I${directory}`),
    ];
    // A source that was compiled before, with these headers and flags, is not compiled again.
    const hash = await sha256([compiler, ...flags, source, text, ...included, ...headers]);
    const object = `${objects}/${hash}.o`;
    if (await Deno.stat(object).then(() => true, () => false)) return object;
    const unit = `${objects}/${name}-${index}.cpp`, partial = `${object}.${Deno.pid}`;
    await Deno.writeTextFile(
      unit,
      `#include "${source}"\n#include "${path(device)}kernels/registry.h"\n` +
        kernelNames(text).map((kernel) => `REGISTER_KERNEL(${kernel})\n`).join(""),
    );
    await run(compiler, [...flags, "-c", unit, "-o", partial]);
    if (checked) await run("objcopy", [...renamed, partial]);
    await Deno.rename(partial, object);
    return object;
  };
  // One after the other: a caller builds several libraries at a time.
  const kernels: string[] = [];
  for (const [index, source] of sources.entries()) kernels.push(await compile(source, index));
  const partial = `${output}.partial`;
  const link = ["-shared", "-pthread", "-o", partial, ...emulator, ...kernels, "-ldl"];
  await run(compiler, link);
  await Deno.rename(partial, output);
}

const emulatorObjects = new Map<string, Promise<string>>();

/** An object file of the emulator, compiled once if it is older than its sources. */
function emulatorObject(compiler: string, name: string, objects: string): Promise<string> {
  const object = `${objects}/${name}.o`;
  if (!emulatorObjects.has(object)) {
    emulatorObjects.set(object, compileEmulator(compiler, name, object));
  }
  return emulatorObjects.get(object)!;
}

async function compileEmulator(compiler: string, name: string, object: string): Promise<string> {
  const directory = `${path(device)}kernels/`;
  const times = [...Deno.readDirSync(directory)].map((entry) =>
    Deno.statSync(directory + entry.name).mtime!.getTime()
  );
  const made = await Deno.stat(object).catch(() => null);
  if (made !== null && made.mtime!.getTime() > Math.max(...times)) return object;
  const partial = `${object}.${Deno.pid}`;
  await run(compiler, [
    ...commonFlags,
    "-O2",
    "-c",
    `${directory}${name}.cpp`,
    "-o",
    partial,
  ]);
  await Deno.rename(partial, object);
  return object;
}
