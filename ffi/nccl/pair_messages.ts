/**
 * Messages between the two ends of a pair, as JSON over the control channel. Each direction has a source
 * and a destination with messages of their own, so that one channel serves both directions.
 *
 * ```
 * source                                     destination
 *   prepare {epoch}                    -->     ends the previous epoch
 *                                      <--   ready {epoch}
 *   (makes the id) open {epoch, id}    -->     joins as rank 1
 *   offer {epoch, number, bytes, note} -->     looks up its runs
 *                                      <--   posting {epoch, number}, and posts
 *   (posts)                            ...     (bytes move)
 *                                      <--   done {epoch, number}
 *   close {epoch}                      -->     both finalize
 * ```
 * Either end reports a failure by `fail`, and both abort. The source sends `aborted` when its abort has
 * returned. An epoch lasts from a `prepare` to the next failure or close. Late messages of an epoch that
 * is over are ignored.
 */
import { uniqueIdBytes } from "./nccl.ts";

/** Runs of one transfer at most. */
export const MAX_RUNS = 65_536;
/** Characters of a reason that are kept. */
const MAX_REASON = 1_000;

export type SourceMessage =
  & { readonly from: "source"; readonly epoch: number }
  & (
    | { readonly kind: "prepare" | "aborted" }
    /** `id`: 128 bytes as hexadecimal digits. */
    | { readonly kind: "open"; readonly id: string; readonly leftMs: number }
    | {
      readonly kind: "offer";
      readonly number: number;
      /** Of each run, in order. */
      readonly bytes: readonly number[];
      /** What the destination's owner needs to find its runs. JSON. */
      readonly note: unknown;
      readonly leftMs: number;
    }
    | { readonly kind: "fail"; readonly reason: string }
    | { readonly kind: "close"; readonly leftMs: number }
  );

export type DestinationMessage =
  & { readonly from: "destination"; readonly epoch: number }
  & (
    | { readonly kind: "ready" }
    | { readonly kind: "posting" | "done"; readonly number: number }
    | { readonly kind: "refused"; readonly number: number; readonly reason: string }
    | { readonly kind: "fail"; readonly reason: string }
  );

export type PairMessage = SourceMessage | DestinationMessage;

/** The other end sent a message that no version of this file sends. */
export class PairMessageError extends Error {
  override readonly name = "PairMessageError";
}

/**
 * Checks a message of the other end.
 * @throws {PairMessageError}
 */
export function parseMessage(data: unknown): PairMessage {
  const message = (typeof data === "object" && data !== null ? data : {}) as Record<
    string,
    unknown
  >;
  const check = (isGood: boolean, field: string) => {
    if (isGood) return;
    const text = JSON.stringify(data)?.slice(0, 200);
    throw new PairMessageError(`not a message of an NCCL pair: ${field} of ${text}`);
  };
  const count = (field: string) => {
    const value = message[field];
    check(typeof value === "number" && Number.isSafeInteger(value) && value >= 0, field);
  };
  const { from, kind } = message;
  check(from === "source" || from === "destination", "from");
  count("epoch");
  const kinds = from === "source" ? sourceKinds : destinationKinds;
  check(typeof kind === "string" && Object.hasOwn(kinds, kind), "kind");
  for (const field of kinds[kind as string]) {
    const value = message[field];
    if (field === "number") count(field);
    else if (field === "leftMs") check(typeof value === "number" && value <= MAX_LEFT_MS, field);
    else if (field === "id") check(typeof value === "string" && idPattern.test(value), field);
    else if (field === "reason") check(typeof value === "string", field);
    else check(isByteList(value), field);
  }
  if (typeof message.reason === "string" && message.reason.length > MAX_REASON) {
    return { ...message, reason: message.reason.slice(0, MAX_REASON) } as PairMessage;
  }
  return message as PairMessage;
}

/** One day: no transfer takes longer. */
const MAX_LEFT_MS = 86_400_000;
const idPattern = new RegExp(`^[0-9a-f]{${2 * uniqueIdBytes}}$`);

type Field = "number" | "leftMs" | "id" | "reason" | "bytes";

const sourceKinds: Readonly<Record<string, readonly Field[]>> = {
  prepare: [],
  open: ["id", "leftMs"],
  offer: ["number", "bytes", "leftMs"],
  fail: ["reason"],
  aborted: [],
  close: ["leftMs"],
};

const destinationKinds: Readonly<Record<string, readonly Field[]>> = {
  ready: [],
  posting: ["number"],
  done: ["number"],
  refused: ["number", "reason"],
  fail: ["reason"],
};

function isByteList(value: unknown): boolean {
  return Array.isArray(value) && value.length >= 1 && value.length <= MAX_RUNS &&
    value.every((bytes) => Number.isSafeInteger(bytes) && bytes >= 1);
}
