import type { LoadedCandidate, PairContext } from "../policy.ts";

/** An instance is overloaded if it has preempted requests, or more load than the threshold. */
export function isOverloaded(candidate: LoadedCandidate, { thresholdLoad }: PairContext): boolean {
  return candidate.killedRequests > 0 || candidate.load > thresholdLoad;
}
