import type { Clock } from "../../core/clock.ts";
import type { SequenceStart, StepInput, StepOutput } from "../../executor/executor.ts";
import { SimExecutor } from "../../executor/sim/sim_executor.ts";
import type { Simulation } from "../../executor/sim/simulation.ts";

/** Is told when requests are preempted and when they are back where they were. */
export interface PreemptionObserver {
  /** The request ran, but is not in the step that begins now. It may not have lost its blocks. */
  missed(request: number, nowMs: number): void;
  /** The request is in a step again, and had kept its blocks. */
  returned(request: number): void;
  /** The request's blocks are recomputed, or copied back, when the step ends. */
  restored(request: number, endMs: number): void;
}

export interface ClockedExecutorArgs {
  readonly simulation: Simulation;
  readonly clock: Clock;
  readonly observer: PreemptionObserver;
  readonly onStep: () => void;
}

interface Running {
  /** Number of the request: the seed of its parameters. */
  readonly request: number;
  readonly promptTokens: number;
  hasStarted: boolean;
  hasMissed: boolean;
  lastStepId: number;
}

/**
 * A simulated executor on a virtual clock. It recognises preempted sequences by the steps: they are
 * missing from a decode step and come back with a prompt to compute. A sequence that is preempted for
 * a prompt of high priority is noticed only after that prompt has been computed.
 */
export class ClockedExecutor extends SimExecutor {
  readonly #args: ClockedExecutorArgs;
  /** By handle. */
  readonly #sequences: (Running | undefined)[] = [];
  /** How many sequences the next decode step should have. */
  #numRunning = 0;
  /** Output of the step that runs. */
  #output!: StepOutput;
  #done!: (output: StepOutput) => void;

  constructor(args: ClockedExecutorArgs) {
    super({ simulation: args.simulation, speedup: 1, wait: () => Promise.resolve() });
    this.#args = args;
  }

  startStep(input: StepInput, done: (output: StepOutput) => void): void {
    const { clock, onStep } = this.#args;
    const output = this.#output = this.compute(input);
    this.#done = done;
    this.#observe(input, output.latencyMs);
    onStep();
    clock.after(output.latencyMs, this.#endStep);
  }

  readonly #endStep = () => this.#done(this.#output);

  #observe(input: StepInput, latencyMs: number): void {
    const { removed, added, kind, handles } = input;
    for (const handle of removed) this.#forget(handle);
    for (const start of added) this.#remember(start);
    if (kind === "prefill") this.#observePrefill(input, latencyMs);
    else if (added.length > 0 || handles.length !== this.#numRunning) {
      this.#observeDecode(input, latencyMs);
    }
  }

  #forget(handle: number): void {
    const sequence = this.#sequences[handle]!;
    if (sequence.hasStarted && !sequence.hasMissed) this.#numRunning--;
    this.#sequences[handle] = undefined;
  }

  #remember({ handle, params, promptTokenIds }: SequenceStart): void {
    this.#sequences[handle] = {
      request: params.seed,
      promptTokens: promptTokenIds.length,
      hasStarted: false,
      hasMissed: false,
      lastStepId: 0,
    };
  }

  #observePrefill({ handles, contextLens }: StepInput, latencyMs: number): void {
    const { observer, clock } = this.#args;
    for (let i = 0; i < handles.length; i++) {
      const sequence = this.#sequences[handles[i]]!;
      if (contextLens[i] > sequence.promptTokens) {
        // The sequence lost its blocks unnoticed: it ran alone, so that no decode step missed it.
        if (sequence.hasStarted && !sequence.hasMissed) {
          this.#numRunning--;
          observer.missed(sequence.request, clock.nowMs());
        }
        observer.restored(sequence.request, clock.nowMs() + latencyMs);
      }
      this.#start(sequence);
    }
  }

  #observeDecode({ handles, stepId, swapIn }: StepInput, latencyMs: number): void {
    const { observer, clock } = this.#args;
    for (const handle of handles) {
      const sequence = this.#sequences[handle]!;
      if (!sequence.hasStarted || sequence.hasMissed) {
        if (sequence.hasMissed && swapIn.length > 0) {
          observer.restored(sequence.request, clock.nowMs() + latencyMs);
        } else observer.returned(sequence.request);
        this.#start(sequence);
      }
      sequence.lastStepId = stepId;
    }
    for (const sequence of this.#sequences) {
      const isMissing = sequence?.hasStarted && !sequence.hasMissed &&
        sequence.lastStepId !== stepId;
      if (!isMissing) continue;
      sequence.hasMissed = true;
      this.#numRunning--;
      observer.missed(sequence.request, clock.nowMs());
    }
  }

  #start(sequence: Running): void {
    if (!sequence.hasStarted || sequence.hasMissed) this.#numRunning++;
    sequence.hasStarted = true;
    sequence.hasMissed = false;
  }
}
