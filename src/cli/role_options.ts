/** From the command line of a role to its options: read, refused or printed, with notices on stderr. */
import type { LoggingOptions } from "../core/options.ts";
import { checkCombinations } from "./arguments/combinations.ts";
import { oneHostNotices, pairPolicyNotices } from "./arguments/in_force.ts";
import type { ArgumentIndex } from "./arguments/index.ts";
import { checkStatus, type Notice } from "./arguments/status.ts";
import type { InstanceOptions, ServeOptions } from "./arguments/tables.ts";
import { configTable } from "./print_config.ts";
import { readSettings, toOptions } from "./settings.ts";

/**
 * The options in effect of serve, manager, api-server or agent.
 * @param index the arguments that may be on the command line
 * @param whole the arguments that the configuration file may set
 * @returns null if `--print-config` asked for the table of options, which is printed
 * @throws {UsageError} the first thing that cannot be served
 */
export async function readServingOptions<Options extends ServeOptions>(
  command: string,
  argv: readonly string[],
  index: ArgumentIndex,
  whole: ArgumentIndex,
): Promise<Options | null> {
  const settings = await readSettings(argv, index, whole);
  checkCombinations(settings);
  const options = toOptions<Options>(settings);
  const notices = checkStatus(index, settings);
  if (settings.get("pair-migration-policy")!.source.kind !== "default") {
    notices.push(...pairPolicyNotices(options));
  }
  if (command === "serve") {
    const isChosen = (name: string) => settings.get(name)!.source.kind === "command line";
    notices.push(...oneHostNotices(options, isChosen));
  }
  report(command, notices, options.logLevel);
  if (!options.printConfig) return options;
  console.log(configTable(index, settings));
  return null;
}

/**
 * The options in effect of an instance. The configuration file may be that of the whole service.
 * @param index the arguments that may be on the command line
 * @param whole the arguments that the configuration file may set
 * @throws {UsageError} the first thing that cannot be served
 */
export async function readInstanceOptions<Options extends InstanceOptions>(
  argv: readonly string[],
  index: ArgumentIndex,
  whole: ArgumentIndex,
): Promise<Options> {
  const settings = await readSettings(argv, index, whole);
  const options = toOptions<Options>(settings);
  const notices = checkStatus(index, settings);
  // The process that started this one has printed them already.
  if (options.startedBy === "hand") report("instance", notices, options.logLevel);
  return options;
}

/** Prints what the user should know before the start goes on, as far as the log level wants it. */
function report(
  command: string,
  notices: readonly Notice[],
  level: LoggingOptions["logLevel"],
): void {
  if (level === "error") return;
  for (const { severity, message } of notices) {
    if (severity === "info" && level === "warning") continue;
    console.error(`llumnix ${command}: ${severity}: ${message}`);
  }
}
