/**
 * The control channel of an NCCL pair over the bus. The source calls; the destination, which knows no
 * address of the source, answers. `tell` carries a message of the source. `hear` asks for the
 * destination's messages, and waits for one; its answer, empty after a second, is the heartbeat.
 */
import { RequestError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";

/** The destination answers a `hear` after so long at most. */
export const HEAR_MS = 1_000;
/** An end gives up its transfer if the other end has been silent for so long. */
export const SILENCE_MS = 3_000;

/** The process that calls. */
export interface Caller {
  readonly instanceId: InstanceId;
  /** Random: tells apart two processes of one instance id. */
  readonly boot: string;
  /** The device, by its place among those that blocks are divided among; absent: they are on one. */
  readonly shard?: number;
}

/** What `send` tells of the runs. */
export interface TransferNote {
  readonly migrationId: string;
  /** Of each run: its first block at the destination, and how many follow each other. */
  readonly runs: readonly (readonly [block: number, numBlocks: number])[];
}

/** @throws {RequestError} */
export function parseCaller(data: unknown): Caller {
  const { instanceId, boot } = (data ?? {}) as Partial<Caller>;
  if (typeof instanceId === "string" && typeof boot === "string") return { instanceId, boot };
  throw new RequestError("a call of an NCCL pair names its instance and boot");
}

/**
 * The device that a call is for.
 * @throws {RequestError} it is none of `numShards`
 */
export function parseShard(data: unknown, numShards: number): number {
  const { shard } = (data ?? {}) as Partial<Caller>;
  if (Number.isInteger(shard) && shard! >= 0 && shard! < numShards) return shard!;
  throw new RequestError(`a call of an NCCL pair names one of ${numShards} devices, not ${shard}`);
}

/** @throws {RequestError} */
export function parseNote(data: unknown): TransferNote {
  const { migrationId, runs } = (data ?? {}) as Partial<TransferNote>;
  const isCount = (value: unknown) => Number.isSafeInteger(value) && (value as number) >= 0;
  const areRuns = Array.isArray(runs) &&
    runs.every((run) => Array.isArray(run) && run.length === 2 && run.every(isCount) && run[1] > 0);
  if (typeof migrationId === "string" && areRuns) return { migrationId, runs };
  throw new RequestError("an NCCL transfer names its migration and its runs of blocks");
}
