/**
 * Memory that the main thread and its engine worker share, through which plain steps and their
 * outputs go. It is there for what a step leaves in the caches, which is weights: the code behind a
 * message and its answer then takes 0.3 ms, the code behind this 0.08 ms (scripts/bench/engine.ts
 * shows both ends). Steps that announce sequences, and what does not fit, go as messages: the memory
 * then says only that one comes.
 */
import type { StepInput, StepOutput } from "./executor.ts";

/** Words of the control block. What a request or an answer says is written before its number grows. */
const requestNumber = 0, requestKind = 1, answerNumber = 2, answerKind = 3;
const isMessage = 0, isInMemory = 1;

const controlWords = 4;
/** Of the two float64 numbers. */
const numberBytes = 16;
const inputWords = 64 << 10;
const outputWords = 4 << 10;

/** Arrays of a step in their order; their lengths come first, after kind and maxBlocks. */
const arrays = [
  "swapOut",
  "swapIn",
  "handles",
  "tokenIds",
  "queryStarts",
  "contextLens",
  "blockTables",
] as const;
const inputHeaderWords = 2 + 1 + arrays.length;

/** Each of the two threads has an instance over the same buffer. One step at a time. */
export class StepMemory {
  readonly #control: Int32Array<SharedArrayBuffer>;
  /** Id of the step, and its latency in milliseconds. */
  readonly #numbers: Float64Array<SharedArrayBuffer>;
  readonly #input: Int32Array<SharedArrayBuffer>;
  readonly #output: Int32Array<SharedArrayBuffer>;
  #seenRequest = 0;
  #seenAnswer = 0;

  constructor(
    readonly buffer = new SharedArrayBuffer(
      numberBytes + 4 * (controlWords + inputWords + 1 + outputWords),
    ),
  ) {
    this.#numbers = new Float64Array(buffer, 0, numberBytes / 8);
    const words = new Int32Array(buffer, numberBytes);
    this.#control = words.subarray(0, controlWords);
    this.#input = words.subarray(controlWords, controlWords + inputWords);
    this.#output = words.subarray(controlWords + inputWords);
  }

  /** Main thread: gives the worker a step. False, and nothing has happened, when it does not fit. */
  requestStep(input: StepInput): boolean {
    if (input.added.length > 0) return false;
    const parts = [input.removed, ...arrays.map((name) => input[name])];
    const words = parts.reduce((sum, part) => sum + part.length, inputHeaderWords);
    if (words > inputWords) return false;
    this.#numbers[0] = input.stepId;
    this.#input[0] = input.kind === "decode" ? 0 : input.isPartial ? 2 : 1;
    this.#input[1] = input.maxBlocks;
    let at = inputHeaderWords;
    parts.forEach((part, i) => {
      this.#input[2 + i] = part.length;
      this.#input.set(part, at);
      at += part.length;
    });
    this.#seenAnswer = Atomics.load(this.#control, answerNumber);
    this.#announce(requestNumber, requestKind, isInMemory);
    return true;
  }

  /** Main thread: has the worker, which waits in {@linkcode nextStep}, take its next message. */
  requestByMessage(): void {
    this.#announce(requestNumber, requestKind, isMessage);
  }

  /** Main thread: the output of the step that was requested; null when it comes as a message. */
  async answer(): Promise<StepOutput | null> {
    const request = Atomics.load(this.#control, requestNumber);
    // Until the number has grown: the last step's `notify` may come this late, and wakes for nothing.
    for (;;) {
      const waiting = Atomics.waitAsync(this.#control, answerNumber, this.#seenAnswer);
      if (!waiting.async) break;
      await waiting.value;
    }
    // The message may have been faster, and the memory be in use for the next step by now.
    if (Atomics.load(this.#control, requestNumber) !== request) return null;
    if (Atomics.load(this.#control, answerKind) === isMessage) return null;
    const tokenIds = this.#output.slice(1, 1 + this.#output[0]);
    return { stepId: this.#numbers[0], tokenIds, latencyMs: this.#numbers[1] };
  }

  /**
   * Worker: waits, without its event loop, for a request: a step, whose arrays hold until it is
   * answered, or null, which stands for a message.
   */
  nextStep(): StepInput | null {
    while (Atomics.wait(this.#control, requestNumber, this.#seenRequest) === "ok");
    this.#seenRequest = Atomics.load(this.#control, requestNumber);
    if (Atomics.load(this.#control, requestKind) === isMessage) return null;
    const input = this.#input;
    let at = inputHeaderWords;
    const [removed, swapOut, swapIn, handles, tokenIds, queryStarts, contextLens, blockTables] =
      Array.from(input.subarray(2, inputHeaderWords), (n) => input.subarray(at, at += n));
    return {
      stepId: this.#numbers[0],
      kind: input[0] ? "prefill" : "decode",
      isPartial: input[0] === 2,
      removed: Array.from(removed),
      added: [],
      swapOut,
      swapIn,
      handles,
      tokenIds,
      queryStarts,
      contextLens,
      blockTables,
      maxBlocks: input[1],
    };
  }

  /** Worker: answers the step. False when the output has to follow as a message. */
  answerStep({ tokenIds, logprobs, promptLogprobs, failures, latencyMs }: StepOutput): boolean {
    const fits = !logprobs && !promptLogprobs && !failures && tokenIds.length <= outputWords;
    if (fits) {
      this.#numbers[1] = latencyMs;
      this.#output[0] = tokenIds.length;
      this.#output.set(tokenIds, 1);
    }
    this.#announce(answerNumber, answerKind, fits ? isInMemory : isMessage);
    return fits;
  }

  #announce(number: number, kind: number, value: number): void {
    Atomics.store(this.#control, kind, value);
    Atomics.add(this.#control, number, 1);
    Atomics.notify(this.#control, number);
  }
}
