/** The command line: finds the command, and shows errors to the user. */
import { isForTheUser, LlumnixError, UsageError } from "../core/errors.ts";
import { journalPrefix } from "../core/journal.ts";
import { fullVersion } from "../core/version.ts";
import { commands, findCommand, programHelp } from "./commands.ts";
import { UnknownOptionError } from "./unknown_option_error.ts";

/** Python modules whose command line `serve` takes, as in `python -m MODULE ARGS`. */
const serveModules = [
  "llumnix.entrypoints.vllm.api_server",
  "vllm.entrypoints.openai.api_server",
  "vllm.entrypoints.api_server",
];

/**
 * Runs the program.
 * @param argv the words after the program's name
 * @returns the exit code: 0, 2 for what the user must change, 1 for other failures
 */
export async function main(argv: readonly string[]): Promise<number> {
  let name = argv[0];
  try {
    if (name === undefined || name === "-h" || name === "--help") {
      console.log(programHelp());
      return 0;
    }
    if (name === "--version") {
      console.log(`llumnix ${fullVersion()}`);
      return 0;
    }
    let words: readonly string[];
    [name, ...words] = withoutModule(argv);
    const { load } = findCommand(name);
    if (load === null && wantsHelp(words)) return await runHelp(name);
    if (load === null) throw new UsageError("this command is not available yet");
    if (name !== "help" && wantsHelp(words)) return await runHelp(name);
    const command = await load();
    return await command.run(words);
  } catch (error) {
    if (!(error instanceof LlumnixError)) throw error;
    const program = commands.has(name) ? `llumnix ${name}` : "llumnix";
    const elsewhere = error instanceof UnknownOptionError &&
      await otherCommands(name, error.option);
    console.error(`${journalPrefix("error")}${program}: error: ${elsewhere || error.message}`);
    return isForTheUser(error.kind) ? 2 : 1;
  }
}

/** True when help is asked for anywhere before `--`. */
export function wantsHelp(argv: readonly string[]): boolean {
  const end = argv.indexOf("--");
  const words = end < 0 ? argv : argv.slice(0, end);
  return words.includes("-h") || words.includes("--help");
}

/**
 * `-m MODULE ARGS`, as after `python`, becomes `serve ARGS`; `-u` before it (unbuffered output) is
 * dropped. Other words stay as they are.
 * @throws {UsageError} a module that has no counterpart here
 */
function withoutModule(argv: readonly string[]): readonly string[] {
  const words = argv[0] === "-u" && argv[1] === "-m" ? argv.slice(1) : argv;
  if (words[0] !== "-m") return argv;
  const [, module, ...rest] = words;
  if (serveModules.includes(module)) return ["serve", ...rest];
  throw new UsageError(
    `-m ${module ?? ""}: expected ${serveModules.slice(0, -1).join(", ")} or ` +
      `${serveModules.at(-1)}; they are llumnix serve`,
  );
}

async function runHelp(topic: string): Promise<number> {
  const { help } = await import("./help_command.ts");
  return await help.run([topic]);
}

/** Says which commands have an option that this one has not; null when none has. */
async function otherCommands(name: string, option: string): Promise<string | null> {
  const { ArgumentIndex } = await import("./arguments/index.ts");
  const owners: string[] = [];
  for (const [owner, { load }] of commands) {
    const groups = (await load?.())?.groups;
    if (groups && new ArgumentIndex(groups).byOption.has(option)) owners.push(`\`${owner}\``);
  }
  if (owners.length === 0) return null;
  owners[0] = owners[0].replace("`", "`llumnix ");
  const list = owners.length === 1
    ? owners[0]
    : `${owners.slice(0, -1).join(", ")} and ${owners.at(-1)}`;
  return `${option} is an option of ${list}, not of \`llumnix ${name}\``;
}
