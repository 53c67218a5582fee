import type { InstanceId } from "../../../core/protocol/generate.ts";
import { type ConnectionKeys, prove } from "./keys.ts";
import { type KvLayout, layoutDifference } from "../../layout.ts";

/** What two instances must have in common, besides their names, to exchange blocks. */
export interface Identity {
  readonly instanceId: InstanceId;
  readonly model: string;
  readonly layout: KvLayout;
}

/** What the end that opens a connection says in its first frame. */
export interface Hello {
  readonly generation: number;
  readonly rank: number;
  readonly from: Identity;
  readonly to: InstanceId;
  /** What follows the greeting is encrypted. */
  readonly isSealed: boolean;
}

/** Frame `hello`: the JSON of a {@linkcode Hello}, with the proof that a member of the group wrote it. */
export interface SignedHello {
  readonly statement: string;
  readonly proof: string;
}

/** Frame `welcome`: the proof that a member of the same group has read the hello. */
export interface Welcome {
  readonly proof: string;
}

export function signHello(hello: Hello, keys: ConnectionKeys): SignedHello {
  const statement = JSON.stringify(hello);
  return { statement, proof: prove(keys, "dialer", statement) };
}

/** Null if the frame has another form. Whether the proof is right is for the caller to check. */
export function readHello(data: unknown): { signed: SignedHello; hello: Hello } | null {
  const { statement, proof } = (data ?? {}) as Partial<SignedHello>;
  if (typeof statement !== "string" || typeof proof !== "string") return null;
  const hello = parse(statement);
  const { generation, rank, to, from, isSealed } = (hello ?? {}) as Partial<Hello>;
  const { instanceId, model, layout } = (from ?? {}) as Partial<Identity>;
  const areStrings = [to, instanceId, model].every((one) => typeof one === "string");
  const areNumbers = Number.isSafeInteger(generation) && Number.isSafeInteger(rank);
  const isHello = areStrings && areNumbers && typeof isSealed === "boolean" && isLayout(layout);
  return isHello ? { signed: { statement, proof }, hello: hello as Hello } : null;
}

function parse(json: string): unknown {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}

/** As far as it can be compared with another. */
function isLayout(data: unknown): boolean {
  return typeof data === "object" && data !== null &&
    Object.values(data).every((value) => typeof value === "string" || typeof value === "number");
}

/**
 * Why a connection is refused, with what both ends have; null if it is welcome. The caller checks the
 * group.
 * @param seals whether this end encrypts
 */
export function refusalOf(
  { from, to, isSealed }: Hello,
  own: Identity,
  seals: boolean,
): string | null {
  if (to !== own.instanceId) return `${own.instanceId} listens where ${to} was expected`;
  if (isSealed !== seals) {
    return `one of ${own.instanceId} and ${from.instanceId} encrypts and the other does not: give both ` +
      "the same --cluster-key-file, or both --cluster-insecure";
  }
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
