/**
 * Memory that the main thread and its engine worker share, for handing over steps and their outputs. It
 * is faster than messages: a step leaves only weights in the processor's caches, and then the code behind
 * a message and its answer takes 0.3 ms, the code behind this memory 0.08 ms (`scripts/bench/engine.ts`).
 * Steps that announce sequences, and steps or outputs that do not fit, go as messages; the memory then
 * only announces the message.
 */
import type { StepInput, StepOutput } from "./executor.ts";

/** Words of the control block. A number grows only after the request or answer is complete. */
const requestNumber = 0, requestKind = 1, answerNumber = 2, answerKind = 3;
const isMessage = 0, isInMemory = 1;

/** What the worker does with a step: `step` of the executor, or a function of its pipeline. */
export const stepCalls = ["step", "start", "follow", "collect"] as const;
export type StepCall = (typeof stepCalls)[number];

/** A call with its input; `collect` has none. */
export interface StepRequest {
  readonly call: StepCall;
  readonly input: StepInput | null;
}

/** The input of calls that have none. */
const noStep: StepInput = {
  ...{ stepId: 0, kind: "decode", removed: [], added: [], maxBlocks: 0 },
  ...{ swapOut: new Int32Array(), swapIn: new Int32Array(), handles: new Int32Array() },
  ...{ tokenIds: new Int32Array(), queryStarts: new Int32Array(), contextLens: new Int32Array() },
  blockTables: new Int32Array(),
};

const controlWords = 4;
/** Size of the two float64 numbers at the start. */
const numberBytes = 16;
const inputWords = 64 << 10;
const outputWords = 4 << 10;

/** The arrays of a step in memory order. Their lengths precede them, after kind and maxBlocks. */
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
/** Kinds of steps: decode, prefill, a piece of one. */
const kinds = 3;

/** One end of the memory; each of the two threads has its own over the same buffer. One step at a time. */
export class StepMemory {
  readonly #control: Int32Array<SharedArrayBuffer>;
  /** The step's id, and its latency in milliseconds. */
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

  /** Main thread: gives the worker a step. Returns false, without effect, if the step does not fit. */
  requestStep(input: StepInput): boolean {
    return this.request({ call: "step", input });
  }

  /** The same for any call. */
  request({ call, input: given }: StepRequest): boolean {
    const input = given ?? noStep;
    if (input.added.length > 0) return false;
    const parts = [input.removed, ...arrays.map((name) => input[name])];
    const words = parts.reduce((sum, part) => sum + part.length, inputHeaderWords);
    if (words > inputWords) return false;
    this.#numbers[0] = input.stepId;
    const kind = input.kind === "decode" ? 0 : input.isPartial ? 2 : 1;
    this.#input[0] = kind + kinds * stepCalls.indexOf(call);
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

  /** Main thread: makes the worker, which waits in {@linkcode nextRequest}, read its next message. */
  requestByMessage(): void {
    this.#announce(requestNumber, requestKind, isMessage);
  }

  /** Main thread: the output of the requested step; null if it comes as a message. */
  async answer(): Promise<StepOutput | null> {
    const request = Atomics.load(this.#control, requestNumber);
    // Loops until the number has grown: a late `notify` of the last step may wake this too early.
    for (;;) {
      const waiting = Atomics.waitAsync(this.#control, answerNumber, this.#seenAnswer);
      if (!waiting.async) break;
      await waiting.value;
    }
    // A message may have overtaken this, and the memory may already hold the next request.
    if (Atomics.load(this.#control, requestNumber) !== request) return null;
    if (Atomics.load(this.#control, answerKind) === isMessage) return null;
    const tokenIds = this.#output.slice(1, 1 + this.#output[0]);
    return { stepId: this.#numbers[0], tokenIds, latencyMs: this.#numbers[1] };
  }

  /**
   * Worker: blocks until the next request.
   * @returns a request, whose arrays are valid until it is answered; null if it is a message
   */
  nextRequest(): StepRequest | null {
    while (Atomics.wait(this.#control, requestNumber, this.#seenRequest) === "ok");
    this.#seenRequest = Atomics.load(this.#control, requestNumber);
    if (Atomics.load(this.#control, requestKind) === isMessage) return null;
    const input = this.#input, kind = input[0] % kinds;
    const call = stepCalls[Math.floor(input[0] / kinds)];
    if (call === "collect") return { call, input: null };
    let at = inputHeaderWords;
    const [removed, swapOut, swapIn, handles, tokenIds, queryStarts, contextLens, blockTables] =
      Array.from(input.subarray(2, inputHeaderWords), (n) => input.subarray(at, at += n));
    const step: StepInput = {
      stepId: this.#numbers[0],
      kind: kind === 0 ? "decode" : "prefill",
      isPartial: kind === 2,
      ...(call === "follow" && { isAhead: true }),
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
    return { call, input: step };
  }

  /** Worker: answers the step. Returns false if the output must follow as a message. */
  answerStep(output: StepOutput): boolean {
    const { stepId, tokenIds, logprobs, promptLogprobs, failures, latencyMs } = output;
    const fits = !logprobs && !promptLogprobs && !failures && tokenIds.length <= outputWords;
    if (fits) {
      this.#numbers[0] = stepId; // a pipeline answers with the step before
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
