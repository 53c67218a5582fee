/**
 * Prefill-decode disaggregation (src/manager/README.md, "Prefill and decode instances"): which type an
 * instance gets, and how long a request stays on the instance that it is dispatched to.
 */
import type { InstanceType } from "../../core/protocol/instance_info.ts";

/** One step: it computes the prompt and the first output token. */
const PREFILL_STEPS = 1;

/**
 * The type of a new instance: prefill while there are fewer than `numPrefill` prefill instances, else
 * decode. So the first instances are prefill instances, a replacement has the type of the instance that
 * it replaces, and additional instances are decode instances.
 * @param types of the instances that serve or start, without those being removed
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
 * Engine steps after which a request should move away from an instance of this type. Undefined if the
 * request stays: on instances that decode, and everywhere while there is no decode instance.
 */
export function expectedStepsOn(type: InstanceType, hasDecode: boolean): number | undefined {
  return type === "prefill" && hasDecode ? PREFILL_STEPS : undefined;
}

/**
 * The error in a number of prefill instances, as a message; null if there is none.
 * @param numPrefill `--num-dispatch-instances`
 * @param numInstances instances that are started
 * @param instancesOption the option that says how many, by its name on the command line
 */
export function disaggregationProblem(
  numPrefill: number | null,
  numInstances: number,
  instancesOption: string,
): string | null {
  if (numInstances < 2) {
    return `--enable-pd-disagg needs at least two instances, one for prefill and one for decode, but ` +
      `${instancesOption} is ${numInstances}`;
  }
  if (numPrefill === null) {
    return "--enable-pd-disagg needs --num-dispatch-instances N: the number of prefill instances, " +
      `of ${numInstances} in all`;
  }
  if (numPrefill < numInstances) return null;
  return `--num-dispatch-instances ${numPrefill}: with --enable-pd-disagg this is the number of prefill ` +
    `instances, and it leaves none of ${numInstances} (${instancesOption}) for decode; set it to at most ` +
    `${numInstances - 1}`;
}
