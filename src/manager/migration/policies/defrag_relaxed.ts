import type { PairMigrationPolicy } from "../pair_migration.ts";

/** Any instance gives, so that migration begins before one is overloaded. */
export const defragRelaxed: PairMigrationPolicy = {
  isSource: () => true,
  keeps: () => true,
};
