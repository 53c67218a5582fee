/** The command line: commands, their help, and how errors reach the user. */
import { isForTheUser, LlumnixError, UsageError } from "../core/errors.ts";
import { checkCombinations, policiesInForce } from "./arguments/combinations.ts";
import { ArgumentIndex } from "./arguments/index.ts";
import { checkStatus, type Notice } from "./arguments/status.ts";
import { allRoleGroups, apiServerGroups, managerGroups } from "./arguments/role_tables.ts";
import {
  type Group,
  instanceGroups,
  type InstanceOptions,
  type RoleOptions,
  serveGroups,
  type ServeOptions,
} from "./arguments/tables.ts";
import { readCommandLine, UnknownOptionError, wantsHelp } from "./command_line.ts";
import { decideGroups } from "./decide/options.ts";
import { doctorGroups, doctorOptions } from "./doctor/arguments.ts";
import { commandHelp, terminalWidth } from "./help.ts";
import { configTable } from "./print_config.ts";
import { readSettings, toOptions } from "./settings.ts";
import { simulateGroups } from "./simulate/arguments.ts";
import { didYouMean } from "../core/suggest.ts";
import { version } from "../core/version.ts";

/** A command of the program. */
interface Command {
  readonly summary: string;
  /** Its arguments; absent: it is not available yet, or reads its few words itself. */
  readonly groups?: readonly Group[];
  /** Null: not available yet. */
  readonly run: ((argv: readonly string[]) => Promise<number>) | null;
  /** What help says after the arguments, for a terminal of so many columns. */
  readonly notes?: (width: number) => Promise<string>;
}

const commands: ReadonlyMap<string, Command> = new Map<string, Command>([
  ["serve", {
    summary: "Serve a model over HTTP with one instance or many.",
    groups: serveGroups,
    run: serve,
  }],
  ["instance", {
    summary: "Run one instance more for a manager that runs (serve and manager start their own).",
    groups: instanceGroups,
    run: instance,
  }],
  ["manager", {
    summary: "Run the manager and its instances; API servers run apart (api-server).",
    groups: managerGroups,
    run: (argv) => role("manager", argv),
  }],
  ["api-server", {
    summary: "Run an API server for the instances of a manager that runs (manager).",
    groups: apiServerGroups,
    run: (argv) => role("api-server", argv),
  }],
  ["bench", { summary: "Measure a service under load.", run: null }],
  ["simulate", {
    summary: "Run workloads on simulated clusters, and compare policies.",
    groups: simulateGroups,
    run: simulate,
    notes: async (width) => {
      const { figuresHelp, profileHelp } = await import("./simulate/help.ts");
      return `${figuresHelp(width)}\n\n${profileHelp(width)}`;
    },
  }],
  ["decide", {
    summary: "Answer what the manager would decide, from records of a file.",
    groups: decideGroups,
    run: decide,
    notes: async (width) => (await import("./decide/help.ts")).recordsHelp(width),
  }],
  ["profile", { summary: "Fit a latency profile from instance logs.", run: null }],
  ["doctor", {
    summary: "Check what this host has: devices, libraries, backends, and the speed of its paths.",
    groups: doctorGroups,
    run: doctor,
  }],
  ["help", { summary: "Show help of a command, or the argument page (--markdown).", run: help }],
]);

/**
 * Runs the program.
 * @param argv the words after the program's name
 * @returns the exit code: 0, 2 for what the user must change, 1 for other failures
 */
export async function main(argv: readonly string[]): Promise<number> {
  const [name, ...rest] = argv;
  try {
    if (name === undefined || name === "-h" || name === "--help") return await help([]);
    if (name === "--version") {
      console.log(`llumnix ${version}`);
      return 0;
    }
    const command = findCommand(name);
    if (command.groups !== undefined && wantsHelp(rest)) return await help([name]);
    if (command.run === null) throw new UsageError("this command is not available yet");
    return await command.run(rest);
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    const program = commands.has(name) ? `llumnix ${name}` : "llumnix";
    const isElsewhere = error instanceof UnknownOptionError && otherCommands(name, error.option);
    console.error(`${program}: error: ${isElsewhere || error.message}`);
    return isForTheUser(error.kind) ? 2 : 1;
  }
}

/** Says which commands have an option that this one has not; null when none has. */
function otherCommands(name: string, option: string): string | null {
  const owners = [...commands]
    .filter(([, { groups }]) => groups && new ArgumentIndex(groups).byOption.has(option))
    .map(([owner], i) => i === 0 ? `\`llumnix ${owner}\`` : `\`${owner}\``);
  if (owners.length === 0) return null;
  const list = owners.length === 1
    ? owners[0]
    : `${owners.slice(0, -1).join(", ")} and ${owners.at(-1)}`;
  return `${option} is an option of ${list}, not of \`llumnix ${name}\``;
}

function findCommand(name: string): Command {
  const command = commands.get(name);
  if (command !== undefined) return command;
  if (name.startsWith("-")) {
    throw new UsageError(`expected a command before ${name}, such as: llumnix serve ${name}`);
  }
  throw new UsageError(
    `unknown command ${name}${didYouMean(name, commands.keys())} (llumnix --help lists them)`,
  );
}

async function serve(argv: readonly string[]): Promise<number> {
  const index = new ArgumentIndex(serveGroups);
  const options = await readOptions<ServeOptions>("serve", argv, index);
  if (options === null) return 0;
  const { runServe } = await import("./commands/serve.ts");
  return await runServe(options);
}

async function role(name: "manager" | "api-server", argv: readonly string[]): Promise<number> {
  const index = new ArgumentIndex(name === "manager" ? managerGroups : apiServerGroups);
  const whole = new ArgumentIndex(allRoleGroups);
  const options = await readOptions<RoleOptions>(name, argv, index, whole);
  if (options === null) return 0;
  if (name === "manager") return await (await import("./commands/manager.ts")).runManager(options);
  return await (await import("./commands/api_server.ts")).runApiServer(options);
}

/** The options in effect; null when they were to be printed, which is done. */
async function readOptions<Options extends ServeOptions>(
  command: string,
  argv: readonly string[],
  index: ArgumentIndex,
  whole = index,
): Promise<Options | null> {
  const { settings, warnings } = await readSettings(argv, index, whole);
  if (settings.get("print-config")!.value === true) {
    console.log(configTable(index, settings));
    return null;
  }
  checkCombinations(settings);
  const notices = [
    ...warnings.map((message): Notice => ({ severity: "warning", message })),
    ...checkStatus(index, settings),
    ...policiesInForce(settings),
  ];
  const options = toOptions<Options>(settings);
  report(command, notices, options.logLevel);
  return options;
}

async function instance(argv: readonly string[]): Promise<number> {
  const index = new ArgumentIndex(instanceGroups);
  const { settings } = await readSettings(argv, index);
  const options = toOptions<InstanceOptions>(settings);
  report("instance", checkStatus(index, settings), options.logLevel);
  const { runInstance } = await import("./commands/instance.ts");
  return await runInstance(options);
}

async function decide(argv: readonly string[]): Promise<number> {
  const given = readCommandLine(argv, new ArgumentIndex(decideGroups));
  if (!given.has("kind")) {
    throw new UsageError("--kind is missing: expected load, dispatch, pair, request or scale");
  }
  const { runDecide } = await import("./commands/decide.ts");
  return await runDecide(given);
}

async function doctor(argv: readonly string[]): Promise<number> {
  if (argv[0] === "child") return await (await import("./doctor/child.ts")).runChild(argv.slice(1));
  const options = doctorOptions(argv);
  return await (await import("./commands/doctor.ts")).runDoctor(options);
}

async function simulate(argv: readonly string[]): Promise<number> {
  const { runSimulate } = await import("./commands/simulate.ts");
  return await runSimulate(argv);
}

/** Prints what the user should know before the start goes on, as far as the log level wants it. */
function report(command: string, notices: readonly Notice[], level: ServeOptions["logLevel"]) {
  if (level === "error") return;
  for (const { severity, message } of notices) {
    if (severity === "info" && level === "warning") continue;
    console.error(`llumnix ${command}: ${severity}: ${message}`);
  }
}

async function help(argv: readonly string[]): Promise<number> {
  const [topic, ...rest] = argv;
  if (rest.length > 0) throw new UsageError(`unexpected argument: ${rest[0]}`);
  if (topic === "--markdown") {
    const { argumentsPage } = await import("./markdown.ts");
    console.log(argumentsPage().trimEnd());
    return 0;
  }
  if (topic === undefined || topic === "-h" || topic === "--help") {
    console.log(programHelp());
    return 0;
  }
  const { groups, summary, notes } = findCommand(topic);
  const program = `llumnix ${topic}`;
  const width = terminalWidth();
  console.log(
    groups === undefined
      ? `usage: ${program}\n\n${summary}${commands.get(topic)!.run ? "" : " (not available yet)"}`
      : commandHelp(program, summary, new ArgumentIndex(groups), width),
  );
  if (notes !== undefined) console.log(`\n${await notes(width)}`);
  return 0;
}

function programHelp(): string {
  const lines = [...commands].map(([name, { summary, run }]) =>
    `  ${name.padEnd(12)}${summary}${run === null ? " (not available yet)" : ""}`
  );
  return [
    "usage: llumnix [-h] [--version] COMMAND ...",
    "",
    "Serves LLMs with many model instances that act as one service.",
    "",
    "Commands:",
    ...lines,
    "",
    "llumnix COMMAND --help shows a command's options.",
  ].join("\n");
}
