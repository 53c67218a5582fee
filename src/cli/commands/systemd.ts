/** `llumnix systemd`: prints or writes the unit of a service. */
import { dirname, isAbsolute, join } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { selfCommand } from "../../core/self_command.ts";
import { fileProblem } from "../../core/file_problem.ts";
import { ArgumentIndex } from "../arguments/index.ts";
import {
  agentGroups,
  allRoleGroups,
  apiServerGroups,
  everyGroup,
  managerGroups,
} from "../arguments/role_tables.ts";
import {
  type Group,
  instanceGroups,
  type InstanceOptions,
  serveGroups,
  type ServeOptions,
} from "../arguments/tables.ts";
import { readInstanceOptions, readServingOptions } from "../role_options.ts";
import { readCommandLine } from "../command_line.ts";
import type { SystemdOptions } from "../systemd/arguments.ts";
import { environmentFile, MARK, type UnitRole, unitText } from "../systemd/unit.ts";

const FIRST_FREE_PORT = 1024;

const groupsOf: Readonly<Record<UnitRole, readonly Group[]>> = {
  serve: serveGroups,
  manager: managerGroups,
  "api-server": apiServerGroups,
  agent: agentGroups,
  instance: instanceGroups,
};

/** Options with files that only their owner may be able to read, and the variables in place of them. */
const ownersFiles: Readonly<Record<string, string>> = {
  "cluster-key-file": "LLUMNIX_CLUSTER_KEY",
  "cluster-credentials": "LLUMNIX_CLUSTER_USER, LLUMNIX_CLUSTER_PASSWORD, ...",
};

const emptyEnvironment = [
  "# Environment of the service, read at its start. Only its owner may read this file.",
  "#LLUMNIX_ADMIN_TOKEN=",
  "#VLLM_API_KEY=",
  "#LLUMNIX_CLUSTER_KEY=",
  "#LLUMNIX_CLUSTER_USER=",
  "#LLUMNIX_CLUSTER_PASSWORD=",
  "",
].join("\n");

/**
 * @param words the command that the unit runs, with its arguments
 * @returns the exit code
 * @throws {UsageError} arguments that would not start, or files that cannot be written
 */
export async function runSystemd(
  { user, write, name, watchdog }: SystemdOptions,
  words: readonly string[],
): Promise<number> {
  checkName(name);
  const { role, argv } = checkedCommand(words, user);
  const place = await placeOf(role, argv);
  if (place === null) return 0; // --print-config
  const { port, hasAgent } = place;
  const command = absolute(selfCommand());
  if (!user && /^\/(home|root)\//.test(command[0])) {
    console.error(
      `llumnix systemd: warning: the service runs as a user of its own, who must be able to run ` +
        `${command[0]}: /usr/local/bin is a better place`,
    );
  }
  const text = unitText({
    role,
    hasAgent,
    command: [...command, role, ...argv],
    user,
    name,
    watchdogSeconds: watchdog,
    needsLowPort: port !== null && port > 0 && port < FIRST_FREE_PORT,
  });
  if (write) writeFiles(text, role === "instance", user, name);
  else console.log(text.trimEnd());
  return 0;
}

/** What a unit has to know of the command that it runs. */
interface Place {
  /** Where it would serve HTTP; null: nowhere. */
  readonly port: number | null;
  readonly hasAgent: boolean;
}

/**
 * @returns null if the command would print its options and end
 * @throws {UsageError} arguments that would not start
 */
async function placeOf(role: UnitRole, argv: readonly string[]): Promise<Place | null> {
  const index = new ArgumentIndex(groupsOf[role]);
  if (role === "instance") {
    await readInstanceOptions<InstanceOptions>(argv, index, new ArgumentIndex(everyGroup));
    return { port: null, hasAgent: false };
  }
  const whole = new ArgumentIndex(role === "serve" ? serveGroups : allRoleGroups);
  const options = await readServingOptions<ServeOptions>(role, argv, index, whole);
  if (options === null) return null;
  const hasPort = role === "serve" || role === "api-server";
  const hasAgent = role === "agent" || (role === "serve" && options.cluster !== null);
  return { port: hasPort ? options.port : null, hasAgent };
}

function checkName(name: string): void {
  if (/^[A-Za-z0-9:_.-]{1,200}$/.test(name) && !name.endsWith(".service")) return;
  throw new UsageError(
    `--name ${name}: expected the name of a unit without ".service": letters, digits and : _ . -`,
  );
}

/**
 * @param user see {@linkcode SystemdOptions}
 * @throws {UsageError} no such role, a secret, a file that the service cannot read, or a path that depends on
 *   the working directory
 */
function checkedCommand(
  words: readonly string[],
  user: boolean,
): { readonly role: UnitRole; readonly argv: readonly string[] } {
  const isDefault = words.length === 0 || words[0].startsWith("-");
  const role = isDefault ? "serve" : words[0];
  if (!(role in groupsOf)) {
    throw new UsageError(
      `${role} is no command for a service: expected ${Object.keys(groupsOf).join(", ")}`,
    );
  }
  const argv = isDefault ? words : words.slice(1);
  const index = new ArgumentIndex(groupsOf[role as UnitRole]);
  for (const given of readCommandLine(argv, index).keys()) {
    const { argument } = index.entries.find((entry) => entry.name === given)!;
    if (!user && Object.hasOwn(ownersFiles, given)) {
      throw new UsageError(
        `--${given}: the service runs as a user of its own, who cannot read a file that is readable by its ` +
          `owner alone: set ${ownersFiles[given]} in the environment file instead`,
      );
    }
    if (!argument.isSecret) continue;
    throw new UsageError(
      `--${given} would be in the unit, which all users can read: set ${argument.environment} in the ` +
        "environment file instead",
    );
  }
  const relative = argv.find((word) => /^(--[^=]+=)?(\.{1,2}|~)\//.test(word));
  if (relative !== undefined) {
    throw new UsageError(
      `${relative}: a service runs in a directory of its own: write the absolute path`,
    );
  }
  return { role: role as UnitRole, argv };
}

function absolute([program, ...rest]: readonly string[]): string[] {
  return [isAbsolute(program) ? program : join(Deno.cwd(), program), ...rest];
}

/** @param isRestarted it has no successor: after its executable was replaced, it is restarted */
function writeFiles(text: string, isRestarted: boolean, user: boolean, name: string): void {
  const home = Deno.env.get("HOME");
  if (user && !home) throw new UsageError("--user needs HOME in the environment");
  const config = user ? Deno.env.get("XDG_CONFIG_HOME") || `${home}/.config` : "/etc";
  const unitPath = join(config, "systemd", user ? "user" : "system", `${name}.service`);
  const environmentPath = environmentFile(name).replace("%E", config);
  try {
    checkReplaceable(unitPath);
    Deno.mkdirSync(dirname(unitPath), { recursive: true });
    Deno.writeTextFileSync(unitPath, text, { mode: 0o644 });
    Deno.mkdirSync(dirname(environmentPath), { recursive: true, mode: 0o755 });
    writeNew(environmentPath, emptyEnvironment);
  } catch (error) {
    if (error instanceof UsageError) throw error;
    throw new UsageError(`cannot write the unit (${unitPath}): ${fileProblem(error)}`);
  }
  const systemctl = user ? "systemctl --user" : "systemctl";
  console.log(
    [
      `wrote ${unitPath}`,
      `environment variables of the service: ${environmentPath}`,
      `start it:    ${systemctl} daemon-reload && ${systemctl} enable --now ${name}`,
      `its log:     ${user ? "journalctl --user" : "journalctl"} -u ${name}`,
      `upgrade it:  replace the executable, then ${systemctl} ${
        isRestarted ? "restart" : "reload"
      } ${name}`,
      `remove it:   ${systemctl} disable --now ${name} && rm ${unitPath} ${environmentPath}`,
    ].join("\n"),
  );
}

/** @throws {UsageError} somebody else wrote the unit */
function checkReplaceable(unitPath: string): void {
  let text: string;
  try {
    text = Deno.readTextFileSync(unitPath);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return;
    throw error;
  }
  if (text.startsWith(MARK)) return;
  throw new UsageError(
    `${unitPath} was not written by this command: remove it, or choose a --name`,
  );
}

function writeNew(path: string, text: string): void {
  try {
    Deno.writeTextFileSync(path, text, { createNew: true, mode: 0o600 });
  } catch (error) {
    if (!(error instanceof Deno.errors.AlreadyExists)) throw error;
  }
}
