import type { OutputSink } from "../core/cluster.ts";
import type { RequestOutput } from "../core/protocol/generate.ts";

/** Most outputs that wait for earlier ones; a moving request has fewer in flight. */
const MAX_EARLY_OUTPUTS = 4096;

/**
 * Passes each output token of one request to its sink once and in order, and exactly one finish,
 * however outputs arrive: repeated, overlapping or early.
 */
export class OutputOrder {
  /** Index of the next token to deliver. */
  #next: number;
  #early: RequestOutput[] = [];
  #hasEnded = false;

  constructor(firstIndex: number, private readonly sink: OutputSink) {
    this.#next = firstIndex;
  }

  /** Index of the next token to deliver. */
  get nextIndex(): number {
    return this.#next;
  }

  /** Outputs wait for earlier ones that are missing. */
  get hasGap(): boolean {
    return this.#early.length > 0;
  }

  /** The finish was passed on, or {@linkcode stop} was called. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** From now on the sink is not called. */
  stop(): void {
    this.#hasEnded = true;
    this.#early = [];
  }

  accept(output: RequestOutput): void {
    if (this.#hasEnded) return;
    if (output.index === this.#next) this.#deliver(output);
    else if (output.index < this.#next) this.#acceptRepeated(output);
    else if (output.finish?.reason === "error") {
      // The tokens that would fill the gap are lost with the instance that failed.
      this.#deliver({ ...output, ...nothingAt(this.#next) });
    } else this.#keep(output);
    if (this.#early.length > 0) this.#deliverEarly();
  }

  #deliver(output: RequestOutput): void {
    // An output without tokens says that an instance took the request over: nothing for the client.
    if (output.tokenIds.length === 0 && !output.finish) return;
    this.#next += output.tokenIds.length;
    if (output.finish) this.stop();
    this.sink(output);
  }

  #acceptRepeated(output: RequestOutput): void {
    const known = Math.min(this.#next - output.index, output.tokenIds.length);
    if (known === output.tokenIds.length && !output.finish) return;
    const { promptLogprobs: _, ...rest } = output;
    this.#deliver({
      ...rest,
      index: this.#next,
      tokenIds: output.tokenIds.slice(known),
      ...(output.logprobs && { logprobs: output.logprobs.slice(known) }),
    });
  }

  #keep(output: RequestOutput): void {
    if (this.#early.length < MAX_EARLY_OUTPUTS) {
      this.#early.push(output);
      return;
    }
    const message = `the tokens from index ${this.#next} on did not arrive`;
    this.#deliver({
      requestId: output.requestId,
      ...nothingAt(this.#next),
      finish: { reason: "error", error: { kind: "internal", message } },
    });
  }

  #deliverEarly(): void {
    for (let i = 0; i < this.#early.length;) {
      if (this.#early[i].index > this.#next) {
        i++;
        continue;
      }
      const [output] = this.#early.splice(i, 1);
      if (output.index === this.#next) this.#deliver(output);
      else this.#acceptRepeated(output);
      i = 0; // an output before this one may follow now
    }
  }
}

function nothingAt(index: number): Pick<RequestOutput, "index" | "tokenIds" | "logprobs"> {
  return { index, tokenIds: [], logprobs: undefined };
}
