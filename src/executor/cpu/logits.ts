import type { CpuKernels, KernelAddress, PackedMatrix } from "../../../ffi/cpu_kernels/kernels.ts";

/** Most memory for logits; more rows take several rounds. */
const maxLogitsBytes = 64 * 2 ** 20;

/** The language model head: hidden states to logits, a bounded number of rows at a time. */
export class LogitsHead {
  /** Most rows of one call. */
  readonly maxRows: number;
  readonly vocabSize: number;
  readonly #kernels: CpuKernels;
  readonly #lmHead: PackedMatrix;
  readonly #roundActivations: boolean;
  /** [maxRows, hidden] */
  readonly #gathered: KernelAddress;
  /** [maxRows, vocab] */
  readonly #logits: KernelAddress;
  /** int32 [maxRows] */
  readonly #best: KernelAddress;

  /** @param rows most rows that a call can need */
  constructor(kernels: CpuKernels, lmHead: PackedMatrix, roundActivations: boolean, rows: number) {
    this.#kernels = kernels;
    this.#lmHead = lmHead;
    this.#roundActivations = roundActivations;
    this.vocabSize = lmHead.n;
    this.maxRows = Math.max(1, Math.min(rows, Math.floor(maxLogitsBytes / (lmHead.n * 4))));
    this.#gathered = kernels.alloc(this.maxRows * lmHead.k * 4);
    this.#logits = kernels.alloc(this.maxRows * lmHead.n * 4);
    this.#best = kernels.alloc(this.maxRows * 4);
  }

  /**
   * Computes logits of some rows of `hidden`; at most `maxRows`. They stay until the next call.
   */
  compute(hidden: KernelAddress, rows: readonly number[]): void {
    const { n, k } = this.#lmHead;
    const rowBytes = k * 4;
    const address = (row: number) => hidden + BigInt(row * rowBytes);
    let x = address(rows[0]);
    // Decode steps use adjacent rows in place; other rows are gathered first.
    if (rows[rows.length - 1] - rows[0] !== rows.length - 1) {
      x = this.#gathered;
      rows.forEach((row, i) =>
        this.#kernels.copy(x + BigInt(i * rowBytes), address(row), rowBytes)
      );
    }
    const round = this.#roundActivations;
    this.#kernels.gemm(x, k, this.#lmHead, 0n, this.#logits, n, rows.length, round);
  }

  /** The computed logits of the i-th row; may be overwritten. */
  row(i: number): Float32Array {
    const rowBytes = this.vocabSize * 4;
    const bytes = this.#kernels.bytes(this.#logits + BigInt(i * rowBytes), rowBytes);
    return new Float32Array(bytes.buffer, bytes.byteOffset, this.vocabSize);
  }

  /** Most likely tokens of the first `m` computed rows; the lowest id on ties. */
  argmax(m: number): Int32Array {
    this.#kernels.argmax(this.#logits, this.vocabSize, this.#best, m, this.vocabSize);
    const bytes = this.#kernels.bytes(this.#best, m * 4);
    return new Int32Array(bytes.buffer, bytes.byteOffset, m).slice();
  }
}
