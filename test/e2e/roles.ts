/** Manager, API server and instances as processes of their own. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { adminEnv, checkFiles, type Cluster, isReady, small } from "./cluster.ts";
import { freePort } from "../free_port.ts";
import { Program } from "./harness.ts";

/** Processes of one user find each other by this directory. It has to be empty in the end. */
export class User implements AsyncDisposable {
  readonly directory = Deno.makeTempDirSync();
  readonly #programs: Program[] = [];

  /** @param env for all its programs */
  constructor(private readonly env: Readonly<Record<string, string>> = {}) {}

  start(role: string, ...args: string[]): Program {
    return this.startBy([], role, ...args);
  }

  /** @param launcher a command that starts the program, such as one that does so on another host */
  startBy(launcher: readonly string[], role: string, ...args: string[]): Program {
    const program = new Program([role, ...args], {
      launcher,
      env: { XDG_RUNTIME_DIR: this.directory, ...adminEnv, ...this.env },
    });
    this.#programs.push(program);
    return program;
  }

  manager(...args: string[]): Program {
    return this.start("manager", ...small, ...args);
  }

  /** Starts an API server and waits until all instances serve. */
  async cluster(...args: string[]): Promise<Cluster> {
    const port = freePort();
    const url = `http://127.0.0.1:${port}`;
    const program = this.start("api-server", "--host", "127.0.0.1", "--port", `${port}`, ...args);
    try {
      await program.waitUntil("it was ready", () => isReady({ url }).catch(() => false));
    } catch (error) {
      const said = this.#programs.map(({ stderr }) => stderr.split("\n").slice(-20).join("\n"));
      throw new Error(`it was not ready; all programs said:\n${said.join("\n--\n")}`, {
        cause: error,
      });
    }
    const managerAddress = `unix:${join(this.directory, "llumnix/manager.sock")}`;
    return { program, url, managerAddress, [Symbol.asyncDispose]: () => Promise.resolve() };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const problems: unknown[] = [];
    for (const program of this.#programs.reverse()) {
      await Promise.try(checkFiles, program).catch((error) => problems.push(error));
      await program[Symbol.asyncDispose]().catch((error) => problems.push(error));
    }
    const left = [...Deno.readDirSync(join(this.directory, "llumnix"))].map(({ name }) => name);
    await Deno.remove(this.directory, { recursive: true });
    if (problems.length > 0) throw problems[0];
    assert.deepEqual(left, [], "files were left behind");
  }
}
