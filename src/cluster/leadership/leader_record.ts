import * as z from "zod";
import { type Leadership, MAX_EPOCH } from "../../core/protocol/leadership.ts";
import { type StoreEntry, StoreRefusedError } from "../store/lease_store.ts";

/** Where the record of the leader is in the store. */
export const LEADER_KEY = "leader";

/** What the store says of the leader. */
export interface LeaderRecord extends Leadership {
  /** Empty: the leader has resigned, and the place is free. */
  readonly leader: string;
  /** Bus address at which the leader serves. */
  readonly address: string;
  /** After so long a silence others may take over. */
  readonly leaseMs: number;
  /** Grows each time the leader says that it is there. */
  readonly beat: number;
  /** Who takes over from a leader that has resigned; absent: any candidate. */
  readonly heir?: string;
}

/** Shortest and longest lease. Below, the time of a round trip is a large part; above, nobody waits. */
export const MIN_LEASE_MS = 200;
export const MAX_LEASE_MS = 600_000;

const name = z.string().max(256);
const schema: z.ZodType<LeaderRecord> = z.object({
  epoch: z.int().min(1).max(MAX_EPOCH),
  leader: name,
  address: z.string().max(1_024),
  leaseMs: z.number().min(MIN_LEASE_MS).max(MAX_LEASE_MS),
  beat: z.int().min(0),
  heir: name.optional(),
});

/** @throws {StoreRefusedError} something else is at the leader's place */
export function readLeaderRecord({ key, value }: Pick<StoreEntry, "key" | "value">): LeaderRecord {
  let data: unknown;
  try {
    data = JSON.parse(value);
  } catch {
    data = undefined;
  }
  const result = schema.safeParse(data);
  if (result.success) return result.data;
  throw new StoreRefusedError(
    `the lease store's entry "${key}" is not the record of a leader: another program or another version ` +
      "writes there. Give this cluster another name, or remove the entry",
  );
}

export function writeLeaderRecord(record: LeaderRecord): string {
  return JSON.stringify(record);
}
