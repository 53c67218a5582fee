/**
 * An instance's process that is started before it is known what it shall do. Most of its start is the
 * same for every instance: the runtime, the modules, the worker of the engine. All this happens while the
 * process that starts it reads the model's files and opens its sockets.
 */
import { type ChildProcess, spawn } from "node:child_process";
import type { EngineOptions, LifecycleOptions, ManagerOptions } from "../core/options.ts";
import { selfCommand } from "../core/self_command.ts";
import { ARGUMENTS_FROM_STDIN } from "./given_arguments.ts";
import { runsInProcess } from "./runs_in_process.ts";
import { SUCCESSION_VARIABLE } from "./upgrade/succession.ts";

const STDERR = 2;

/** Variables with which another process gives sockets and duties to this process, and to no instance. */
const personal = [SUCCESSION_VARIABLE, "LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC"];

/** Starts a process for the first instance, where the options and the environment call for one. */
export function prepareInstance(
  options: EngineOptions & LifecycleOptions & ManagerOptions,
): PreparedInstance | undefined {
  if (options.initialInstances === 0 || runsInProcess(options)) return undefined;
  // These are not taken from the environment yet, and a child would inherit them.
  if (personal.some((name) => Deno.env.has(name))) return undefined;
  return new PreparedInstance();
}

/** Its output goes to stderr. It ends by itself when this process does, however that ends. */
export class PreparedInstance {
  #child: ChildProcess | null;

  /** @param command the command that starts this program */
  constructor(command: readonly string[] = selfCommand()) {
    const [program, ...args] = command;
    const stdio = ["pipe", STDERR, STDERR] as ["pipe", number, number];
    this.#child = spawn(program, [...args, "instance", ARGUMENTS_FROM_STDIN], { stdio });
    // One that does not start, or ends early, is not taken; or its exit is seen as any instance's.
    this.#child.on("error", () => this.#child = null);
    this.#child.stdin!.on("error", () => {});
  }

  /**
   * Hands over the process, which goes on as `llumnix instance ARGV`.
   * @returns null when there is none any more
   */
  take(argv: readonly string[]): ChildProcess | null {
    const child = this.#child;
    this.#child = null;
    if (child?.pid === undefined || child.exitCode !== null || child.signalCode !== null) {
      return null;
    }
    child.stdin!.end(JSON.stringify(argv));
    return child;
  }

  /** Ends the process if nobody has taken it. */
  close(): void {
    this.#child?.stdin?.end();
    this.#child = null;
  }
}
