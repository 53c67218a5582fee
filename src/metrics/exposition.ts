/** The metrics of a process for its readers, who share one text for a moment. */
import type { Clock } from "../core/clock.ts";
import type { MetricFamily } from "./family.ts";
import { textOf } from "./text_format.ts";

/** Readers within this time share one text. */
const TEXT_LIFE_MS = 500;

/** The text of all metrics, made when somebody asks for it. However many ask, it is made twice a second. */
export class Exposition {
  readonly #collect: () => Promise<readonly MetricFamily[]>;
  readonly #clock: Clock;
  #text: Promise<string> | null = null;
  #madeMs = -Infinity;

  /** @param collect the metrics at this moment */
  constructor(collect: () => Promise<readonly MetricFamily[]>, clock: Clock) {
    this.#collect = collect;
    this.#clock = clock;
  }

  text(): Promise<string> {
    if (this.#text === null || this.#clock.nowMs() - this.#madeMs > TEXT_LIFE_MS) {
      this.#text = this.#make();
      this.#madeMs = Infinity; // readers wait for the text that is being made
    }
    return this.#text;
  }

  async #make(): Promise<string> {
    try {
      return textOf(await this.#collect());
    } finally {
      this.#madeMs = this.#clock.nowMs();
    }
  }
}
