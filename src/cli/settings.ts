/** Effective values: command line over file over default, each with where it came from. */
import type { LoadMetricName } from "../core/options.ts";
import { devices } from "../executor/devices.ts";
import { defaultThresholds } from "../manager/load/thresholds.ts";
import { camelCase, type Value } from "./arguments/argument.ts";
import type { ArgumentIndex } from "./arguments/index.ts";
import { readCommandLine } from "./command_line.ts";
import { readConfigFile } from "./config_file.ts";

/** Where a value came from. */
export type Source =
  | { readonly kind: "default" }
  | { readonly kind: "command line" }
  | { readonly kind: "file"; readonly path: string; readonly key: string };

export interface Setting {
  readonly value: Value;
  readonly source: Source;
}

/** By argument name, in the order of the table. */
export type Settings = ReadonlyMap<string, Setting>;

/**
 * Reads a command line and the configuration file that it names.
 * @param index the arguments that may be on the command line
 * @param whole those that the file may set, and that have values in the end
 * @throws {UsageError} anything in them that is unknown or invalid by itself
 */
export async function readSettings(
  argv: readonly string[],
  index: ArgumentIndex,
  whole = index,
): Promise<{ settings: Settings; warnings: readonly string[] }> {
  const given = readCommandLine(argv, index);
  const path = given.get("config-file");
  const file = typeof path === "string" ? await readConfigFile(path, whole) : null;

  const settings = new Map<string, Setting>();
  for (const { name, argument } of whole.entries) {
    const fromFile = file?.settings.get(name);
    if (given.has(name)) {
      settings.set(name, { value: given.get(name)!, source: { kind: "command line" } });
    } else if (fromFile !== undefined) {
      const { value, path, key } = fromFile;
      settings.set(name, { value, source: { kind: "file", path, key } });
    } else {
      settings.set(name, { value: argument.default, source: { kind: "default" } });
    }
  }
  impliedDevice(settings);
  impliedMigration(settings);
  const metric = settings.get("load-metric")?.value;
  if (metric !== undefined) useThresholdsOf(metric as LoadMetricName, settings);
  return { settings, warnings: file?.warnings ?? [] };
}

/** A profile is there to be simulated. */
function impliedDevice(settings: Map<string, Setting>): void {
  const profile = settings.get("profiling-result-file-path");
  if (!profile?.value || settings.get("device")?.value !== "auto") return;
  const value = devices.find((kind) => kind.usesProfile)!.device;
  settings.set("device", { value, source: profile.source });
}

/** Requests have to get from prefill to decode instances. */
function impliedMigration(settings: Map<string, Setting>): void {
  const disaggregation = settings.get("enable-pd-disagg");
  if (disaggregation?.value !== true || settings.get("enable-migration")?.value === true) return;
  settings.set("enable-migration", disaggregation);
}

/**
 * Unset thresholds depend on the metric: Llumnix would compare a ratio with its default steps all the
 * same.
 */
function useThresholdsOf(metric: LoadMetricName, settings: Map<string, Setting>): void {
  const defaults = new Map(Object.entries(defaultThresholds(metric)));
  for (const [name, { source }] of settings) {
    const value = defaults.get(camelCase(name));
    if (value !== undefined && source.kind === "default") settings.set(name, { value, source });
  }
}

/**
 * The values as a record of camel-case options.
 * @param settings checked ones: `Options` leaves out the values that are refused
 */
export function toOptions<Options>(settings: Settings): Options {
  const options = [...settings].map(([name, { value }]) => [camelCase(name), value]);
  return Object.fromEntries(options) as Options;
}
