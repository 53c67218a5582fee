import type { Clock } from "../../core/clock.ts";
import type { StepInput, StepOutput } from "../../executor/executor.ts";
import { PagedModel, type PagedModelShape } from "./paged_model.ts";

/** Marks poison requests: the value of their sampling seed. */
export const POISON_SEED = 2 ** 31;
/** A poison request crashes the instance that computes its token after this many others. */
const POISON_CONTEXT_TOKENS = 20;

/**
 * A {@linkcode PagedModel} whose steps take time. A step reads and writes all its blocks when it ends,
 * which the contract of executors allows. So the tokens show if anything touched the blocks before.
 */
export class TimedModel extends PagedModel {
  /** No step ends any more. */
  isHanging = false;
  readonly #poisonHandles = new Set<number>();

  /**
   * @param die called at the end of a step with a poison request. If it throws, the step fails; if it
   *   returns, the step never ends
   */
  constructor(
    shape: PagedModelShape,
    private readonly clock: Clock,
    private readonly stepMs: (input: StepInput) => number,
    private readonly die: () => void = () => {},
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
      if (this.isHanging) return;
      let output: StepOutput;
      try {
        if (this.#isPoison(input)) return this.die();
        output = { ...this.stepNow(input), latencyMs };
      } catch (error) {
        return failed(error);
      }
      done(output);
    });
  }

  #isPoison({ added, removed, handles, contextLens }: StepInput): boolean {
    for (const handle of removed) this.#poisonHandles.delete(handle);
    for (const { handle, params } of added) {
      if (params.seed === POISON_SEED) this.#poisonHandles.add(handle);
    }
    return this.#poisonHandles.size > 0 &&
      handles.some((handle, row) =>
        this.#poisonHandles.has(handle) && contextLens[row] >= POISON_CONTEXT_TOKENS
      );
  }
}
