import { addressOf, bytesAt } from "../memory.ts";
import type { UcxCalls, UcxRequest } from "./calls.ts";
import { UcxEndpoint } from "./endpoint.ts";
import { failureHandler, forgetFailure, watchFailure } from "./failures.ts";
import { endpointParams, struct, ucpConstants as ucp } from "./layouts.ts";

export interface EndpointOptions {
  /**
   * "peer": operations fail, and `UcxEndpoint.failure` says so, soon after the peer's process has
   * died, but UCX does not use shared memory. "none", the default: operations with a dead peer may
   * never end, so that the caller needs another sign of death, such as a heartbeat.
   */
  readonly errors?: "none" | "peer";
}

/** The progress engine of a context. Nothing moves unless `progress` is called, on both sides. */
export class UcxWorker {
  readonly #calls: UcxCalls;
  readonly #handle: bigint;
  #eventDescriptor: number | null = null;

  /** @ignore Made by `UcxContext.createWorker`. */
  constructor(calls: UcxCalls, handle: bigint) {
    this.#calls = calls;
    this.#handle = handle;
  }

  /** What another process needs for `createEndpoint`: about 200 bytes. */
  address(): Uint8Array<ArrayBuffer> {
    const { symbols } = this.#calls;
    const address = new BigUint64Array(1), length = new BigUint64Array(1);
    const code = symbols.ucp_worker_get_address(this.#handle, address, length);
    this.#calls.check("ucp_worker_get_address", code);
    const copy = bytesAt(address[0], Number(length[0])).slice();
    symbols.ucp_worker_release_address(this.#handle, address[0]);
    return copy;
  }

  /** @returns true if something has moved: call again, there may be more */
  progress(): boolean {
    return this.#calls.symbols.ucp_worker_progress(this.#handle) !== 0;
  }

  /** Descriptor that becomes readable on an event after `arm`. It belongs to the worker. */
  eventDescriptor(): number {
    if (this.#eventDescriptor !== null) return this.#eventDescriptor;
    const descriptor = new Int32Array(1);
    const code = this.#calls.symbols.ucp_worker_get_efd(this.#handle, descriptor);
    this.#calls.check("ucp_worker_get_efd", code);
    return this.#eventDescriptor = descriptor[0];
  }

  /**
   * Makes the next event readable at the descriptor.
   * @returns false if there are events already: `progress` first, until it says false
   */
  arm(): boolean {
    const status = this.#calls.symbols.ucp_worker_arm(this.#handle);
    if (status === ucp.UCS_ERR_BUSY) return false;
    this.#calls.check("ucp_worker_arm", status);
    return true;
  }

  /** @param address of the other worker's `address()` */
  createEndpoint(
    address: Uint8Array<ArrayBuffer>,
    { errors = "none" }: EndpointOptions = {},
  ): UcxEndpoint {
    let failure: number | null = null;
    const token = errors === "peer" ? watchFailure((status) => failure ??= status) : null;
    const params = struct((view) => {
      let mask = ucp.UCP_EP_PARAM_FIELD_REMOTE_ADDRESS | ucp.UCP_EP_PARAM_FIELD_ERR_HANDLING_MODE;
      view.setBigUint64(endpointParams.address, addressOf(address), true);
      view.setInt32(endpointParams.errorMode, ucp.UCP_ERR_HANDLING_MODE_NONE, true);
      if (token !== null) {
        mask |= ucp.UCP_EP_PARAM_FIELD_ERR_HANDLER;
        view.setInt32(endpointParams.errorMode, ucp.UCP_ERR_HANDLING_MODE_PEER, true);
        view.setBigUint64(endpointParams.errorHandler, failureHandler(), true);
        view.setBigUint64(endpointParams.errorHandlerArg, token, true);
      }
      view.setBigUint64(endpointParams.fieldMask, BigInt(mask), true);
    });
    const handle = new BigUint64Array(1);
    const code = this.#calls.symbols.ucp_ep_create(this.#handle, params, handle);
    if (code !== ucp.UCS_OK && token !== null) forgetFailure(token);
    this.#calls.check("ucp_ep_create", code);
    return new UcxEndpoint(this.#calls, handle[0], token, () => failure);
  }

  /**
   * Asks for a request, and frees it once it is done: then it must not be asked for again.
   * @throws {UcxError} if it has failed; it is freed too
   */
  isDone(request: UcxRequest): boolean {
    if (request === null) return true;
    const { symbols } = this.#calls;
    const status = symbols.ucp_request_check_status(request);
    if (status === ucp.UCS_INPROGRESS) return false;
    symbols.ucp_request_free(request);
    this.#calls.check("request", status);
    return true;
  }

  /** Gives up a request. It still has to be asked for until it is done, or fails as cancelled. */
  cancel(request: bigint): void {
    this.#calls.symbols.ucp_request_cancel(this.#handle, request);
  }

  /** Ends the worker, after its endpoints. */
  close(): void {
    this.#calls.symbols.ucp_worker_destroy(this.#handle);
  }
}
