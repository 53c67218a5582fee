import type { Clock } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { BlockTransfer } from "./backend.ts";

/** @throws {RangeError} the two lists of blocks differ in length */
export function checkLists({ sourceBlocks, destinationBlocks }: BlockTransfer): void {
  if (sourceBlocks.length === destinationBlocks.length) return;
  throw new RangeError(
    `a transfer from ${sourceBlocks.length} blocks to ${destinationBlocks.length} blocks`,
  );
}

/** @throws {UnavailableError} the transfer was aborted, or its deadline has passed */
export function checkStillWanted(
  { deadlineMs }: BlockTransfer,
  signal: AbortSignal,
  clock: Clock,
): void {
  if (signal.aborted) throw new UnavailableError("the transfer was aborted");
  if (clock.nowMs() > deadlineMs) throw new UnavailableError("the transfer's deadline has passed");
}

/** @throws {UnavailableError} `signal` was aborted before `promise` settled */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const abort = () => reject(new UnavailableError("the transfer was aborted"));
    signal.addEventListener("abort", abort);
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", abort));
  });
}
