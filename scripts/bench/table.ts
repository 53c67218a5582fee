import { textTable } from "../../src/report/text_table.ts";

/** Prints rows as a table under a title; the keys of the first row are the columns. */
export function printTable(title: string, rows: readonly Readonly<Record<string, string>>[]): void {
  const columns = Object.keys(rows[0] ?? {});
  const cells = rows.map((row) => columns.map((column) => row[column]));
  console.log(`\n${title}\n${textTable(columns, cells)}`);
}

/** The median, by nearest rank. */
export function median(samples: readonly number[]): number {
  return percentile(samples, 50);
}

/** The nearest-rank percentile. */
export function percentile(samples: readonly number[], percent: number): number {
  const sorted = samples.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * percent / 100))];
}
