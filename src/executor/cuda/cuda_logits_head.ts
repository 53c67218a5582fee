import type { LogitsHead } from "../transformer/transformer_executor.ts";
import type { CudaModel } from "./cuda_model.ts";
import type { CudaTokenChooser } from "./cuda_token_chooser.ts";
import { PinnedWords } from "./pinned_words.ts";
import type { Parts } from "./ranks.ts";

/** The language model head: each rank computes some logits of a row, and the first one gets all of them. */
export class CudaLogitsHead implements LogitsHead {
  readonly maxRows: number;
  readonly chooser?: CudaTokenChooser;
  readonly #model: CudaModel;
  readonly #vocabSize: number;
  /** [maxRows], by rank */
  readonly #indices: readonly PinnedWords[];
  /** Float32 [vocab]: the row that was asked for last. */
  readonly #row: PinnedWords;

  constructor(model: CudaModel) {
    const { cuda, ranks, chooser, config: { vocabSize } } = model;
    const { stream, activations } = ranks.first;
    this.maxRows = activations.maxLogitsRows;
    if (chooser !== null) this.chooser = chooser;
    this.#model = model;
    this.#vocabSize = vocabSize;
    const indices: PinnedWords[] = [];
    ranks.each(({ stream }) => indices.push(new PinnedWords(cuda, stream, this.maxRows)));
    this.#indices = indices;
    cuda.setDevice(ranks.first.ordinal);
    this.#row = new PinnedWords(cuda, stream, vocabSize);
  }

  compute(rows: readonly number[]): void {
    const { ranks, config } = this.#model;
    const { rmsNormEps } = config;
    const count = rows.length;
    // A decode step takes its first rows as they are, and waits for no copy of the step before.
    const areFirst = rows[0] === 0 && rows[count - 1] === count - 1;
    ranks.each(({ kernels, weights, activations }, rank) => {
      const { residual, indices, normedRows, logitsPart } = activations;
      if (!areFirst) {
        this.#indices[rank].wait();
        this.#indices[rank].words.set(rows);
        this.#indices[rank].send(indices, count);
      }
      const gathered = areFirst ? 0n : indices;
      kernels.normLinear(
        {
          x: residual,
          norm: weights.finalNorm,
          indices: gathered,
          rows: count,
          epsilon: rmsNormEps,
        },
        weights.lmHead,
        logitsPart,
        normedRows,
      );
    });
    ranks.gather(this.#logits, count);
    this.#model.cuda.setDevice(ranks.first.ordinal);
  }

  row(i: number): Float32Array {
    const { activations: { logits } } = this.#model.ranks.first;
    this.#row.receive(logits + BigInt(i * this.#vocabSize * 4), this.#vocabSize);
    return new Float32Array(this.#row.words.buffer);
  }

  argmax(m: number): Int32Array {
    const { kernels, activations: { logits, indices } } = this.#model.ranks.first;
    kernels.largestLogit(logits, indices, m, this.#vocabSize);
    const [words] = this.#indices;
    words.receive(indices, m);
    return words.words.slice(0, m);
  }

  /** What the ranks compute of the logits, for the first of them. */
  get #logits(): Parts {
    const { ranks } = this.#model;
    return {
      from: ({ activations }) => activations.logitsPart,
      to: ({ activations }) => activations.logits,
      width: ranks.first.weights.lmHead.outputs * 4,
      fullWidth: this.#vocabSize * 4,
    };
  }

  /** Frees its pinned memory. */
  close(): void {
    for (const words of this.#indices) words.close();
    this.#row.close();
  }
}
