import type { CpuKernels, KernelAddress, PackedMatrix } from "../../../ffi/cpu_kernels/kernels.ts";
import type { LogitsHead } from "../transformer/transformer_executor.ts";

/** Most memory for logits; more rows take several rounds. */
const maxLogitsBytes = 64 * 2 ** 20;

/** The language model head on the CPU. */
export class CpuLogitsHead implements LogitsHead {
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

  /** Where the hidden states of the latest slice are, float32 [rows, hidden]. */
  hidden: KernelAddress = 0n;

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

  compute(rows: readonly number[]): void {
    const { n, k } = this.#lmHead;
    const rowBytes = k * 4;
    const address = (row: number) => this.hidden + BigInt(row * rowBytes);
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

  row(i: number): Float32Array {
    const rowBytes = this.vocabSize * 4;
    const bytes = this.#kernels.bytes(this.#logits + BigInt(i * rowBytes), rowBytes);
    return new Float32Array(bytes.buffer, bytes.byteOffset, this.vocabSize);
  }

  argmax(m: number): Int32Array {
    this.#kernels.argmax(this.#logits, this.vocabSize, this.#best, m, this.vocabSize);
    const bytes = this.#kernels.bytes(this.#best, m * 4);
    const best = new Int32Array(bytes.buffer, bytes.byteOffset, m);
    return best.map((tokenId, i) => Number.isFinite(this.row(i)[tokenId]) ? tokenId : -1);
  }
}
