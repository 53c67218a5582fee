/** rows.cu: what is computed of each row by itself. */
import { type ElementType, suffixes } from "./decoder_types.ts";
import type { KernelModules, Launcher } from "./kernel_modules.ts";

const threads = 256;

/** Where rows of several parts lie: row r of part p at `address + part * p + row * r` bytes. */
export interface RowParts {
  readonly address: bigint;
  /** Bytes from a part to the next, and from a row of a part to the next. */
  readonly part: number;
  readonly row: number;
}

export class RowKernels {
  readonly #embed: Launcher;
  readonly #rmsNorm: Launcher;
  readonly #siluMultiply: Launcher;
  readonly #largestLogit: Launcher;
  readonly #addRows: Launcher;
  readonly #moveParts: Launcher;

  constructor(modules: KernelModules, type: ElementType) {
    const suffix = suffixes[type];
    this.#embed = modules.launcher("rows", `embed_${suffix}`, "pppi", true);
    this.#rmsNorm = modules.launcher("rows", `rms_norm_${suffix}`, "ppppif", true);
    this.#siluMultiply = modules.launcher("rows", `silu_multiply_${suffix}`, "ppi", true);
    this.#largestLogit = modules.launcher("rows", "largest_logit", "ppi");
    this.#moveParts = modules.launcher("rows", "move_parts", "piipiii", true);
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

  /**
   * Copies the first `width` bytes of each row of each part. All sizes are multiples of 4.
   * @param from does not overlap `to`
   */
  moveParts(from: RowParts, to: RowParts, width: number, rows: number, parts: number): void {
    const launch = { grid: [rows, parts, 1] as const, threads };
    const place = ({ address, part, row }: RowParts) => [address, part / 4, row / 4] as const;
    this.#moveParts(launch, ...place(from), ...place(to), width / 4);
  }

  /** indices, int32 [rows] = the largest of each row; -1 where there is NaN or it is not finite. */
  largestLogit(logits: bigint, indices: bigint, rows: number, width: number): void {
    this.#largestLogit({ grid: [rows, 1, 1], threads }, logits, indices, width);
  }
}
