/**
 * Prefill-decode disaggregation (behaviour page, section 6): which instance is for what, and how long
 * a request stays where it is dispatched to.
 */
import type { InstanceType } from "../../core/protocol/instance_info.ts";

/** The prompt, and with it the first output token. */
const PREFILL_STEPS = 1;

/**
 * The type of an instance that is to come: prefill while fewer than `numPrefill` are, else decode. So
 * the first ones are prefill instances, one that takes the place of another is what that was, and
 * those that are added decode.
 * @param types of the instances that are to stay
 * @param numPrefill `--num-dispatch-instances`; null without disaggregation
 */
export function newcomerType(
  types: Iterable<InstanceType>,
  numPrefill: number | null,
): InstanceType {
  if (numPrefill === null) return "both";
  let count = 0;
  for (const type of types) if (type === "prefill") count++;
  return count < numPrefill ? "prefill" : "decode";
}

/**
 * Engine steps after which a request is to leave an instance of this type; undefined where it stays:
 * an instance that decodes, and any while none is there that does.
 */
export function expectedStepsOn(type: InstanceType, hasDecode: boolean): number | undefined {
  return type === "prefill" && hasDecode ? PREFILL_STEPS : undefined;
}

/**
 * What is wrong with a number of prefill instances, as a message; null when nothing is.
 * @param numPrefill `--num-dispatch-instances`
 * @param numInstances at the beginning
 * @param instancesOption how the latter is written
 */
export function disaggregationProblem(
  numPrefill: number | null,
  numInstances: number,
  instancesOption: string,
): string | null {
  if (numInstances < 2) {
    return `--enable-pd-disagg needs two instances at least, one for prefill and one to decode, and ` +
      `${instancesOption} is ${numInstances}`;
  }
  if (numPrefill === null) {
    return "--enable-pd-disagg needs --num-dispatch-instances N: the number of prefill instances, " +
      `of ${numInstances} in all`;
  }
  if (numPrefill < numInstances) return null;
  return `--num-dispatch-instances ${numPrefill} is the number of prefill instances, and leaves none ` +
    `of ${numInstances} (${instancesOption}) to decode: with --enable-pd-disagg it is ` +
    `${numInstances - 1} at most`;
}
