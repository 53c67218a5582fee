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
  | { readonly kind: "file"; readonly path: string; readonly key: string }
  /** It follows from another argument. */
  | { readonly kind: "implied"; readonly by: string };

export interface Setting {
  readonly value: Value;
  readonly source: Source;
}

/** By argument name, in the order of the table. */
export type Settings = ReadonlyMap<string, Setting>;

/**
 * Reads a command line and the configuration file that it names.
 * @param index the arguments that may be on the command line
 * @param whole the arguments that get a value; the file may also set arguments that `index` lacks
 * @throws {UsageError} anything in them that is unknown or invalid by itself
 */
export async function readSettings(
  argv: readonly string[],
  index: ArgumentIndex,
  whole = index,
): Promise<Settings> {
  const given = readCommandLine(argv, index);
  const path = given.get("config-file");
  const file = typeof path === "string" ? await readConfigFile(path, whole) : null;

  const settings = new Map<string, Setting>();
  for (const { name, argument, section } of whole.entries) {
    const fromFile = section === null ? undefined : file?.get(name);
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
  impliedSilence(settings);
  const metric = settings.get("load-metric")?.value;
  if (metric !== undefined) useThresholdsOf(metric as LoadMetricName, settings);
  return settings;
}

/** Only a simulated device runs on a profile. */
function impliedDevice(settings: Map<string, Setting>): void {
  if (!settings.get("profiling-result-file-path")?.value) return;
  if (settings.get("device")?.value !== "auto") return;
  const { device } = devices.find((kind) => kind.usesProfile)!;
  imply(settings, "device", device, "profiling-result-file-path");
}

/** Requests migrate from prefill to decode instances. */
function impliedMigration(settings: Map<string, Setting>): void {
  if (settings.get("enable-pd-disagg")?.value !== true) return;
  imply(settings, "enable-migration", true, "enable-pd-disagg");
}

/** `--disable-log-requests` silences requests everywhere. */
function impliedSilence(settings: Map<string, Setting>): void {
  if (settings.get("disable-log-requests")?.value !== true) return;
  imply(settings, "disable-log-requests-server", true, "disable-log-requests");
  imply(settings, "disable-log-requests-manager", true, "disable-log-requests");
}

function imply(settings: Map<string, Setting>, name: string, value: Value, by: string): void {
  const setting = settings.get(name);
  if (setting === undefined || setting.value === value) return;
  settings.set(name, { value, source: { kind: "implied", by } });
}

/** Unset thresholds take the unit of the metric: the default number of steps is no ratio. */
function useThresholdsOf(metric: LoadMetricName, settings: Map<string, Setting>): void {
  const defaults = new Map(Object.entries(defaultThresholds(metric)));
  for (const [name, { source }] of settings) {
    const value = defaults.get(camelCase(name));
    if (value === undefined || source.kind !== "default") continue;
    imply(settings, name, value, "load-metric");
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
