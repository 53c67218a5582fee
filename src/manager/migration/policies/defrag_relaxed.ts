import type { PairMigrationPolicy } from "../policy.ts";

/** Any instance gives, so that migration begins before one is overloaded. */
export const defragRelaxed: PairMigrationPolicy = {
  isSource: () => true,
  keeps: () => true,
};
