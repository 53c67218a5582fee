/** What a host has: every library with its version, every device, every transport of UCX. */
import type { Cuda, DeviceInfo } from "./cuda/cuda.ts";
import { versionText } from "./cuda/errors.ts";
import { LibraryNotFoundError, openLibrary, type OpenOptions } from "./library.ts";
import { installedFiles, libraries, type LibraryName, systemPlaces } from "./library_search.ts";
import type { TransportDevice } from "./ucx/info.ts";
import { type MemoryType, Ucx } from "./ucx/ucx.ts";

/** A library of this host. */
export interface LibraryReport {
  readonly name: string;
  /** The file that this package takes; null if none can be opened. */
  readonly path: string | null;
  /** "13.0"; null if the library is not there or does not tell. */
  readonly version: string | null;
  readonly softwareDevice: boolean;
  /** Other files of the library. For `from` options, and for `surveyUcx` in processes of their own. */
  readonly others: readonly string[];
  /** Why none can be opened, with all that was tried; null if one is open. */
  readonly failure: string | null;
}

const out32 = { parameters: ["buffer"], result: "i32" } as const;
const versionFunctions = {
  libcuda: { cuDriverGetVersion: out32 },
  libcudart: { cudaRuntimeGetVersion: out32 },
  libnccl: { ncclGetVersion: out32 },
  libcublasLt: { cublasLtGetVersion: { parameters: [], result: "usize" } },
} as const;

/**
 * Opens a library as the bindings would, and asks for its version. UCX is opened by `Ucx.open`.
 * @param key of `libraries`
 */
export function surveyLibrary(
  key: keyof typeof libraries,
  options: OpenOptions = {},
): LibraryReport {
  const library: LibraryName = libraries[key];
  try {
    const { path, version, softwareDevice } = openedVersion(key, options);
    return {
      name: library.name,
      path,
      version,
      softwareDevice,
      others: others(path),
      failure: null,
    };
  } catch (error) {
    if (!(error instanceof LibraryNotFoundError)) throw error;
    const none = { path: null, version: null, softwareDevice: false };
    return { name: library.name, ...none, others: others(null), failure: error.message };
  }

  function others(path: string | null): string[] {
    const files = [...installedFiles(library, options.places ?? systemPlaces)];
    const real = path === null ? null : realPath(path);
    return files.filter((file) => realPath(file) !== real);
  }
}

function openedVersion(key: keyof typeof libraries, options: OpenOptions) {
  if (key === "ucp") {
    const { library: { path, softwareDevice }, version } = Ucx.open(options);
    return { path, version, softwareDevice };
  }
  const version = new Int32Array(1);
  const known = (status: number, text: string) => status === 0 ? text : null;
  if (key === "cuda") {
    const library = openLibrary(libraries.cuda, versionFunctions.libcuda, options);
    const status = library.symbols.cuDriverGetVersion(version);
    return { ...library, version: known(status, versionText(version[0])) };
  }
  if (key === "cudart") {
    const library = openLibrary(libraries.cudart, versionFunctions.libcudart, options);
    const status = library.symbols.cudaRuntimeGetVersion(version);
    return { ...library, version: known(status, versionText(version[0])) };
  }
  if (key === "nccl") {
    const library = openLibrary(libraries.nccl, versionFunctions.libnccl, options);
    const status = library.symbols.ncclGetVersion(version);
    return { ...library, version: known(status, threeParts(version[0])) };
  }
  const library = openLibrary(libraries.cublasLt, versionFunctions.libcublasLt, options);
  return { ...library, version: threeParts(Number(library.symbols.cublasLtGetVersion())) };
}

/** 23203 as "2.32.3", and 130200 as "13.2.0": the last four digits are minor version and patch. */
function threeParts(version: number): string {
  return `${Math.floor(version / 10000)}.${Math.floor(version / 100) % 100}.${version % 100}`;
}

/** A device with its free memory, and with the devices whose memory it can reach. */
export interface DeviceReport extends DeviceInfo {
  readonly freeBytes: number;
  readonly peers: readonly number[];
}

/** Every device that this process sees. Makes a context on each: 300 MB and 200 ms on a GPU. */
export function surveyDevices(cuda: Cuda): DeviceReport[] {
  const ordinals = Array.from({ length: cuda.deviceCount() }, (_, ordinal) => ordinal);
  return ordinals.map((ordinal) => {
    cuda.setDevice(ordinal);
    const { freeBytes, totalBytes } = cuda.memGetInfo();
    const peers = ordinals.filter((peer) => peer !== ordinal && cuda.canAccessPeer(ordinal, peer));
    return { ...cuda.deviceInfo(ordinal), totalBytes, freeBytes, peers };
  });
}

/** A file of UCX. */
export interface UcxReport {
  readonly path: string;
  readonly version: string;
  readonly memoryTypes: readonly MemoryType[];
  readonly devices: readonly TransportDevice[];
}

/** Transports of a file of UCX. For each other file take a process of its own: see `Ucx`. */
export function surveyUcx(options: OpenOptions = {}): UcxReport {
  const ucx = Ucx.open(options);
  const context = ucx.createContext();
  try {
    const { path } = ucx.library;
    const memoryTypes = context.memoryTypes();
    return { path, version: ucx.version, memoryTypes, devices: context.devices() };
  } finally {
    context.close();
  }
}

function realPath(path: string): string {
  try {
    return Deno.realPathSync(path);
  } catch {
    return path;
  }
}
