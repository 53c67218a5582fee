/** The ABI that the bindings are written for, library by library. */
import { cudaConstants } from "../../ffi/cuda/common_symbols.ts";
import { copyAttributesLayout, srcAccessOrderStream } from "../../ffi/cuda/copy_attributes.ts";
import { cudartSymbols, memcpyDefault } from "../../ffi/cuda/cudart.ts";
import { ipcHandleBytes } from "../../ffi/cuda/cuda.ts";
import { identitySymbols } from "../../ffi/cuda/device_identities.ts";
import { driverSymbols } from "../../ffi/cuda/driver.ts";
import { deadContextCodes, driverInsufficient, errorCodes } from "../../ffi/cuda/errors.ts";
import { captureModeThreadLocal, graphSymbols } from "../../ffi/cuda/graphs.ts";
import {
  functionAttributes,
  jitErrorLogBuffer,
  jitErrorLogBufferBytes,
  kernelSymbols,
} from "../../ffi/cuda/kernels.ts";
import { launchAttributeIds, launchLayout } from "../../ffi/cuda/launch.ts";
import { cublasConstants, heuristicLayout } from "../../ffi/cublaslt/cublaslt.ts";
import { cublasLtSymbols } from "../../ffi/cublaslt/symbols.ts";
import {
  configLayout,
  configMagic,
  configUnset,
  ncclResults,
  ncclUint8,
  uniqueIdBytes,
} from "../../ffi/nccl/nccl.ts";
import { ncclSymbols } from "../../ffi/nccl/symbols.ts";
import * as ucp from "../../ffi/ucx/layouts.ts";
import { ucpSymbols } from "../../ffi/ucx/symbols.ts";
import { type Abi, functionsOf, signatureText } from "./abi.ts";

export type LibraryKey = "cuda" | "cudart" | "nccl" | "cublasLt" | "ucp";

const copyAttributes = {
  size: copyAttributesLayout.byteLength,
  fields: {
    srcAccessOrder: copyAttributesLayout.srcAccessOrder,
    srcLocHint: copyAttributesLayout.srcLocHint,
    dstLocHint: copyAttributesLayout.dstLocHint,
    flags: copyAttributesLayout.flags,
  },
};

const cuda: Abi = {
  functions: signatures(driverSymbols, identitySymbols, kernelSymbols, graphSymbols),
  structs: {
    CUmemcpyAttributes: copyAttributes,
    CUipcMemHandle: { size: ipcHandleBytes, fields: {} },
    CUipcEventHandle: { size: ipcHandleBytes, fields: {} },
    CUuuid: { size: 16, fields: {} },
    CUlaunchConfig: {
      size: launchLayout.byteLength,
      fields: {
        gridDimX: launchLayout.grid,
        blockDimX: launchLayout.block,
        sharedMemBytes: launchLayout.sharedBytes,
        hStream: launchLayout.stream,
        attrs: launchLayout.attributes,
        numAttrs: launchLayout.attributeCount,
      },
    },
    CUlaunchAttribute: {
      size: launchLayout.attribute.byteLength,
      fields: { id: launchLayout.attribute.id, value: launchLayout.attribute.value },
    },
  },
  constants: {
    ...cudaConstants,
    ...errorCodes,
    ...deadContextCodes,
    CU_MEMCPY_SRC_ACCESS_ORDER_STREAM: srcAccessOrderStream,
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: captureModeThreadLocal,
    CU_JIT_ERROR_LOG_BUFFER: jitErrorLogBuffer,
    CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES: jitErrorLogBufferBytes,
    CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK: functionAttributes.maxThreadsPerBlock,
    CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES: functionAttributes.staticSharedBytes,
    CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES: functionAttributes.localBytes,
    CU_FUNC_ATTRIBUTE_NUM_REGS: functionAttributes.registers,
    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES: functionAttributes.maxDynamicSharedBytes,
    CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT: functionAttributes.preferredSharedCarveout,
    CU_LAUNCH_ATTRIBUTE_COOPERATIVE: launchAttributeIds.cooperative,
    CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION: launchAttributeIds.clusterDimension,
    CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
      launchAttributeIds.programmaticStreamSerialization,
  },
};

/** The runtime's names of what it shares with the driver. */
const cudartConstants = {
  cudaDevAttrMultiProcessorCount: cudaConstants.CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
  cudaDevAttrL2CacheSize: cudaConstants.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,
  cudaDevAttrAsyncEngineCount: cudaConstants.CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT,
  cudaDevAttrComputeCapabilityMajor: cudaConstants.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
  cudaDevAttrComputeCapabilityMinor: cudaConstants.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
  cudaDevAttrMaxSharedMemoryPerBlockOptin:
    cudaConstants.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN,
  cudaDevAttrGPUDirectRDMASupported: cudaConstants.CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED,
  cudaDevAttrIpcEventSupport: cudaConstants.CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED,
  cudaHostAllocPortable: cudaConstants.CU_MEMHOSTALLOC_PORTABLE,
  cudaHostAllocMapped: cudaConstants.CU_MEMHOSTALLOC_DEVICEMAP,
  cudaHostRegisterPortable: cudaConstants.CU_MEMHOSTREGISTER_PORTABLE,
  cudaHostRegisterMapped: cudaConstants.CU_MEMHOSTREGISTER_DEVICEMAP,
  cudaStreamNonBlocking: cudaConstants.CU_STREAM_NON_BLOCKING,
  cudaEventBlockingSync: cudaConstants.CU_EVENT_BLOCKING_SYNC,
  cudaEventDisableTiming: cudaConstants.CU_EVENT_DISABLE_TIMING,
  cudaEventInterprocess: cudaConstants.CU_EVENT_INTERPROCESS,
  cudaIpcMemLazyEnablePeerAccess: cudaConstants.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS,
  cudaMemcpyDefault: memcpyDefault,
  cudaMemcpySrcAccessOrderStream: srcAccessOrderStream,
  cudaErrorInsufficientDriver: driverInsufficient,
  cudaErrorMemoryAllocation: errorCodes.CUDA_ERROR_OUT_OF_MEMORY,
  cudaErrorStubLibrary: errorCodes.CUDA_ERROR_STUB_LIBRARY,
  cudaErrorCallRequiresNewerDriver: errorCodes.CUDA_ERROR_CALL_REQUIRES_NEWER_DRIVER,
  cudaErrorDevicesUnavailable: errorCodes.CUDA_ERROR_DEVICE_UNAVAILABLE,
  cudaErrorNoDevice: errorCodes.CUDA_ERROR_NO_DEVICE,
  cudaErrorDeviceUninitialized: errorCodes.CUDA_ERROR_INVALID_CONTEXT,
  cudaErrorNotReady: errorCodes.CUDA_ERROR_NOT_READY,
  cudaErrorPeerAccessAlreadyEnabled: errorCodes.CUDA_ERROR_PEER_ACCESS_ALREADY_ENABLED,
  cudaErrorNotSupported: errorCodes.CUDA_ERROR_NOT_SUPPORTED,
  cudaErrorECCUncorrectable: deadContextCodes.CUDA_ERROR_ECC_UNCORRECTABLE,
  cudaErrorNvlinkUncorrectable: deadContextCodes.CUDA_ERROR_NVLINK_UNCORRECTABLE,
  cudaErrorContained: deadContextCodes.CUDA_ERROR_CONTAINED,
  cudaErrorIllegalAddress: deadContextCodes.CUDA_ERROR_ILLEGAL_ADDRESS,
  cudaErrorLaunchTimeout: deadContextCodes.CUDA_ERROR_LAUNCH_TIMEOUT,
  cudaErrorContextIsDestroyed: deadContextCodes.CUDA_ERROR_CONTEXT_IS_DESTROYED,
  cudaErrorAssert: deadContextCodes.CUDA_ERROR_ASSERT,
  cudaErrorHardwareStackError: deadContextCodes.CUDA_ERROR_HARDWARE_STACK_ERROR,
  cudaErrorIllegalInstruction: deadContextCodes.CUDA_ERROR_ILLEGAL_INSTRUCTION,
  cudaErrorMisalignedAddress: deadContextCodes.CUDA_ERROR_MISALIGNED_ADDRESS,
  cudaErrorInvalidAddressSpace: deadContextCodes.CUDA_ERROR_INVALID_ADDRESS_SPACE,
  cudaErrorInvalidPc: deadContextCodes.CUDA_ERROR_INVALID_PC,
  cudaErrorLaunchFailure: deadContextCodes.CUDA_ERROR_LAUNCH_FAILED,
  cudaErrorTensorMemoryLeak: deadContextCodes.CUDA_ERROR_TENSOR_MEMORY_LEAK,
};

const cudart: Abi = {
  functions: signatures(cudartSymbols),
  structs: {
    cudaMemcpyAttributes: copyAttributes,
    cudaIpcMemHandle_t: { size: ipcHandleBytes, fields: {} },
    cudaIpcEventHandle_t: { size: ipcHandleBytes, fields: {} },
  },
  constants: cudartConstants,
};

const nccl: Abi = {
  functions: signatures(ncclSymbols),
  structs: {
    ncclUniqueId: { size: uniqueIdBytes, fields: {} },
    // Its size grows: `configLayout` is its first part.
    ncclConfig_t: {
      fields: {
        size: configLayout.size,
        magic: configLayout.magic,
        version: configLayout.version,
        blocking: configLayout.blocking,
        cgaClusterSize: configLayout.cgaClusterSize,
        minCTAs: configLayout.minCtas,
        maxCTAs: configLayout.maxCtas,
        netName: configLayout.netName,
        splitShare: configLayout.splitShare,
      },
    },
  },
  constants: {
    ...ncclResults,
    ncclUint8,
    NCCL_API_MAGIC: configMagic,
    NCCL_CONFIG_UNDEF_INT: configUnset,
    NCCL_UNIQUE_ID_BYTES: uniqueIdBytes,
  },
};

const cublasLt: Abi = {
  functions: signatures(cublasLtSymbols),
  structs: {
    cublasLtMatmulHeuristicResult_t: {
      size: heuristicLayout.byteLength,
      fields: {
        algo: 0,
        workspaceSize: heuristicLayout.workspaceSize,
        state: heuristicLayout.state,
      },
    },
  },
  constants: cublasConstants,
};

const mask = "field_mask";
const ucpAbi: Abi = {
  functions: signatures(ucpSymbols),
  structs: {
    ucp_params_t: {
      fields: { [mask]: ucp.contextParams.fieldMask, features: ucp.contextParams.features },
    },
    ucp_worker_params_t: {
      fields: { [mask]: ucp.workerParams.fieldMask, thread_mode: ucp.workerParams.threadMode },
    },
    ucp_ep_params_t: {
      fields: {
        [mask]: ucp.endpointParams.fieldMask,
        address: ucp.endpointParams.address,
        err_mode: ucp.endpointParams.errorMode,
        "err_handler.cb": ucp.endpointParams.errorHandler,
        "err_handler.arg": ucp.endpointParams.errorHandlerArg,
      },
    },
    ucp_mem_map_params_t: {
      fields: {
        [mask]: ucp.memoryParams.fieldMask,
        address: ucp.memoryParams.address,
        length: ucp.memoryParams.length,
        flags: ucp.memoryParams.flags,
        memory_type: ucp.memoryParams.memoryType,
      },
    },
    ucp_mem_attr_t: {
      fields: {
        [mask]: ucp.memoryAttributes.fieldMask,
        address: ucp.memoryAttributes.address,
        length: ucp.memoryAttributes.length,
      },
    },
    ucp_context_attr_t: {
      fields: {
        [mask]: ucp.contextAttributes.fieldMask,
        memory_types: ucp.contextAttributes.memoryTypes,
      },
    },
    ucp_request_param_t: {
      fields: {
        op_attr_mask: ucp.requestParam.fieldMask,
        flags: ucp.requestParam.flags,
        memory_type: ucp.requestParam.memoryType,
        memh: ucp.requestParam.memory,
      },
    },
  },
  constants: ucp.ucpConstants,
};

export const expectedAbis: Readonly<Record<LibraryKey, Abi>> = {
  cuda,
  cudart,
  nccl,
  cublasLt,
  ucp: ucpAbi,
};

/**
 * What one version of a library is expected to have. The name `cudaMemcpyBatchAsync` has another
 * signature from CUDA 13 on: the first one in `cudartSymbols` is the newer one.
 */
export function expectedAbi(key: LibraryKey, version: string): Abi {
  const abi = expectedAbis[key];
  if (key !== "cudart" || !version.startsWith("12.")) return abi;
  const [, old] = functionsOf(cudartSymbols).cudaMemcpyBatchAsync;
  const functions = { ...abi.functions, cudaMemcpyBatchAsync: signatureText(old) };
  return { ...abi, functions };
}

function signatures(...tables: Deno.ForeignLibraryInterface[]): Record<string, string> {
  const entries = Object.entries(functionsOf(...tables));
  return Object.fromEntries(entries.map(([name, [first]]) => [name, signatureText(first)]));
}
