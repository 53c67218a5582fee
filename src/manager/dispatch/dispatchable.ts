import type { InstanceType } from "../../core/protocol/instance_info.ts";

/** The properties of an instance that decide whether it takes new requests. */
export interface Dispatchable {
  readonly instanceType: InstanceType;
  readonly isDraining: boolean;
}

/**
 * The instances that new requests may go to: the first `limit` that do not drain. With
 * prefill-decode disaggregation the limit was applied when instances got their types; then these are
 * all prefill instances, or, while there is no prefill instance, the decode instances.
 * @param instances in the order in which they came
 * @param limit `--num-dispatch-instances`; null for none
 */
export function dispatchableOf<T extends Dispatchable>(
  instances: readonly T[],
  limit: number | null,
): T[] {
  const available = instances.filter(({ isDraining }) => !isDraining);
  if (available.every(({ instanceType }) => instanceType === "both")) {
    return available.slice(0, limit ?? undefined);
  }
  const first = available.filter(({ instanceType }) => instanceType !== "decode");
  return first.length > 0 ? first : available;
}
