/**
 * Builds the software device: libcuda, libcudart, libnccl and their neighbours over host memory, for
 * machines without a GPU. They go to `dist/software_device/`, unless they are up to date there. It needs
 * g++ (or CXX) on Linux; without it the build says so, and the tests that want the device are skipped.
 */

import { buildKernelLibrary, run } from "./build_kernel_library.ts";
import { refuseUnknownArguments } from "./known_arguments.ts";

const sources = new URL("../ffi/software_device/", import.meta.url);
const output = new URL("../dist/software_device/", import.meta.url);
const path = (url: URL) => decodeURIComponent(url.pathname);

const compileFlags = [
  ...["-std=c++20", "-O2", "-g1", "-fPIC", "-fvisibility=hidden", "-fno-strict-aliasing"],
  ...["-Wall", "-Wextra"],
];
const linkFlags = ["-shared", "-pthread", "-Wl,-rpath,$ORIGIN", "-Wl,--no-as-needed"];

/** The library with all state; the others have CUDA's names and lead to it. */
const core = "libllumnix_software_device.so";
const runtimeVersions = { "libcudart.so.13": 13000, "libcudart.so.12": 12090 };

interface Library {
  readonly name: string;
  /** Source files, relative to `ffi/software_device/`. */
  readonly sources: readonly string[];
  readonly defines?: readonly string[];
  /** Whether each source is compiled by itself: their internal names may clash. */
  readonly separate?: boolean;
  /** Libraries of the software device that it needs. */
  readonly needs?: readonly string[];
}

/** Source files of a directory of `ffi/software_device/` but for `others`; none if it is not there. */
function sourcesIn(directory: string, others: readonly string[] = []): string[] {
  try {
    return [...Deno.readDirSync(new URL(directory, sources))].map((entry) => directory + entry.name)
      .filter((name) => name.endsWith(".cpp") && !others.includes(name)).sort();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

/** What is built, in the order of linking. */
function libraries(): Library[] {
  const runtime = ["runtime.cpp", "status.cpp"];
  const all: Library[] = [
    { name: core, sources: sourcesIn("", ["runtime.cpp", "nvml.cpp"]) },
    { name: "libcuda.so.1", sources: [], needs: [core] },
    ...Object.entries(runtimeVersions).map(([name, version]) => ({
      name,
      sources: runtime,
      defines: [`-DRUNTIME_VERSION=${version}`],
      needs: [core],
    })),
    { name: "libnvidia-ml.so.1", sources: ["nvml.cpp"] },
    { name: "libcublasLt.so.13", sources: [], needs: [core] },
    { name: "libnccl.so.2", sources: sourcesIn("nccl/"), separate: true, needs: [core] },
  ];
  return all.filter(({ sources, separate }) => !separate || sources.length > 0);
}

/** What the build came to. */
export type SoftwareDevice =
  /** The directory to give as LLUMNIX_CUDA_LIBRARIES, and a line about the build. */
  | { readonly directory: string; readonly outcome: string }
  /** Why there is no software device here. */
  | { readonly missing: string };

async function readText(file: URL): Promise<string | null> {
  try {
    return await Deno.readTextFile(file);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

async function compilerVersion(compiler: string): Promise<string | null> {
  try {
    return (await run(compiler, ["--version"])).split("\n")[0];
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw error;
  }
}

function sourceFiles(directory = ""): string[] {
  return [...Deno.readDirSync(new URL(directory, sources))].flatMap((entry) =>
    entry.isDirectory
      ? sourceFiles(`${directory}${entry.name}/`)
      : /\.(cpp|h)$/.test(entry.name)
      ? [directory + entry.name]
      : []
  ).sort();
}

/** Paths of this project's CUDA kernels: the files of an ending. */
function kernelSources(ending = ".cu"): string[] {
  const directory = new URL("../ffi/cuda_kernels/", import.meta.url);
  return [...Deno.readDirSync(directory)].map(({ name }) => path(directory) + name)
    .filter((name) => name.endsWith(ending)).sort();
}

/** Hash over sources, flags and compiler. */
async function stampOf(version: string): Promise<string> {
  const scripts = ["build_software_device.ts", "build_kernel_library.ts"];
  const files = [
    ...sourceFiles().map((name) => new URL(name, sources)),
    ...[...kernelSources(), ...kernelSources(".h")].map((name) => new URL(`file://${name}`)),
    ...scripts.map((name) => new URL(name, import.meta.url)),
  ];
  const texts = files.map((file) => file.href + "\0" + Deno.readTextFileSync(file));
  const bytes = new TextEncoder().encode([version, ...texts].join("\0"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex();
}

/** Runs the jobs, as many at a time as there are processors. */
async function inParallel(jobs: readonly (() => Promise<unknown>)[]): Promise<void> {
  const left = [...jobs];
  const worker = async () => {
    for (let job = left.shift(); job !== undefined; job = left.shift()) await job();
  };
  await Promise.all(Array.from({ length: navigator.hardwareConcurrency }, worker));
}

/**
 * The jobs that compile a library, each giving an object file. Sources that allow it are compiled as one
 * unit, in a quarter of the time: most of it goes into the headers of C++.
 */
function compilations(compiler: string, library: Library, objects: URL): (() => Promise<string>)[] {
  const files = library.sources.map((name) => path(new URL(name, sources)));
  const units = library.separate ? files.map((file) => [file]) : files.length > 0 ? [files] : [];
  return units.map((unit, index) => async () => {
    const source = `${path(objects)}${library.name}-${index}.cpp`;
    await Deno.writeTextFile(source, unit.map((file) => `#include "${file}"\n`).join(""));
    const object = source.replace(/cpp$/, "o");
    const flags = [...compileFlags, ...(library.defines ?? [])];
    await run(compiler, [...flags, "-c", source, "-o", object]);
    return object;
  });
}

async function buildAll(compiler: string): Promise<void> {
  const objects = new URL("objects/", output);
  await Deno.mkdir(objects, { recursive: true });
  const all = libraries();
  const objectsOf = new Map(all.map((library) => [library, [] as string[]]));
  const kernels = (name: string, checked: boolean) =>
    buildKernelLibrary({
      compiler,
      sources: kernelSources(),
      output: path(output) + name,
      objects: path(objects).replace(/\/$/, ""),
      checked,
    });
  await inParallel([
    ...all.flatMap((library) =>
      compilations(compiler, library, objects).map((compile) => async () => {
        objectsOf.get(library)!.push(await compile());
      })
    ),
    () => kernels("libllumnix_kernels.so", false),
    () => kernels("libllumnix_kernels_checked.so", true),
  ]);
  for (const library of all) {
    const file = path(output) + library.name;
    const needs = (library.needs ?? []).map((name) => path(output) + name);
    const inputs = [...objectsOf.get(library)!, ...needs, "-ldl"];
    // A process may have the old file mapped: it keeps that one.
    const partial = `${file}.partial`;
    await run(compiler, [
      ...linkFlags,
      `-Wl,-soname,${library.name}`,
      "-o",
      partial,
      ...inputs,
    ]);
    await Deno.rename(partial, file);
  }
}

/**
 * Builds the software device where it is not up to date, and gives its directory. Processes that build
 * at the same time wait for each other.
 * @throws {Error} if the compiler refuses the sources
 */
export async function buildSoftwareDevice(): Promise<SoftwareDevice> {
  if (Deno.build.os !== "linux") return { missing: `it needs Linux, not ${Deno.build.os}` };
  const compiler = Deno.env.get("CXX") ?? "g++";
  const version = await compilerVersion(compiler);
  if (version === null) return { missing: `no C++ compiler: install g++, or set CXX` };
  await Deno.mkdir(output, { recursive: true });
  using lock = await Deno.open(new URL("lock", output), { write: true, create: true });
  await lock.lock(true);
  const stamp = await stampOf(version);
  const directory = path(output);
  if (await readText(new URL("stamp", output)) === stamp) {
    return { directory, outcome: `up to date, ${version}` };
  }
  const startMs = performance.now();
  await buildAll(compiler);
  await Deno.writeTextFile(new URL("stamp", output), stamp);
  const seconds = ((performance.now() - startMs) / 1000).toFixed(1);
  return { directory, outcome: `built in ${seconds} s, ${version}` };
}

if (import.meta.main) {
  refuseUnknownArguments();
  const built = await buildSoftwareDevice();
  if ("missing" in built) console.error(`software device not built: ${built.missing}`);
  else console.error(`software device: ${built.directory} (${built.outcome})`);
}
