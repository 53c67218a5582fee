import { isOverloaded } from "./overloaded.ts";
import type { PairMigrationPolicy } from "../policy.ts";

/** Overloaded instances give without a balance condition, so that free blocks come together. */
export const defragConstrained: PairMigrationPolicy = {
  isSource: isOverloaded,
  keeps: () => true,
};
