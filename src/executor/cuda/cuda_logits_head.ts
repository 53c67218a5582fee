import type { LogitsHead } from "../transformer/transformer_executor.ts";
import type { CudaModel } from "./cuda_model.ts";
import type { CudaTokenChooser } from "./cuda_token_chooser.ts";
import { PinnedWords } from "./pinned_words.ts";

/** The language model head on a CUDA device. */
export class CudaLogitsHead implements LogitsHead {
  readonly maxRows: number;
  readonly chooser?: CudaTokenChooser;
  readonly #model: CudaModel;
  readonly #vocabSize: number;
  /** [maxRows] */
  readonly #indices: PinnedWords;
  /** Float32 [vocab]: the row that was asked for last. */
  readonly #row: PinnedWords;

  constructor(model: CudaModel) {
    const { cuda, stream, activations, chooser, config: { vocabSize } } = model;
    this.maxRows = activations.maxLogitsRows;
    if (chooser !== null) this.chooser = chooser;
    this.#model = model;
    this.#vocabSize = vocabSize;
    this.#indices = new PinnedWords(cuda, stream, this.maxRows);
    this.#row = new PinnedWords(cuda, stream, vocabSize);
  }

  compute(rows: readonly number[]): void {
    const { kernels, config, weights, activations } = this.#model;
    const { residual, indices, normedRows, logits } = activations;
    const { rmsNormEps } = config;
    const count = rows.length;
    // A decode step takes its first rows as they are, and waits for no copy of the step before.
    const areFirst = rows[0] === 0 && rows[count - 1] === count - 1;
    if (!areFirst) {
      this.#indices.wait();
      this.#indices.words.set(rows);
      this.#indices.send(indices, count);
    }
    const gathered = areFirst ? 0n : indices;
    kernels.normLinear(
      { x: residual, norm: weights.finalNorm, indices: gathered, rows: count, epsilon: rmsNormEps },
      weights.lmHead,
      logits,
      normedRows,
    );
  }

  row(i: number): Float32Array {
    const { activations: { logits } } = this.#model;
    this.#row.receive(logits + BigInt(i * this.#vocabSize * 4), this.#vocabSize);
    return new Float32Array(this.#row.words.buffer);
  }

  argmax(m: number): Int32Array {
    const { kernels, activations: { logits, indices } } = this.#model;
    kernels.largestLogit(logits, indices, m, this.#vocabSize);
    this.#indices.receive(indices, m);
    return this.#indices.words.slice(0, m);
  }

  /** Frees its pinned memory. */
  close(): void {
    this.#indices.close();
    this.#row.close();
  }
}
