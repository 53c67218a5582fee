import { isOverloaded } from "./overloaded.ts";
import type { PairMigrationPolicy } from "../policy.ts";

/** Overloaded instances give whatever the balance, so that blocks come together. */
export const defragConstrained: PairMigrationPolicy = {
  isSource: isOverloaded,
  keeps: () => true,
};
