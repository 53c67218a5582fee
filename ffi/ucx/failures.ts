/**
 * Failures of endpoints. UCX calls back from within `ucp_worker_progress`, on the thread that called it,
 * also if no operation of the endpoint goes on.
 */

/** `void handler(void *arg, ucp_ep_h endpoint, ucs_status_t status)`. */
const handler = { parameters: ["u64", "u64", "i8"], result: "void" } as const;

const failures = new Map<bigint, (status: number) => void>();
let callback: Deno.UnsafeCallback<typeof handler> | null = null;
let lastToken = 0n;

/** Address of the function that an endpoint is given as its handler, with a token as `arg`. */
export function failureHandler(): bigint {
  callback ??= new Deno.UnsafeCallback(
    handler,
    (token, _, status) => failures.get(token)?.(status),
  );
  return Deno.UnsafePointer.value(callback.pointer);
}

/** Calls `notice` once an endpoint with this token has failed. */
export function watchFailure(notice: (status: number) => void): bigint {
  failures.set(++lastToken, notice);
  return lastToken;
}

/** Forgets a token, after its endpoint is closed. */
export function forgetFailure(token: bigint): void {
  failures.delete(token);
}
