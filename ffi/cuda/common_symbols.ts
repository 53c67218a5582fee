/** Functions and values that libcudart and libcuda have alike, under other names. */

/** `cudaIpcMemHandle_t` and its like, which C passes by value: 64 bytes. */
export const ipcHandle = {
  struct: ["u64", "u64", "u64", "u64", "u64", "u64", "u64", "u64"],
} as const;

/** Signatures, the same in both libraries: addresses, sizes and handles are u64. */
const signatures = {
  driverVersion: { parameters: ["buffer"], result: "i32" },
  deviceCount: { parameters: ["buffer"], result: "i32" },
  deviceAttribute: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  devicePciBusId: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  canAccessPeer: { parameters: ["buffer", "i32", "i32"], result: "i32" },
  memGetInfo: { parameters: ["buffer", "buffer"], result: "i32" },
  malloc: { parameters: ["buffer", "u64"], result: "i32" },
  free: { parameters: ["u64"], result: "i32" },
  hostAlloc: { parameters: ["buffer", "u64", "u32"], result: "i32" },
  hostFree: { parameters: ["u64"], result: "i32" },
  hostRegister: { parameters: ["u64", "u64", "u32"], result: "i32" },
  hostUnregister: { parameters: ["u64"], result: "i32" },
  hostDevicePointer: { parameters: ["buffer", "u64", "u32"], result: "i32" },
  priorityRange: { parameters: ["buffer", "buffer"], result: "i32" },
  streamCreate: { parameters: ["buffer", "u32", "i32"], result: "i32" },
  streamDestroy: { parameters: ["u64"], result: "i32" },
  streamQuery: { parameters: ["u64"], result: "i32" },
  streamSynchronize: { parameters: ["u64"], result: "i32" },
  streamWaitEvent: { parameters: ["u64", "u64", "u32"], result: "i32" },
  eventCreate: { parameters: ["buffer", "u32"], result: "i32" },
  eventDestroy: { parameters: ["u64"], result: "i32" },
  eventRecord: { parameters: ["u64", "u64"], result: "i32" },
  eventQuery: { parameters: ["u64"], result: "i32" },
  eventSynchronize: { parameters: ["u64"], result: "i32" },
  eventElapsed: { parameters: ["buffer", "u64", "u64"], result: "i32" },
  ipcGetMem: { parameters: ["buffer", "u64"], result: "i32" },
  ipcOpenMem: { parameters: ["buffer", ipcHandle, "u32"], result: "i32" },
  ipcCloseMem: { parameters: ["u64"], result: "i32" },
  ipcGetEvent: { parameters: ["buffer", "u64"], result: "i32" },
  ipcOpenEvent: { parameters: ["buffer", ipcHandle], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

type Signatures = typeof signatures;
/** A library's names of the functions. */
export type FunctionNames = { readonly [F in keyof Signatures]: string };
/** The common functions as a library has them. */
export type CommonSymbols = {
  readonly [F in keyof Signatures]: Signatures[F] & { readonly name: string };
};

/** The common functions under the names that a library has for them. */
export function commonSymbols(names: FunctionNames): CommonSymbols {
  const entries = Object.entries(signatures) as [keyof Signatures, object][];
  const named = entries.map(([key, signature]) => [key, { ...signature, name: names[key] }]);
  return Object.fromEntries(named) as CommonSymbols;
}

/** Batched copies: dsts*, srcs*, sizes*, count, attributes*, indices*, attributes' count, stream. */
export const batchSignature = {
  parameters: ["buffer", "buffer", "buffer", "u64", "buffer", "buffer", "u64", "u64"],
  result: "i32",
} as const;

/** As CUDA 12.8 and 12.9 have it: with the index of the failed copy before the stream. */
export const oldBatchSignature = {
  parameters: ["buffer", "buffer", "buffer", "u64", "buffer", "buffer", "u64", "buffer", "u64"],
  result: "i32",
} as const;

/** Values of cuda.h. driver_types.h of the runtime has the same under other names. */
export const cudaConstants = {
  CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: 16,
  CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE: 38,
  CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: 40,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: 75,
  CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR: 76,
  CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN: 97,
  CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED: 116,
  CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED: 125,
  CU_MEMHOSTALLOC_PORTABLE: 1,
  CU_MEMHOSTALLOC_DEVICEMAP: 2,
  CU_MEMHOSTREGISTER_PORTABLE: 1,
  CU_MEMHOSTREGISTER_DEVICEMAP: 2,
  CU_STREAM_NON_BLOCKING: 1,
  CU_EVENT_BLOCKING_SYNC: 1,
  CU_EVENT_DISABLE_TIMING: 2,
  CU_EVENT_INTERPROCESS: 4,
  CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS: 1,
} as const;
