/**
 * What two ends of a pair must do, with every fault of the software NCCL. They run over the real
 * module in `pair_test.ts`, and over mutants of it in `mutants.ts`.
 */
import { crossingScenarios } from "./scenarios_of_order.ts";
import { failureScenarios } from "./scenarios_of_failure.ts";
import { abortScenarios } from "./scenarios_of_abort.ts";
import { type AbortLimits, type Libraries, TwoEnds } from "./two_ends.ts";
import type { PairModule } from "./software_nccl.ts";

export interface Scenario {
  readonly name: string;
  readonly run: (ends: TwoEnds) => Promise<void>;
  readonly abortLimits?: AbortLimits;
}

export const scenarios: readonly Scenario[] = [
  ...crossingScenarios,
  ...failureScenarios,
  ...abortScenarios,
];

/** Runs one, and checks that nothing is left of it. */
export async function runScenario(
  { run, abortLimits }: Scenario,
  module: PairModule,
  libraries: Libraries,
): Promise<void> {
  libraries.faults.reset();
  const ends = new TwoEnds(module, libraries, abortLimits);
  await run(ends);
  await ends.close();
}
