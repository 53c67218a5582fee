/** Fits of linear functions that a few wild measurements do not move. */

/** A measurement: `target` should be the sum of the inputs times their coefficients. */
export interface Equation {
  readonly inputs: readonly number[];
  readonly target: number;
}

/** Huber's constant: 95% as efficient as least squares if errors are normal (Huber 1964). */
const HUBER = 1.345;
/** The deviation of normal numbers, divided by their median absolute deviation. */
const DEVIATION_PER_MAD = 1.4826;
const MAX_ROUNDS = 100;

/**
 * Coefficients of 0 or more that minimise Huber's loss of the relative residuals, by iteratively reweighted
 * least squares. Relative, because a step of 5 ms and one of 500 ms should be right by the same percentage.
 * @param equations with targets above 0
 * @throws {RangeError} the inputs do not determine the coefficients
 */
export function robustFit(equations: readonly Equation[], numCoefficients: number): number[] {
  const scaled = equations.map(({ inputs, target }) => inputs.map((input) => input / target));
  let used = Array.from({ length: numCoefficients }, (_, i) => i);
  for (;;) {
    const found = reweighted(scaled, used);
    const negative = found.findIndex((value) => value < 0);
    if (negative < 0) {
      const all = Array(numCoefficients).fill(0);
      used.forEach((column, i) => all[column] = found[i]);
      return all;
    }
    // A cost is never negative: leave out the worst offender, and fit the others again.
    const least = found.indexOf(Math.min(...found));
    used = used.filter((_, i) => i !== least);
    if (used.length === 0) throw new RangeError("no costs above 0 explain the measurements");
  }
}

/** Fits the target 1 of every row. @param columns the inputs to use */
function reweighted(rows: readonly (readonly number[])[], columns: readonly number[]): number[] {
  let weights = rows.map(() => 1);
  let found = solve(rows, columns, weights);
  for (let round = 0; round < MAX_ROUNDS; round++) {
    const residuals = rows.map((row) =>
      Math.abs(1 - columns.reduce((sum, column, i) => sum + row[column] * found[i], 0))
    );
    const scale = Math.max(1e-9, DEVIATION_PER_MAD * medianOf(residuals));
    weights = residuals.map((residual) => Math.min(1, HUBER * scale / Math.max(residual, 1e-12)));
    const next = solve(rows, columns, weights);
    const change = Math.max(...next.map((value, i) => Math.abs(value - found[i])));
    const size = Math.max(...next.map(Math.abs));
    found = next;
    if (change <= 1e-10 * size) break;
  }
  return found;
}

/** Weighted least squares by the normal equations, whose columns are scaled first. */
function solve(
  rows: readonly (readonly number[])[],
  columns: readonly number[],
  weights: readonly number[],
): number[] {
  const sizes = columns.map((column) => Math.sqrt(meanOf(rows.map((row) => row[column] ** 2))));
  const n = columns.length;
  const matrix = Array.from({ length: n }, () => Array<number>(n + 1).fill(0));
  for (const [r, row] of rows.entries()) {
    const scaled = columns.map((column, i) => row[column] / sizes[i]);
    for (let i = 0; i < n; i++) {
      for (let j = 0; j < n; j++) matrix[i][j] += weights[r] * scaled[i] * scaled[j];
      matrix[i][n] += weights[r] * scaled[i];
    }
  }
  return eliminate(matrix).map((value, i) => value / sizes[i]);
}

/** Gaussian elimination with pivoting of an n x (n + 1) matrix. */
function eliminate(matrix: number[][]): number[] {
  const n = matrix.length;
  const largest = Math.max(...matrix.map((row, i) => Math.abs(row[i])));
  for (let i = 0; i < n; i++) {
    let pivot = i;
    for (let r = i + 1; r < n; r++) {
      if (Math.abs(matrix[r][i]) > Math.abs(matrix[pivot][i])) pivot = r;
    }
    [matrix[i], matrix[pivot]] = [matrix[pivot], matrix[i]];
    if (!(Math.abs(matrix[i][i]) > 1e-10 * largest)) {
      throw new RangeError("the steps are too much alike to tell their costs apart");
    }
    for (let r = 0; r < n; r++) {
      if (r === i) continue;
      const factor = matrix[r][i] / matrix[i][i];
      for (let c = i; c <= n; c++) matrix[r][c] -= factor * matrix[i][c];
    }
  }
  return matrix.map((row, i) => row[n] / row[i]);
}

function meanOf(values: readonly number[]): number {
  return values.reduce((sum, value) => sum + value, 0) / values.length;
}

/** The median of a list that is not empty. */
export function medianOf(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
