/** What `llumnix doctor` asks of a host. Tests give their own. */
import { kernelSetStates } from "../../../ffi/cpu_kernels/load.ts";
import type { KernelSetState } from "../../../ffi/cpu_kernels/load.ts";
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import { openCuda } from "../../../ffi/cuda/open.ts";
import { openCudart } from "../../../ffi/cuda/cudart.ts";
import { LibraryVersionError } from "../../../ffi/library.ts";
import type { libraries } from "../../../ffi/library_search.ts";
import { Nccl } from "../../../ffi/nccl/nccl.ts";
import { type LibraryReport, surveyLibrary, type UcxReport } from "../../../ffi/survey.ts";
import { selfCommand } from "../../core/self_command.ts";
import { availableMemoryBytes, freeWithinGroups } from "../../executor/cpu/host_memory.ts";
import { migrationBackends } from "../../kv/transfer/backends.ts";
import { measureDevice } from "./device_copies.ts";
import { measureHost } from "./host_copies.ts";
import { nvidiaFile } from "./nvidia_files.ts";
import type { HostReport, PathReport } from "./report.ts";

export type LibraryKey = Exclude<keyof typeof libraries, "ucp">;

/** A host, as the doctor sees it. */
export interface Host {
  memory(): HostReport;
  kernelSets(): readonly KernelSetState[];
  /** A file of an NVIDIA device; null where the system shows none. */
  nvidiaFile(): string | null;
  /** Opens a library. A version that the bindings refuse is a failure of the report. */
  library(key: LibraryKey): LibraryReport;
  /** The same of UCX. */
  ucxLibrary(): Promise<LibraryReport>;
  /** @throws {Error} CUDA does not come up: see `ffi/cuda/errors.ts` */
  openCuda(): Cuda;
  /** libcudart alone, which may be too new for the driver. @throws {Error} likewise */
  openCudart(): Cuda;
  /** Transports of a file of UCX. @throws {Error} it cannot be used */
  ucx(file: string): Promise<UcxReport>;
  readonly backends: typeof migrationBackends;
  measureHost(byteLength: number, cpus: number): Promise<PathReport[]>;
  measureDevice(cuda: Cuda, budgetMs: number): Promise<PathReport[]>;
}

/** This host. */
export const thisHost: Host = {
  memory() {
    const free = freeWithinGroups(readText), { total } = Deno.systemMemoryInfo();
    return {
      cpus: navigator.hardwareConcurrency,
      totalBytes: total,
      availableBytes: availableMemoryBytes(),
      // Version 1 writes 2^63 where there is no limit.
      controlGroupFreeBytes: free < total ? free : null,
    };
  },
  kernelSets: kernelSetStates,
  nvidiaFile,
  library(key) {
    const report = surveyLibrary(key);
    if (report.path === null || !(key in minimumVersions)) return report;
    try {
      minimumVersions[key]!();
      return report;
    } catch (error) {
      if (!(error instanceof LibraryVersionError)) throw error;
      return { ...report, failure: error.message };
    }
  },
  openCuda: () => openCuda(),
  openCudart: () => openCudart(),
  ucxLibrary: async () => await askChild(["ucx-library"]) as LibraryReport,
  ucx: async (file) => await askChild(["ucx", file]) as UcxReport,
  backends: migrationBackends,
  measureHost,
  measureDevice,
};

/** Bindings that refuse old versions. */
const minimumVersions: Partial<Record<LibraryKey, () => unknown>> = { nccl: () => Nccl.open() };

/** A first use of UCX on a busy host takes less. */
const CHILD_LIMIT_MS = 20_000;

/**
 * Asks a process of its own about UCX: a second UCX in one process would get the first one's parts, and
 * a broken one ends the process.
 * @throws {Error} the process failed
 */
async function askChild(words: readonly string[]): Promise<unknown> {
  const [command, ...leading] = selfCommand();
  const { stdout, stderr, success } = await new Deno.Command(command, {
    args: [...leading, "doctor", "child", ...words],
    signal: AbortSignal.timeout(CHILD_LIMIT_MS),
  }).output();
  const lastLine = (bytes: Uint8Array) =>
    new TextDecoder().decode(bytes).trim().split("\n").at(-1)!;
  if (!success) throw new Error(lastLine(stderr) || "its process was killed");
  const { failure, result } = JSON.parse(lastLine(stdout));
  if (result === undefined) throw new Error(failure);
  return result;
}

function readText(path: string): string | null {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return null;
  }
}
