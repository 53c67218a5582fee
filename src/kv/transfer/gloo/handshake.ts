import type { InstanceId } from "../../../core/protocol/generate.ts";
import { type KvLayout, layoutDifference } from "../../layout.ts";

/** What two instances must have in common, besides their names, to exchange blocks. */
export interface Identity {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
}

/** First frame of a connection, from the end that opens it. */
export interface Hello {
  /** Secret of the group: the manager gives it to members only. */
  readonly group: string;
  readonly generation: number;
  readonly rank: number;
  readonly from: Identity;
  readonly to: InstanceId;
}

/** Null if the frame has another form. */
export function readHello(data: unknown): Hello | null {
  const { group, generation, rank, to, from } = (data ?? {}) as Partial<Hello>;
  const { instanceId, model, layout } = (from ?? {}) as Partial<Identity>;
  const areStrings = [group, to, instanceId, model].every((one) => typeof one === "string");
  const areNumbers = Number.isSafeInteger(generation) && Number.isSafeInteger(rank);
  return areStrings && areNumbers && isLayout(layout) ? data as Hello : null;
}

/** As far as it can be compared with another. */
function isLayout(data: unknown): boolean {
  return typeof data === "object" && data !== null &&
    Object.values(data).every((value) => typeof value === "string" || typeof value === "number");
}

/**
 * Why a connection is refused, with what both ends have; null if it is welcome. The caller checks the
 * group.
 */
export function refusalOf({ from, to }: Hello, own: Identity): string | null {
  if (to !== own.instanceId) return `${own.instanceId} listens where ${to} was expected`;
  if (from.model !== own.model) {
    return `${own.instanceId} serves ${own.model}, and ${from.instanceId} serves ${from.model}`;
  }
  const difference = layoutDifference(
    own.layout,
    from.layout,
    `at ${own.instanceId}`,
    `at ${from.instanceId}`,
  );
  return difference === null ? null : `KV caches differ: ${difference}`;
}
