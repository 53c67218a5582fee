import type { Clock } from "../../core/clock.ts";
import { UnavailableError } from "../../core/errors.ts";
import type { BlockTransfer } from "./backend.ts";

/** @throws {RangeError} blocks without a place to go to */
export function checkLists({ sourceBlocks, destinationBlocks }: BlockTransfer): void {
  if (sourceBlocks.length === destinationBlocks.length) return;
  throw new RangeError(`${sourceBlocks.length} blocks to ${destinationBlocks.length} places`);
}

/** @throws {UnavailableError} nothing more is to be sent */
export function checkStillWanted(
  { deadlineMs }: BlockTransfer,
  signal: AbortSignal,
  clock: Clock,
): void {
  if (signal.aborted) throw new UnavailableError("the transfer was aborted");
  if (clock.nowMs() > deadlineMs) throw new UnavailableError("the transfer's deadline has passed");
}
