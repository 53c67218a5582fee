import type { InstanceId } from "../../../core/protocol/generate.ts";
import { type KvLayout, layoutDifference } from "../../layout.ts";

/** What an instance is, as far as its peers must be the same. */
export interface Identity {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
}

/** First frame of a connection, from the end that opens it. */
export interface Hello {
  /** Secret of the group: whoever knows it was told by the manager. */
  readonly group: string;
  readonly generation: number;
  readonly rank: number;
  readonly from: Identity;
  readonly to: InstanceId;
}

/** Null where a peer sent something else. */
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
 * Why a connection is refused, naming what both ends have; null when it is welcome. Whether the group
 * is the right one is not asked here.
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
