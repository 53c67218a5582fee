/** Makes the report of `llumnix doctor`. Whatever a host lacks is a line of the report, not an error. */
import type { Cuda } from "../../../ffi/cuda/cuda.ts";
import {
  CudaError,
  DriverTooOldError,
  NoDeviceError,
  NoDriverError,
  versionText,
} from "../../../ffi/cuda/errors.ts";
import type { DeviceReport } from "../../../ffi/survey.ts";
import { surveyDevices } from "../../../ffi/survey.ts";
import { version } from "../../core/version.ts";
import { memoryProblem } from "../../kv/transfer/backends.ts";
import type { BackendKind, BackendOptions } from "../../kv/transfer/backend_kind.ts";
import type { Host, LibraryKey } from "./host.ts";
import type {
  BackendReport,
  CrossoverReport,
  DoctorReport,
  DriverReport,
  HostReport,
  PathsReport,
  UcxFileReport,
} from "./report.ts";

/** A model's part of the report. */
export type ModelCost = Omit<CrossoverReport, "paths">;

/** Runs a step, and tells the user of it if it takes long. */
export type Step = <T>(name: string, run: () => Promise<T>) => Promise<T>;

const libraryKeys: readonly LibraryKey[] = ["cuda", "cudart", "nccl", "cublasLt"];

/** As `serve` has them without arguments. */
const defaults: BackendOptions = {
  migrationBackendTransferType: "rdma",
  disableInitInstanceByManager: false,
  disableFixedNodeInitInstance: false,
  migrationBackendServerAddress: "127.0.0.1:50051",
};

const MiB = 1 << 20;

/** An instance needs about this much beside its KV cache: see `src/kv/sizing.ts`. */
const LEAST_BYTES = 256 * MiB;

const MOST_BUFFER_BYTES = 64 * MiB;
/** Of the memory that is available; the measurement holds three buffers. */
const BUFFER_SHARE = 1 / 16;
const DEVICE_BUDGET_MS = 400;

/** Examines a host. Takes about four seconds, two of them for the measurements. */
export async function examine(host: Host, model: ModelCost, step: Step): Promise<DoctorReport> {
  const memory = host.memory();
  const libraries = libraryKeys.map((key) => host.library(key));
  const { driver, cuda, devices } = await step(
    "asking CUDA for devices",
    () => Promise.resolve(examineDriver(host)),
  );
  const ucp = await step("looking for UCX", () => host.ucxLibrary());
  const ucx = await step("asking UCX for transports", () => examineUcx(host, ucp));
  const backends = await examineBackends(host, driver);
  const paths = await step("measuring", () => measure(host, memory, cuda));
  const cpuKernels = host.kernelSets();
  return {
    schema: 1,
    version,
    host: memory,
    driver,
    devices,
    libraries: [...libraries, ucp],
    ucx,
    cpuKernels,
    migrationBackends: backends,
    paths,
    crossover: crossoverOf(model, paths),
    problems: [
      ...cpuKernels.some(({ unavailable }) => unavailable === null)
        ? []
        : ["no set of CPU kernels can be used here: see `CPU kernels`"],
      ...memory.availableBytes >= LEAST_BYTES ? [] : [
        `${
          Math.floor(memory.availableBytes / MiB)
        } MiB of memory are available; an instance needs ` +
        `${LEAST_BYTES / MiB} MiB and its KV cache`,
      ],
    ],
    notes: notesOf(host, driver),
  };
}

/** The driver's state, and CUDA with its devices where they can be used. */
export function examineDriver(
  host: Pick<Host, "openCuda">,
): { driver: DriverReport; cuda: Cuda | null; devices: readonly DeviceReport[] } {
  let cuda: Cuda | null = null;
  try {
    cuda = host.openCuda();
    const devices = surveyDevices(cuda);
    const none = devices.length === 0;
    const driver: DriverReport = {
      ...librariesOf(cuda),
      state: none ? "no device" : "ready",
      reason: none ? "The driver shows no device: see `nvidia-smi -L`" : null,
    };
    if (!none) cuda.setDevice(0);
    return { driver, cuda: none ? null : cuda, devices };
  } catch (error) {
    const known = error instanceof CudaError || error instanceof NoDriverError;
    if (!known) throw error;
    return { driver: failedDriver(cuda, error), cuda: null, devices: [] };
  }
}

function librariesOf(cuda: Cuda | null) {
  const code = cuda?.driverVersion() ?? 0;
  return {
    library: cuda?.library.name ?? null,
    driverVersion: code === 0 ? null : versionText(code),
    libraryVersion: cuda === null ? null : versionText(cuda.library.version),
    softwareDevice: cuda?.library.softwareDevice ?? false,
  };
}

function failedDriver(cuda: Cuda | null, error: CudaError | NoDriverError): DriverReport {
  const known = { ...librariesOf(cuda), reason: error.message };
  if (error instanceof NoDriverError) return { ...known, state: "no driver" };
  if (error instanceof NoDeviceError) return { ...known, state: "no device" };
  if (!(error instanceof DriverTooOldError)) return { ...known, state: "failed" };
  return {
    ...known,
    state: "driver too old",
    driverVersion: versionText(error.driverVersion),
    libraryVersion: versionText(error.libraryVersion),
  };
}

async function examineUcx(
  host: Host,
  { path, others }: { path: string | null; others: readonly string[] },
): Promise<UcxFileReport[]> {
  const files = [...path === null ? [] : [path], ...others];
  const reports: UcxFileReport[] = [];
  // One after the other: each starts threads of its own.
  for (const file of files) {
    try {
      reports.push({ ...await host.ucx(file), path: file, failure: null });
    } catch (error) {
      reports.push({ path: file, failure: (error as Error).message });
    }
  }
  return reports;
}

/** Whether each backend works here with host pools and with device pools. */
export async function examineBackends(
  { backends }: Pick<Host, "backends">,
  driver: Pick<DriverReport, "state">,
): Promise<BackendReport[]> {
  const deviceProblem = driver.state === "ready"
    ? null
    : `no CUDA device can be used here (${driver.state})`;
  return await Promise.all(backends.map(async (kind) => {
    const problem = async (memory: "host" | "device") =>
      poolProblem(kind, memory, backends) ?? (memory === "device" ? deviceProblem : null) ??
        kind.check?.(defaults) ?? await kind.hostProblem?.(memory) ?? null;
    return {
      name: kind.name,
      hostPoolProblem: await problem("host"),
      devicePoolProblem: await problem("device"),
    };
  }));
}

function poolProblem(
  kind: BackendKind,
  memory: "host" | "device",
  register: readonly BackendKind[],
): string | null {
  const owner = memory === "host" ? "an instance on the CPU" : "an instance on a device";
  return memoryProblem(kind, memory, owner, register);
}

async function measure(host: Host, memory: HostReport, cuda: Cuda | null): Promise<PathsReport> {
  const startMs = performance.now();
  const share = Math.min(MOST_BUFFER_BYTES, memory.availableBytes * BUFFER_SHARE);
  const bufferBytes = Math.max(1, Math.floor(share / MiB)) * MiB;
  const measured = await host.measureHost(bufferBytes, memory.cpus);
  if (cuda !== null) measured.push(...await measureDeviceSafely(host, cuda));
  return { tookMs: Math.round(performance.now() - startMs), bufferBytes, measured };
}

async function measureDeviceSafely(host: Host, cuda: Cuda) {
  try {
    return await host.measureDevice(cuda, DEVICE_BUDGET_MS);
  } catch (error) {
    if (!(error instanceof CudaError)) throw error;
    const { softwareDevice } = cuda.library;
    const none = { forwardGBps: null, backGBps: null };
    return [{ path: "device 0", ...none, softwareDevice, failure: error.message }];
  }
}

/**
 * A path moves bytes; a model says how many bytes a token has. Paths of the software device are left
 * out: their speed says nothing.
 */
export function crossoverOf(
  model: ModelCost,
  paths: Pick<PathsReport, "measured">,
): CrossoverReport {
  const rates = paths.measured.flatMap(({ path, forwardGBps, backGBps, softwareDevice }) => {
    if (forwardGBps === null || backGBps === null || softwareDevice) return [];
    const bytesPerSecond = Math.min(forwardGBps, backGBps) * 1e9;
    const movedTokensPerSecond = Math.round(bytesPerSecond / model.bytesPerToken);
    const prefill = model.prefillTokensPerSecond;
    const faster = prefill === null
      ? null
      : prefill > movedTokensPerSecond
      ? "recompute" as const
      : "move" as const;
    return [{ path, movedTokensPerSecond, faster }];
  });
  return { ...model, paths: rates };
}

function notesOf(host: Host, driver: DriverReport): string[] {
  const notes: string[] = [];
  const file = host.nvidiaFile();
  if (driver.state !== "ready" && file !== null) {
    notes.push(`this host has an NVIDIA device (${file}), and CUDA does not come up`);
  }
  if (driver.state === "ready" && driver.library === "libcuda") {
    const reason = cudartProblem(host);
    if (reason !== null) notes.push(`libcuda is used in place of libcudart: ${reason}`);
  }
  if (driver.softwareDevice) {
    notes.push("the device is the software device: no figure of it says anything of a GPU");
  }
  return notes;
}

function cudartProblem(host: Host): string | null {
  try {
    host.openCudart();
    return null;
  } catch (error) {
    return (error as Error).message.split("\n")[0];
  }
}
