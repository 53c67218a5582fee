/** The table of `--print-config`. */
import { pairPolicyInForce } from "../manager/migration/pair_migration.ts";
import type { Argument } from "./arguments/argument.ts";
import type { ArgumentIndex } from "./arguments/index.ts";
import type { ServeOptions } from "./arguments/tables.ts";
import { shown, shownDefault } from "./arguments/values.ts";
import { type Setting, type Settings, type Source, toOptions } from "./settings.ts";

const hidden = "set (not shown)";

/** One line per argument: name, the value in force, and where the value comes from. */
export function configTable(index: ArgumentIndex, settings: Settings): string {
  const inForce = withPairPolicy(settings);
  const rows = [["argument", "value", "source"]];
  for (const { name, argument } of index.entries) {
    rows.push([`--${name}`, ...shownSetting(argument, inForce.get(name)!, settings)]);
  }
  const widths = [0, 1].map((column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map(([name, value, source]) =>
    `${name.padEnd(widths[0])}  ${value.padEnd(widths[1])}  ${source}`
  ).join("\n");
}

/** The manager follows another pair policy than the one that is set if there is no defragmentation. */
function withPairPolicy(settings: Settings): Settings {
  const value = pairPolicyInForce(toOptions<ServeOptions>(settings));
  if (settings.get("pair-migration-policy")?.value === value) return settings;
  const source = { kind: "implied", by: "enable-defrag" } as const;
  return new Map([...settings, ["pair-migration-policy", { value, source }]]);
}

/** Value and source, as the table has them. */
function shownSetting(
  argument: Argument,
  { value, source }: Setting,
  settings: Settings,
): [string, string] {
  const { environment, isSecret } = argument;
  if (value === null && environment !== null && Deno.env.get(environment) !== undefined) {
    return [hidden, `environment: ${environment}`];
  }
  const unset = shownDefault(argument) ?? "none";
  const text = value === null ? unset : isSecret ? hidden : shown(value);
  return [text, shownSource(source, settings)];
}

function shownSource(source: Source, settings: Settings): string {
  switch (source.kind) {
    case "file":
      return `${source.path}: ${source.key}`;
    case "implied":
      return `implied by --${source.by} ${shown(settings.get(source.by)!.value)}`;
    default:
      return source.kind;
  }
}
