/** rows.cu: what is computed of each row by itself. */
import { type ElementType, suffixes } from "./decoder_types.ts";
import type { KernelModules, Launcher } from "./kernel_modules.ts";

const threads = 256;

export class RowKernels {
  readonly #embed: Launcher;
  readonly #rmsNorm: Launcher;
  readonly #siluMultiply: Launcher;
  readonly #largestLogit: Launcher;
  readonly #addRows: Launcher;

  constructor(modules: KernelModules, type: ElementType) {
    const suffix = suffixes[type];
    this.#embed = modules.launcher("rows", `embed_${suffix}`, "pppi", true);
    this.#rmsNorm = modules.launcher("rows", `rms_norm_${suffix}`, "ppppif", true);
    this.#siluMultiply = modules.launcher("rows", `silu_multiply_${suffix}`, "ppi", true);
    this.#largestLogit = modules.launcher("rows", "largest_logit", "ppi");
    this.#addRows = modules.launcher("rows", "add_rows", "pipi", true);
  }

  /** y = rows of `table` [tokens, width] as float32. `tokens`: int32 [rows]. */
  embed(table: bigint, tokens: bigint, y: bigint, rows: number, width: number): void {
    this.#embed({ grid: [rows, 1, 1], threads }, table, tokens, y, width);
  }

  /**
   * y = the RMS norm of rows of `x`, float32 [..., width].
   * @param indices int32 [rows]: which rows of x; 0n: the first
   */
  rmsNorm(
    x: bigint,
    weight: bigint,
    indices: bigint,
    y: bigint,
    rows: number,
    width: number,
    epsilon: number,
  ): void {
    this.#rmsNorm({ grid: [rows, 1, 1], threads }, x, weight, indices, y, width, epsilon);
  }

  /** y [rows, width] = silu(gate) * up of float32 rows gate | up. */
  siluMultiply(gateUp: bigint, y: bigint, rows: number, width: number): void {
    this.#siluMultiply({ grid: [rows, 1, 1], threads }, gateUp, y, width);
  }

  /** y, float32 [rows, width] += x, float32 [rows, width]. */
  addRows(x: bigint, y: bigint, rows: number, width: number): void {
    this.#addRows({ grid: [rows, 1, 1], threads }, x, width, y, width);
  }

  /** Each row of y, float32 [rows, width] += x, float32 [width]. */
  addRow(x: bigint, y: bigint, rows: number, width: number): void {
    this.#addRows({ grid: [rows, 1, 1], threads }, x, 0, y, width);
  }

  /** indices, int32 [rows] = the largest of each row; -1 where there is NaN or it is not finite. */
  largestLogit(logits: bigint, indices: bigint, rows: number, width: number): void {
    this.#largestLogit({ grid: [rows, 1, 1], threads }, logits, indices, width);
  }
}
