/** Calls of libucp with their errors. */
import type { Library } from "../library.ts";
import { textAt } from "../memory.ts";
import { ucpConstants as ucp } from "./layouts.ts";
import type { ucpSymbols } from "./symbols.ts";

/** A failed call of UCX, or the failure that a request came to. */
export class UcxError extends Error {
  override readonly name = "UcxError";
  constructor(
    /** The function that returned the error. */
    readonly call: string,
    /** `ucs_status_t`, negative: -25 connection reset, -80 endpoint timeout. */
    readonly status: number,
    /** UCX's own text of the status. */
    readonly text: string,
  ) {
    super(`${call}: ${text} (${status})`);
  }
}

/** An operation that goes on; null once it is done. `UcxWorker.isDone` asks for it. */
export type UcxRequest = bigint | null;

export class UcxCalls {
  constructor(readonly symbols: Library<typeof ucpSymbols>["symbols"]) {}

  /** @throws {UcxError} if `status` is negative */
  check(call: string, status: number): void {
    if (status < ucp.UCS_OK) throw this.error(call, status);
  }

  error(call: string, status: number): UcxError {
    return new UcxError(call, status, textAt(this.symbols.ucs_status_string(status)));
  }

  /**
   * The request of a nonblocking call: null if it is done at once.
   * @param result `ucs_status_ptr_t`: 0, an error from -100 to -1, or a pointer
   * @throws {UcxError}
   */
  request(call: string, result: bigint): UcxRequest {
    if (result === 0n) return null;
    if (result < 0n && result >= BigInt(ucp.UCS_ERR_LAST)) throw this.error(call, Number(result));
    return BigInt.asUintN(64, result);
  }
}
