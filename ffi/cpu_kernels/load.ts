import { type CpuKernels, KernelError, type KernelSet, kernelSets } from "./kernels.ts";
import { openNative, permitTiles } from "./native.ts";
import type { CreateKernelWorker } from "./wasm.ts";

export { KernelError };
export type { CreateKernelWorker };

/** How to load a kernel set. */
export interface LoadKernelsOptions {
  /** The set to load; null for the fastest available one. */
  readonly set: KernelSet | null;
  /** Number of threads that compute, the calling thread included. */
  readonly threads: number;
  /**
   * CPU to pin each thread to, the calling thread's first, so that the system does not run two threads
   * on one CPU. The calling thread stays pinned until `close`. Instances on one host must get different
   * CPUs. If absent, threads are not pinned. WASM threads are never pinned.
   */
  readonly cpus?: readonly number[];
  /** Starts WASM helper threads; by default the main module as a worker named "role:kernel". */
  readonly createKernelWorker?: CreateKernelWorker;
}

/** Whether a kernel set can be loaded here, and if not, why. */
export interface KernelSetState {
  readonly set: KernelSet;
  readonly unavailable: string | null;
}

const avx2 = ["avx2", "fma", "f16c"];
const avx512 = [...avx2, "avx512f", "avx512bw", "avx512vl", "avx512dq"];
/** Processor features (names of /proc/cpuinfo) that a set needs. */
const neededFeatures: Record<Exclude<KernelSet, "neon" | "wasm">, readonly string[]> = {
  amx: [...avx512, "avx512_bf16", "amx_tile", "amx_bf16"],
  avx512bf16: [...avx512, "avx512_bf16"],
  avx512,
  avx2,
};

/** Every kernel set, the fastest first, and what keeps it from being used here. */
export function kernelSetStates(): readonly KernelSetState[] {
  return kernelSets.map((set) => ({ set, unavailable: unavailability(set) }));
}

/**
 * Loads a kernel set.
 * @throws {KernelError} the requested set is not available, or no set can be started
 */
export async function loadCpuKernels(options: LoadKernelsOptions): Promise<CpuKernels> {
  const { set } = options;
  checkThreads(options);
  const states = kernelSetStates();
  if (set !== null) {
    const state = states.find((state) => state.set === set);
    const reason = state === undefined ? "no kernel set has this name" : state.unavailable;
    if (reason === null) return await open(set, options);
    const available = states.filter((state) => state.unavailable === null);
    throw new KernelError(
      `${set} kernels are not available: ${reason}. Available here: ` +
        available.map((state) => state.set).join(", "),
    );
  }
  for (const state of states) {
    if (state.unavailable !== null || state.set === "wasm") continue;
    try {
      return await open(state.set, options);
    } catch (error) {
      // The library does not load, for example because it was built for another system: try the next.
      if (error instanceof KernelError) throw error;
    }
  }
  return await open("wasm", options);
}

/** CPUs on which the system lets the calling thread run; empty if this is unknown. */
export function allowedCpus(): readonly number[] {
  const list = readText("/proc/thread-self/status").match(/^Cpus_allowed_list:\s*(\S+)/m)?.[1] ??
    "";
  return list.split(",").filter((range) => range !== "").flatMap((range) => {
    const [first, last = first] = range.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, i) => first + i);
  });
}

async function open(set: KernelSet, options: LoadKernelsOptions): Promise<CpuKernels> {
  if (set === "wasm") {
    const { openWasm } = await import("./wasm.ts"); // it holds the code of the kernels
    return await openWasm(options.threads, options.createKernelWorker ?? defaultKernelWorker);
  }
  const image = imageOf(set);
  if (image === null) throw new KernelError(`${set} kernels: the library has disappeared`);
  return openNative(set, image, options.threads, options.cpus ?? null);
}

function defaultKernelWorker(): Worker {
  // Deno has no main module in a worker, which is where kernels are loaded. The worker's own module is
  // the same one.
  const program = Deno.mainModule ?? globalThis.location.href;
  return new Worker(program, { type: "module", name: "role:kernel" });
}

function checkThreads({ threads, cpus }: LoadKernelsOptions): void {
  if (!Number.isInteger(threads) || threads < 1 || threads > 512) {
    throw new KernelError(`kernels: ${threads} threads, expected 1 to 512`);
  }
  if (cpus !== undefined && cpus.length !== threads) {
    throw new KernelError(
      `kernels: ${threads} threads cannot be pinned to CPUs ${cpus.join(", ")}: expected one CPU ` +
        `for each thread`,
    );
  }
}

function unavailability(set: KernelSet): string | null {
  const reason = machineProblem(set);
  if (reason !== null) return reason;
  if (set === "wasm" || imageOf(set) !== null) return null;
  return "they have not been built (`deno task kernels --all` builds them with clang or gcc)";
}

/** Why this machine cannot run a kernel set, whether it has been built or not; null when it can. */
export function machineProblem(set: KernelSet): string | null {
  if (set === "wasm") return null;
  const system = Deno.build.os === "linux" ? null : `native kernels are for Linux`;
  const arch = set === "neon" ? "aarch64" : "x86_64";
  if (system !== null) return system;
  if (Deno.build.arch !== arch) return `they are for ${arch}`;
  if (set !== "neon") {
    const features = processorFeatures();
    const missing = neededFeatures[set].filter((feature) => !features.has(feature));
    if (missing.length > 0) return `the processor lacks ${missing.join(", ")}`;
    if (set === "amx" && !permitTiles()) return "the system does not permit AMX tiles";
  }
  return null;
}

function processorFeatures(): ReadonlySet<string> {
  const flags = readText("/proc/cpuinfo").match(/^flags\s*:(.*)$/m)?.[1] ?? "";
  return new Set(flags.trim().split(/\s+/));
}

/** The path of the library that the build task left; its content in a compiled executable. */
function imageOf(set: KernelSet): string | Uint8Array | null {
  const url = new URL(`./build/kernels-${set}.so`, import.meta.url);
  if (url.protocol !== "file:") return null;
  try {
    // The system's loader does not see the files inside an executable of `deno compile`.
    if (Deno.build.standalone) return Deno.readFileSync(url);
    return Deno.statSync(url).isFile ? decodeURIComponent(url.pathname) : null;
  } catch {
    return null;
  }
}

function readText(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}
