import { StoreAwayError } from "./lease_store.ts";

/**
 * The result of a call, unless it takes too long. The call may go on then; its end is of no interest.
 * @throws {StoreAwayError} no result in time
 */
export async function within<T>(call: Promise<T>, timeoutMs: number, what: string): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const limit = new Promise<never>((_, reject) => {
    const late = () => reject(new StoreAwayError(`${what}: no answer in ${timeoutMs} ms`));
    timer = setTimeout(late, timeoutMs);
  });
  call.catch(() => {});
  try {
    return await Promise.race([call, limit]);
  } finally {
    clearTimeout(timer);
  }
}
