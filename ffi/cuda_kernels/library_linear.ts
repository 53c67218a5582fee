/** Linear layers of prompts by cuBLASLt: for long prompts it is faster than linear_many.cu. */
import { CublasLt, type LinearPlan } from "../cublaslt/cublaslt.ts";
import type { OpenOptions } from "../library.ts";
import { elementBytes, type ElementType, type LinearLayer } from "./decoder_types.ts";
import type { RowKernels } from "./row_kernels.ts";

/** Rows [first, first + count) of a matrix. */
export interface RowRange {
  readonly first: number;
  readonly count: number;
}

/** Memory that cuBLASLt may use for one product, as NVIDIA advises. */
export const libraryWorkspaceBytes = 32 << 20;

/** Addresses that {@linkcode LibraryLinear} may write, of the stream. */
export interface LibraryRoom {
  /** {@linkcode libraryWorkspaceBytes} */
  readonly workspace: bigint;
  /** float32 [tileRows, outputs] of the layers that add. */
  readonly sums: bigint;
}

/**
 * Every call multiplies exactly `tileRows` rows, however many rows a step has. The library chooses its
 * algorithm by the shape, and algorithms differ in the order of their sums: with one shape, a row gets the same
 * bits in every batch. This needs an algorithm that treats all rows of a product alike. NVIDIA does not promise
 * that, so the caller has to test it.
 */
export class LibraryLinear {
  /** What the bits of a product depend on, beside its operands: the library and its algorithms. */
  readonly identity: string;
  readonly #blas: CublasLt;
  readonly #plans = new Map<string, LinearPlan>();

  /**
   * @param shapes of all layers that will be computed
   * @throws {LibraryNotFoundError} without libcublasLt
   * @throws {CublasError} it has no algorithm for a shape
   */
  constructor(
    readonly tileRows: number,
    readonly type: ElementType,
    shapes: readonly Pick<LinearLayer, "inputs" | "outputs">[],
    readonly room: LibraryRoom,
    readonly stream: bigint,
    options: OpenOptions = {},
  ) {
    this.#blas = CublasLt.open(options);
    try {
      for (const { inputs, outputs } of shapes) this.#plan(inputs, outputs);
    } catch (error) {
      this.close();
      throw error;
    }
    const algorithms = [...this.#plans.values()].map(({ algorithm }) => algorithm.toHex());
    this.identity = `cuBLASLt ${this.#blas.version}, ${tileRows} rows, algorithms ${
      fingerprint(algorithms.join())
    }`;
  }

  /** Where the library is, for people. */
  get path(): string {
    return this.#blas.library.path;
  }

  /**
   * y (float32) = x W^T of some rows. As many rows as fill up the last product are read of x and written to y
   * behind them; with "add", y += and nothing behind the rows is written.
   */
  linear(
    kernels: RowKernels,
    { weights, bias, outputs, inputs }: LinearLayer,
    x: bigint,
    y: bigint,
    { first, count }: RowRange,
    mode: "set" | "add",
  ): void {
    const plan = this.#plan(inputs, outputs);
    for (let done = 0; done < count; done += this.tileRows) {
      const rows = Math.min(this.tileRows, count - done);
      const from = x + BigInt((first + done) * inputs * elementBytes[this.type]);
      const to = y + BigInt((first + done) * outputs * 4);
      const { workspace, sums } = this.room;
      const into = mode === "add" ? sums : to;
      plan.run({ x: from, weights, y: into, workspace, stream: this.stream });
      if (mode === "add") kernels.addRows(sums, to, rows, outputs);
      if (bias !== 0n) kernels.addRow(bias, to, rows, outputs);
    }
  }

  close(): void {
    for (const plan of this.#plans.values()) plan.destroy();
    this.#plans.clear();
    this.#blas.close();
  }

  /** The library is asked once for each shape. */
  #plan(inputs: number, outputs: number): LinearPlan {
    const key = `${inputs} x ${outputs}`;
    const known = this.#plans.get(key);
    if (known !== undefined) return known;
    const plan = this.#blas.planLinear({
      ...{ rows: this.tileRows, inputs, outputs, type: this.type, outputType: "float32" },
      ...{ workspaceBytes: libraryWorkspaceBytes, alignmentBytes: 16 },
    });
    this.#plans.set(key, plan);
    return plan;
  }
}

/** FNV-1a of 64 bits, in hex. */
function fingerprint(text: string): string {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) {
    hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  }
  return hash.toString(16).padStart(16, "0");
}
