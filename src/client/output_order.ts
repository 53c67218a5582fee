import type { OutputSink } from "../core/cluster.ts";
import type { RequestOutput } from "../core/protocol/generate.ts";

/** Outputs that wait for earlier ones; more than a request can have in flight while it moves. */
const MAX_EARLY_OUTPUTS = 4096;

/**
 * Hands each output token of one request to its sink once and in order, and exactly one finish,
 * whatever arrives: repeated, overlapping or early outputs.
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

  /** Outputs wait for earlier ones. */
  get hasGap(): boolean {
    return this.#early.length > 0;
  }

  /** The sink is called no more. */
  get hasEnded(): boolean {
    return this.#hasEnded;
  }

  /** The sink is never called again. */
  stop(): void {
    this.#hasEnded = true;
    this.#early = [];
  }

  accept(output: RequestOutput): void {
    if (this.#hasEnded) return;
    if (output.index === this.#next) this.#deliver(output);
    else if (output.index < this.#next) this.#acceptRepeated(output);
    else if (output.finish?.reason === "error") {
      // What would fill the gap is lost with whatever went wrong.
      this.#deliver({ ...output, ...nothingAt(this.#next) });
    } else this.#keep(output);
    if (this.#early.length > 0) this.#deliverEarly();
  }

  #deliver(output: RequestOutput): void {
    // Without tokens an instance says that it has taken over, which is no concern of the client's.
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
    const message = `tokens from index ${this.#next} on did not arrive`;
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
      i = 0; // it may have closed the gap before any other
    }
  }
}

function nothingAt(index: number): Pick<RequestOutput, "index" | "tokenIds" | "logprobs"> {
  return { index, tokenIds: [], logprobs: undefined };
}
