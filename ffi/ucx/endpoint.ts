import type { UcxMemory } from "./context.ts";
import type { UcxCalls, UcxError, UcxRequest } from "./calls.ts";
import { forgetFailure } from "./failures.ts";
import { type Lane, lanesOf } from "./info.ts";
import { requestParam, struct, ucpConstants as ucp } from "./layouts.ts";
import { printed } from "./printed.ts";

const noParam = struct(() => {});
const forceClose = struct((view) => {
  view.setUint32(requestParam.fieldMask, ucp.UCP_OP_ATTR_FIELD_FLAGS, true);
  view.setUint32(requestParam.flags, ucp.UCP_EP_CLOSE_FLAG_FORCE, true);
});

/** The right to memory of the peer, of `UcxMemory.packKey`. */
export interface RemoteKey {
  readonly handle: bigint;
}

/** A connection to another worker. */
export class UcxEndpoint {
  readonly #calls: UcxCalls;
  readonly #handle: bigint;
  readonly #failureToken: bigint | null;
  readonly #failure: () => number | null;

  /** @ignore Made by `UcxWorker.createEndpoint`. */
  constructor(
    calls: UcxCalls,
    handle: bigint,
    failureToken: bigint | null,
    failure: () => number | null,
  ) {
    this.#calls = calls;
    this.#handle = handle;
    this.#failureToken = failureToken;
    this.#failure = failure;
  }

  /**
   * The error that the connection has come to, null while it is well: known for endpoints with
   * `errors: "peer"`, after `progress`. A failed endpoint is closed with `force`.
   */
  get failure(): UcxError | null {
    const status = this.#failure();
    return status === null ? null : this.#calls.error("endpoint", status);
  }

  /** @throws {UcxError} if no transport of this endpoint reaches the memory */
  unpackKey(packed: Uint8Array<ArrayBuffer>): RemoteKey {
    const handle = new BigUint64Array(1);
    const code = this.#calls.symbols.ucp_ep_rkey_unpack(this.#handle, packed, handle);
    this.#calls.check("ucp_ep_rkey_unpack", code);
    return { handle: handle[0] };
  }

  /** The key must not be in use. */
  destroyKey(key: RemoteKey): void {
    this.#calls.symbols.ucp_rkey_destroy(key.handle);
  }

  /**
   * Writes local memory into the peer's. "Done" means that the local memory is free again; `flush`
   * says that the peer has the bytes.
   * @param local an address within `memory`
   */
  put(
    memory: UcxMemory,
    local: bigint,
    byteLength: number,
    remote: bigint,
    key: RemoteKey,
  ): UcxRequest {
    const { ucp_put_nbx } = this.#calls.symbols;
    const length = BigInt(byteLength);
    const result = ucp_put_nbx(this.#handle, local, length, remote, key.handle, memory.param);
    return this.#calls.request("ucp_put_nbx", result);
  }

  /** Reads the peer's memory into local memory. */
  get(
    memory: UcxMemory,
    local: bigint,
    byteLength: number,
    remote: bigint,
    key: RemoteKey,
  ): UcxRequest {
    const { ucp_get_nbx } = this.#calls.symbols;
    const length = BigInt(byteLength);
    const result = ucp_get_nbx(this.#handle, local, length, remote, key.handle, memory.param);
    return this.#calls.request("ucp_get_nbx", result);
  }

  /** Done once all earlier operations are done at the peer. */
  flush(): UcxRequest {
    const result = this.#calls.symbols.ucp_ep_flush_nbx(this.#handle, noParam);
    return this.#calls.request("ucp_ep_flush_nbx", result);
  }

  /** UCX's own description of the endpoint. */
  info(): string {
    return printed((stream) => this.#calls.symbols.ucp_ep_print_info(this.#handle, stream));
  }

  /** The transports that the endpoint uses, and what for. */
  lanes(): Lane[] {
    return lanesOf(this.info());
  }

  /**
   * Begins the end of the connection.
   * @param force drops unfinished operations instead of flushing them; for a dead peer
   */
  close(force = false): UcxRequest {
    const param = force ? forceClose : noParam;
    if (this.#failureToken !== null) forgetFailure(this.#failureToken);
    return this.#calls.request(
      "ucp_ep_close_nbx",
      this.#calls.symbols.ucp_ep_close_nbx(this.#handle, param),
    );
  }
}
