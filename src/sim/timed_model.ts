import type { Clock } from "../core/clock.ts";
import type { StepInput, StepOutput } from "../executor/executor.ts";
import { PagedModel, type PagedModelShape } from "./paged_model.ts";

/**
 * A {@linkcode PagedModel} whose steps take time. A step reads and writes all its blocks as it ends,
 * which the contract of executors allows, so that whatever touches them before is noticed.
 */
export class TimedModel extends PagedModel {
  constructor(
    shape: PagedModelShape,
    private readonly clock: Clock,
    private readonly stepMs: (input: StepInput) => number,
  ) {
    super(shape);
  }

  override step(input: StepInput): Promise<StepOutput> {
    return new Promise((resolve, reject) => this.startStep(input, resolve, reject));
  }

  startStep(
    input: StepInput,
    done: (output: StepOutput) => void,
    failed: (error: unknown) => void,
  ): void {
    const latencyMs = this.stepMs(input);
    this.clock.after(latencyMs, () => {
      let output: StepOutput;
      try {
        output = { ...this.stepNow(input), latencyMs };
      } catch (error) {
        return failed(error);
      }
      done(output);
    });
  }
}
