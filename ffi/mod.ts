/**
 * CUDA, NCCL, cuBLASLt and UCX for Deno: the C libraries by their own names, through FFI.
 *
 * ```ts
 * import { openCuda } from "deno-ffi-cuda";
 *
 * const cuda = openCuda();
 * cuda.setDevice(0);
 * const address = cuda.malloc(1 << 20);
 * ```
 * @module
 */
export {
  type FailedCandidate,
  type Library,
  LibraryNotFoundError,
  LibraryVersionError,
  openLibrary,
  type OpenOptions,
} from "./library.ts";
export {
  installedFiles,
  libraries,
  type LibraryName,
  type SearchPlaces,
  systemPlaces,
} from "./library_search.ts";
export { addressOf, bytesAt, nativeBuffer } from "./memory.ts";

export * from "./cuda/cuda.ts";
export { openCuda } from "./cuda/open.ts";
export { openCudart } from "./cuda/cudart.ts";
export { openDriver } from "./cuda/driver.ts";
export {
  CudaError,
  DeviceBusyError,
  DeviceLostError,
  DriverTooOldError,
  type Failure,
  NoDeviceError,
  NoDriverError,
  OutOfMemoryError,
} from "./cuda/errors.ts";
export { GraphDriver } from "./cuda/graphs.ts";
export { functionAttributes, Kernel, KernelDriver, type ParameterType } from "./cuda/kernels.ts";
export type { Dimensions, Launch } from "./cuda/launch.ts";

export { type Gathered, type LocalNccl, LocalRanks } from "./nccl/local_ranks.ts";
export {
  type CommunicatorConfig,
  Nccl,
  NcclError,
  type NcclState,
  uniqueIdBytes,
} from "./nccl/nccl.ts";
export {
  type Claim,
  type ClaimRuns,
  NcclPair,
  PairDeadError,
  type PairMessage,
  type PairOptions,
  type Run,
  type SendOptions,
  TransferFailedError,
  TransferRefusedError,
} from "./nccl/pair.ts";

export {
  CublasError,
  CublasLt,
  type ElementType,
  type LinearOperands,
  LinearPlan,
  type LinearShape,
} from "./cublaslt/cublaslt.ts";

export { type ContextOptions, type MemoryType, Ucx } from "./ucx/ucx.ts";
export { UcxContext, UcxMemory } from "./ucx/context.ts";
export { type RemoteKey, UcxEndpoint } from "./ucx/endpoint.ts";
export { UcxError, type UcxRequest } from "./ucx/calls.ts";
export type { Lane, TransportDevice } from "./ucx/info.ts";
export { type EndpointOptions, UcxWorker } from "./ucx/worker.ts";

export {
  type DeviceReport,
  type LibraryReport,
  surveyDevices,
  surveyLibrary,
  surveyUcx,
  type UcxReport,
} from "./survey.ts";
