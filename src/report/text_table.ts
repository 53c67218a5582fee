/** A table for a terminal: the first column is aligned left, the others right. */
export function textTable(
  header: readonly string[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column].length)));
  const text = lines.map((line) =>
    line.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  ")
      .trimEnd()
  );
  const rule = widths.map((width) => "-".repeat(width)).join("  ");
  return [text[0], rule, ...text.slice(1)].join("\n");
}
