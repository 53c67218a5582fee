/** A host of which a test says what it has. */
import type { Cuda, DeviceInfo } from "../../../ffi/cuda/cuda.ts";
import { NoDriverError } from "../../../ffi/cuda/errors.ts";
import type { LibraryReport } from "../../../ffi/survey.ts";
import type { ModelCost, Step } from "../../../src/cli/doctor/examine.ts";
import type { Host } from "../../../src/cli/doctor/host.ts";
import type { PathReport } from "../../../src/cli/doctor/report.ts";
import { migrationBackends } from "../../../src/kv/transfer/backends.ts";

const GiB = 2 ** 30;

/** Eight CPUs, 4 GiB, no device, no library; a memcpy of 10 GB/s. */
export function fakeHost(parts: Partial<Host> = {}): Host {
  return {
    memory: () => ({
      cpus: 8,
      totalBytes: 8 * GiB,
      availableBytes: 4 * GiB,
      controlGroupFreeBytes: null,
    }),
    kernelSets: () => [{ set: "amx", unavailable: "no amx" }, { set: "wasm", unavailable: null }],
    nvidiaFile: () => null,
    library: (key) => missing(`lib${key}`),
    ucxLibrary: () => Promise.resolve(missing("libucp")),
    openCuda() {
      throw new NoDriverError("libcuda cannot be opened");
    },
    openCudart() {
      throw new NoDriverError("libcuda cannot be opened");
    },
    ucx: () => Promise.reject(new Error("nobody asked for UCX")),
    backends: migrationBackends.map((kind) => ({
      ...kind,
      ...kind.hostProblem && { hostProblem: () => Promise.resolve("its library is missing") },
    })),
    measureHost: () => Promise.resolve([path("memcpy", 10, 8)]),
    measureDevice: () => Promise.resolve([path("inside device 0", 1000, 900)]),
    ...parts,
  };
}

export function path(name: string, forwardGBps: number, backGBps: number): PathReport {
  return { path: name, forwardGBps, backGBps, softwareDevice: false, failure: null };
}

export function missing(name: string): LibraryReport {
  const failure =
    `${name} cannot be opened. Tried:\n  ${name}.so.1: not there\n  /opt/${name}.so: ` +
    "not an ELF file\nSearched: /opt.\nInstall it.";
  return { name, path: null, version: null, softwareDevice: false, others: [], failure };
}

/** A CUDA with so many devices, which can reach each other. */
export function fakeCuda(devices: number, library: Partial<Cuda["library"]> = {}): Cuda {
  const info = (ordinal: number): DeviceInfo => ({
    ordinal,
    name: "Fake H1",
    uuid: `GPU-${ordinal}`,
    pciBusId: "0000:3b:00.0",
    totalBytes: 80 * GiB,
    computeCapability: [9, 0],
    multiprocessors: 100,
    sharedMemoryPerBlockBytes: 1 << 17,
    l2CacheBytes: 1 << 25,
    copyEngines: 3,
    gpuDirectRdma: false,
    ipcEvents: true,
  });
  const parts: Partial<Cuda> = {
    library: {
      ...{ api: "runtime", name: "libcudart", path: "/opt/libcudart.so.13" },
      ...{ softwareDevice: false, version: 13000, ...library },
    },
    driverVersion: () => 13020,
    deviceCount: () => devices,
    deviceInfo: info,
    setDevice() {},
    memGetInfo: () => ({ freeBytes: 79 * GiB, totalBytes: 80 * GiB }),
    canAccessPeer: () => true,
  };
  return parts as Cuda;
}

/** 1000 bytes a token. */
export const model: ModelCost = {
  model: "test-model",
  dtype: "bfloat16",
  bytesPerToken: 1000,
  prefillTokensPerSecond: null,
};

export const silently: Step = (_name, run) => run();
