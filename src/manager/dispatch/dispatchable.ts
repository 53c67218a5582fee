import type { InstanceType } from "../../core/messages.ts";

/** What decides whether an instance takes new requests. */
export interface Dispatchable {
  readonly instanceType: InstanceType;
  readonly isDraining: boolean;
}

/**
 * The instances that new requests may go to: the first `limit` that do not drain. Decode instances
 * come last, so that with prefill-decode disaggregation one takes the place of a prefill instance
 * only when too few are left; without a limit they take none while there are others.
 * @param instances in the order in which they came
 * @param limit `--num-dispatch-instances`; null for none
 */
export function dispatchableOf<T extends Dispatchable>(
  instances: readonly T[],
  limit: number | null,
): T[] {
  const available = instances.filter(({ isDraining }) => !isDraining);
  const first = available.filter(({ instanceType }) => instanceType !== "decode");
  const decode = available.filter(({ instanceType }) => instanceType === "decode");
  if (limit !== null) return [...first, ...decode].slice(0, limit);
  return first.length > 0 ? first : decode;
}
