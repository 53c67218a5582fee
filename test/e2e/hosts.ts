/** A second host for tests: a network namespace, with a link to the one in which the tests run. */
import assert from "node:assert/strict";

/** RFC 2544 reserves these addresses for network tests: no real host has one. */
const NETWORK = "198.18";

/** The link's ends. Disposing of it removes both. */
export class TwoHosts implements AsyncDisposable {
  private constructor(
    private readonly name: string,
    /** IP address of the host on which the tests run. */
    readonly first: string,
    /** IP address of the other one. */
    readonly second: string,
  ) {}

  /** Why this system cannot have a second host; null if it can. */
  static problem(): string | null {
    if (Deno.build.os !== "linux") return "needs Linux";
    const name = `llumnix-probe-${Deno.pid}`;
    const problem = tryIp("netns", "add", name);
    if (problem !== null) return problem;
    try {
      return tryIp("-n", name, "link", "set", "lo", "up");
    } finally {
      tryIp("netns", "del", name);
    }
  }

  static async start(): Promise<TwoHosts> {
    const name = `llumnix-${Deno.pid}`;
    const subnet = `${NETWORK}.${Deno.pid % 256}`;
    const hosts = new TwoHosts(name, `${subnet}.1`, `${subnet}.2`);
    const [near, far] = [`llx${Deno.pid}a`, `llx${Deno.pid}b`];
    ip("netns", "add", name);
    try {
      ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name);
      ip("addr", "add", `${hosts.first}/30`, "dev", near);
      ip("link", "set", near, "up");
      ip("-n", name, "addr", "add", `${hosts.second}/30`, "dev", far);
      ip("-n", name, "link", "set", far, "up");
      ip("-n", name, "link", "set", "lo", "up");
      return hosts;
    } catch (error) {
      await hosts[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** Starts a command on the second host. */
  get onSecond(): readonly string[] {
    return ["ip", "netns", "exec", this.name];
  }

  /** The link ends with the namespace. */
  [Symbol.asyncDispose](): Promise<void> {
    ip("netns", "del", this.name);
    return Promise.resolve();
  }
}

function ip(...args: string[]): void {
  assert.equal(tryIp(...args), null, `ip ${args.join(" ")}`);
}

function tryIp(...args: string[]): string | null {
  try {
    const { success, stderr } = new Deno.Command("ip", { args, stderr: "piped" }).outputSync();
    return success ? null : `ip ${args[0]}: ${new TextDecoder().decode(stderr).trim()}`;
  } catch (error) {
    return `ip: ${(error as Error).message}`;
  }
}
