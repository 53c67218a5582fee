import type { Finish, RequestOutput } from "../../core/protocol/generate.ts";
import type { StepOutput } from "../../executor/executor.ts";
import type { Sequence } from "./sequence.ts";

/** The outputs for one API server, in order. */
export interface AddressedOutputs {
  readonly frontendId: string;
  readonly outputs: RequestOutput[];
}

/** An output under construction. */
type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** Collects the outputs of an engine for its API servers until they are sent. */
export class PendingOutputs {
  /** One entry for each API server with outputs. A list, because API servers are few. */
  #outputs: AddressedOutputs[] = [];

  get isEmpty(): boolean {
    return this.#outputs.length === 0;
  }

  take(): readonly AddressedOutputs[] {
    const outputs = this.#outputs;
    if (outputs.length > 0) this.#outputs = [];
    return outputs;
  }

  /** Adds the newest token of a sequence, with the details in its row of the step's result. */
  pushToken(
    sequence: Sequence,
    result: StepOutput,
    row: number,
    nowMs: number,
    finish: Finish | null,
  ): void {
    const index = sequence.outputTokenIds.length - 1;
    const output = this.#push(sequence, index, [sequence.outputTokenIds[index]]);
    const logprobs = result.logprobs?.[row];
    if (logprobs) output.logprobs = [logprobs];
    // After a preemption the prompt is computed again, but it was reported before.
    const promptLogprobs = index === 0 ? result.promptLogprobs?.[row] : null;
    if (promptLogprobs) output.promptLogprobs = promptLogprobs;
    if (index === 0) output.prefillMs = Math.max(0, nowMs - (sequence.startedMs ?? nowMs));
    if (finish) output.finish = finish;
    if (sequence.wantsTimestamps) {
      output.timing = { stepMs: result.latencyMs, steppedMs: nowMs };
    }
  }

  /** Adds an output without tokens: the sequence ends or, without `finish`, is owned here. */
  pushWord(sequence: Sequence, finish?: Finish): void {
    const output = this.#push(sequence, sequence.outputTokenIds.length, []);
    if (finish) output.finish = finish;
  }

  #push(
    { frontendId, requestId, epoch }: Sequence,
    index: number,
    tokenIds: readonly number[],
  ): Writable<RequestOutput> {
    const output: Writable<RequestOutput> = { requestId, index, tokenIds };
    if (epoch !== 0) output.epoch = epoch;
    this.#outputsFor(frontendId).push(output);
    return output;
  }

  #outputsFor(frontendId: string): RequestOutput[] {
    for (const one of this.#outputs) if (one.frontendId === frontendId) return one.outputs;
    const outputs: RequestOutput[] = [];
    this.#outputs.push({ frontendId, outputs });
    return outputs;
  }
}
