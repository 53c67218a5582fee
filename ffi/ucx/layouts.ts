/**
 * Structs of ucp.h. UCX reads only the fields of the mask, so that buffers larger than every version's
 * struct serve all versions.
 */

/** `ucp_params_t`. */
export const contextParams = { fieldMask: 0, features: 8 } as const;
/** `ucp_worker_params_t`. */
export const workerParams = { fieldMask: 0, threadMode: 8 } as const;
/** `ucp_ep_params_t`. */
export const endpointParams = {
  fieldMask: 0,
  address: 8,
  errorMode: 16,
  errorHandler: 24,
  errorHandlerArg: 32,
} as const;
/** `ucp_mem_map_params_t`. */
export const memoryParams = {
  fieldMask: 0,
  address: 8,
  length: 16,
  flags: 24,
  memoryType: 32,
} as const;
/** `ucp_mem_attr_t`. */
export const memoryAttributes = { fieldMask: 0, address: 8, length: 16 } as const;
/** `ucp_context_attr_t`. */
export const contextAttributes = { fieldMask: 0, memoryTypes: 24 } as const;
/** `ucp_request_param_t`. */
export const requestParam = { fieldMask: 0, flags: 4, memoryType: 48, memory: 64 } as const;

/** Bits of field masks, flags and enumerations, by their names in C. */
export const ucpConstants = {
  UCP_PARAM_FIELD_FEATURES: 0x1,
  UCP_FEATURE_RMA: 0x2,
  UCP_FEATURE_WAKEUP: 0x10,
  UCP_ATTR_FIELD_MEMORY_TYPES: 0x4,
  UCP_WORKER_PARAM_FIELD_THREAD_MODE: 0x1,
  UCS_THREAD_MODE_SINGLE: 0,
  UCP_EP_PARAM_FIELD_REMOTE_ADDRESS: 0x1,
  UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE: 0x2,
  UCP_EP_PARAM_FIELD_ERR_HANDLER: 0x4,
  UCP_ERR_HANDLING_MODE_NONE: 0,
  UCP_ERR_HANDLING_MODE_PEER: 1,
  UCP_MEM_MAP_PARAM_FIELD_ADDRESS: 0x1,
  UCP_MEM_MAP_PARAM_FIELD_LENGTH: 0x2,
  UCP_MEM_MAP_PARAM_FIELD_FLAGS: 0x4,
  UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE: 0x10,
  UCP_MEM_MAP_ALLOCATE: 0x2,
  UCP_MEM_ATTR_FIELD_ADDRESS: 0x1,
  UCP_MEM_ATTR_FIELD_LENGTH: 0x2,
  UCP_OP_ATTR_FIELD_FLAGS: 0x10,
  UCP_OP_ATTR_FIELD_MEMORY_TYPE: 0x40,
  UCP_OP_ATTR_FIELD_MEMH: 0x100,
  UCP_EP_CLOSE_FLAG_FORCE: 0x1,
  UCS_MEMORY_TYPE_HOST: 0,
  UCS_MEMORY_TYPE_CUDA: 1,
  UCS_OK: 0,
  UCS_INPROGRESS: 1,
  UCS_ERR_BUSY: -15,
  UCS_ERR_LAST: -100,
} as const;

/** A zeroed buffer for any of the structs, filled by `fill`. */
export function struct(fill: (view: DataView<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  // The largest one, ucp_worker_params_t, has 200 bytes in UCX 1.22.
  const view = new DataView(new ArrayBuffer(256));
  fill(view);
  return new Uint8Array(view.buffer);
}
