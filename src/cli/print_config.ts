/** The table of `--print-config`. */
import type { Argument, Value } from "./arguments/argument.ts";
import type { ArgumentIndex } from "./arguments/index.ts";
import { shown, shownDefault } from "./arguments/values.ts";
import type { Settings, Source } from "./settings.ts";

/** One line per argument: name, effective value, and where the value comes from. */
export function configTable(index: ArgumentIndex, settings: Settings): string {
  const rows = [["argument", "value", "source"]];
  for (const { name, argument } of index.entries) {
    const { value, source } = settings.get(name)!;
    const text = value === null ? shownDefault(argument) ?? "none" : shownValue(argument, value);
    rows.push([`--${name}`, text, shownSource(source)]);
  }
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map(([name, value, source]) =>
    `${name.padEnd(widths[0])}  ${value.padEnd(widths[1])}  ${source}`
  ).join("\n");
}

function shownValue({ isSecret }: Argument, value: Value): string {
  return isSecret ? "(hidden)" : shown(value);
}

function shownSource(source: Source): string {
  return source.kind === "file" ? `${source.path}: ${source.key}` : source.kind;
}
