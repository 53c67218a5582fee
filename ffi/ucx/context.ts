import { bytesAt } from "../memory.ts";
import type { UcxCalls } from "./calls.ts";
import { devicesOf, type TransportDevice } from "./info.ts";
import {
  contextAttributes,
  memoryAttributes,
  memoryParams,
  requestParam,
  struct,
  ucpConstants as ucp,
  workerParams,
} from "./layouts.ts";
import { printed } from "./printed.ts";
import type { MemoryType } from "./ucx.ts";
import { UcxWorker } from "./worker.ts";

const typeCodes = { host: ucp.UCS_MEMORY_TYPE_HOST, cuda: ucp.UCS_MEMORY_TYPE_CUDA } as const;

/** A context of UCX. Close its workers, then unmap its memory, then close it. */
export class UcxContext {
  readonly #calls: UcxCalls;
  readonly #handle: bigint;

  /** @ignore Made by `Ucx.createContext`. */
  constructor(calls: UcxCalls, handle: bigint) {
    this.#calls = calls;
    this.#handle = handle;
  }

  /** Memory that this library can transfer directly. Without "cuda", device pools go through the host. */
  memoryTypes(): MemoryType[] {
    const attributes = struct((view) => {
      view.setBigUint64(0, BigInt(ucp.UCP_ATTR_FIELD_MEMORY_TYPES), true);
    });
    const code = this.#calls.symbols.ucp_context_query(this.#handle, attributes);
    this.#calls.check("ucp_context_query", code);
    const mask = new DataView(attributes.buffer).getBigUint64(contextAttributes.memoryTypes, true);
    const types = Object.keys(typeCodes) as MemoryType[];
    return types.filter((type) => (mask >> BigInt(typeCodes[type]) & 1n) === 1n);
  }

  /** UCX's own description of the context. */
  info(): string {
    return printed((stream) => this.#calls.symbols.ucp_context_print_info(this.#handle, stream));
  }

  /** What the context can send by: "tcp" over "eth0", "cuda_ipc" over "cuda". */
  devices(): TransportDevice[] {
    return devicesOf(this.info());
  }

  /** Makes memory that is there already reachable for other processes. */
  map(address: bigint, byteLength: number, type: MemoryType = "host"): UcxMemory {
    return this.#map(type, (view) => {
      const mask = ucp.UCP_MEM_MAP_PARAM_FIELD_ADDRESS | ucp.UCP_MEM_MAP_PARAM_FIELD_LENGTH |
        ucp.UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE;
      view.setBigUint64(memoryParams.fieldMask, BigInt(mask), true);
      view.setBigUint64(memoryParams.address, address, true);
      view.setBigUint64(memoryParams.length, BigInt(byteLength), true);
      view.setUint32(memoryParams.memoryType, typeCodes[type], true);
    });
  }

  /**
   * Allocates host memory that other processes of the host can map, which they cannot with memory of
   * malloc: the way to shared memory's speed.
   */
  allocate(byteLength: number): UcxMemory {
    return this.#map("host", (view) => {
      const mask = ucp.UCP_MEM_MAP_PARAM_FIELD_ADDRESS | ucp.UCP_MEM_MAP_PARAM_FIELD_LENGTH |
        ucp.UCP_MEM_MAP_PARAM_FIELD_FLAGS;
      view.setBigUint64(memoryParams.fieldMask, BigInt(mask), true);
      view.setBigUint64(memoryParams.length, BigInt(byteLength), true);
      view.setUint32(memoryParams.flags, ucp.UCP_MEM_MAP_ALLOCATE, true);
    });
  }

  #map(type: MemoryType, fill: (view: DataView) => void): UcxMemory {
    const handle = new BigUint64Array(1);
    const code = this.#calls.symbols.ucp_mem_map(this.#handle, struct(fill), handle);
    this.#calls.check("ucp_mem_map", code);
    return new UcxMemory(this.#calls, this.#handle, handle[0], type);
  }

  createWorker(): UcxWorker {
    const params = struct((view) => {
      const mask = BigInt(ucp.UCP_WORKER_PARAM_FIELD_THREAD_MODE);
      view.setBigUint64(workerParams.fieldMask, mask, true);
      view.setUint32(workerParams.threadMode, ucp.UCS_THREAD_MODE_SINGLE, true);
    });
    const handle = new BigUint64Array(1);
    const code = this.#calls.symbols.ucp_worker_create(this.#handle, params, handle);
    this.#calls.check("ucp_worker_create", code);
    return new UcxWorker(this.#calls, handle[0]);
  }

  close(): void {
    this.#calls.symbols.ucp_cleanup(this.#handle);
  }
}

/** Memory that UCX knows. It is unmapped when no transfer uses it any more. */
export class UcxMemory {
  readonly #calls: UcxCalls;
  readonly #context: bigint;
  readonly #handle: bigint;
  readonly address: bigint;
  readonly byteLength: number;
  /** Parameter of puts and gets whose local side is here: UCX need not look it up. */
  readonly param: Uint8Array<ArrayBuffer>;

  /** @ignore Made by `UcxContext.map` and `allocate`. */
  constructor(calls: UcxCalls, context: bigint, handle: bigint, readonly type: MemoryType) {
    this.#calls = calls;
    this.#context = context;
    this.#handle = handle;
    const attributes = struct((view) => {
      const mask = ucp.UCP_MEM_ATTR_FIELD_ADDRESS | ucp.UCP_MEM_ATTR_FIELD_LENGTH;
      view.setBigUint64(memoryAttributes.fieldMask, BigInt(mask), true);
    });
    calls.check("ucp_mem_query", calls.symbols.ucp_mem_query(handle, attributes));
    const view = new DataView(attributes.buffer);
    this.address = view.getBigUint64(memoryAttributes.address, true);
    this.byteLength = Number(view.getBigUint64(memoryAttributes.length, true));
    this.param = struct((view) => {
      const mask = ucp.UCP_OP_ATTR_FIELD_MEMH | ucp.UCP_OP_ATTR_FIELD_MEMORY_TYPE;
      view.setUint32(requestParam.fieldMask, mask, true);
      view.setUint32(requestParam.memoryType, typeCodes[type], true);
      view.setBigUint64(requestParam.memory, handle, true);
    });
  }

  /** View of host memory. It must not be used after `unmap`. */
  bytes(): Uint8Array<ArrayBuffer> {
    if (this.type !== "host") throw new TypeError(`${this.type} memory has no view`);
    return bytesAt(this.address, this.byteLength);
  }

  /** What another process needs for `UcxEndpoint.unpackKey`: 10 to 300 bytes. */
  packKey(): Uint8Array<ArrayBuffer> {
    const { symbols } = this.#calls;
    const buffer = new BigUint64Array(1), length = new BigUint64Array(1);
    const code = symbols.ucp_rkey_pack(this.#context, this.#handle, buffer, length);
    this.#calls.check("ucp_rkey_pack", code);
    const key = bytesAt(buffer[0], Number(length[0])).slice();
    symbols.ucp_rkey_buffer_release(buffer[0]);
    return key;
  }

  unmap(): void {
    const code = this.#calls.symbols.ucp_mem_unmap(this.#context, this.#handle);
    this.#calls.check("ucp_mem_unmap", code);
  }
}
