import type { Finish, RequestOutput } from "../../core/protocol/generate.ts";
import type { StepOutput } from "../../executor/executor.ts";
import type { Sequence } from "./sequence.ts";

/** Outputs, in their order, and the API server they are for. */
export interface AddressedOutputs {
  readonly frontendId: string;
  readonly outputs: RequestOutput[];
}

/** An output while it is put together. */
type Writable<T> = { -readonly [K in keyof T]: T[K] };

/** What an engine has to say to API servers, until it is taken. */
export class PendingOutputs {
  /** One entry for each API server that has any; there are few. */
  #outputs: AddressedOutputs[] = [];

  get isEmpty(): boolean {
    return this.#outputs.length === 0;
  }

  take(): readonly AddressedOutputs[] {
    const outputs = this.#outputs;
    if (outputs.length > 0) this.#outputs = [];
    return outputs;
  }

  /** The newest token of a sequence, which a row of a step's result is about. */
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
    // A prompt that is computed again after a preemption has been reported.
    const promptLogprobs = index === 0 ? result.promptLogprobs?.[row] : null;
    if (promptLogprobs) output.promptLogprobs = promptLogprobs;
    if (finish) output.finish = finish;
    if (sequence.wantsTimestamps) {
      output.timing = { stepMs: result.latencyMs, steppedMs: nowMs };
    }
  }

  /** That it ends; or that this instance owns it. */
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
