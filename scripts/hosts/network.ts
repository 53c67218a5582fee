/**
 * Several hosts on one machine: network namespaces of Linux that share a network. Needs root and `ip`.
 *
 * Each host also has a link of its own to the machine, by which clients and measurements reach it. That
 * link is never cut: what is cut is the network between the hosts.
 */
import { findServer, pathOf, whyMissing } from "../../test/cluster/store/servers.ts";

/** RFC 2544 reserves these addresses for network tests: no real host has one. */
const NETWORK = "198.19";
/** Hosts of one network. */
const MAX_HOSTS = 8;
const nft = findServer("nft");

/** `bridge`: as fast as the machine. `switch`: a process that can delay, lose and cut each way. */
export type NetworkKind = "bridge" | "switch";

/** What a switch does with what one host sends to another. */
export interface Path {
  readonly delayMs: number;
  /** Share of packets that are lost, 0 to 1. */
  readonly loss: number;
}

/** Hosts are numbered from 1. Disposing of the network removes everything that it made. */
export class HostNetwork implements AsyncDisposable {
  /** Begins the names of all that it makes. */
  readonly #prefix = `llh${Deno.pid % 100_000}`;
  /** Third part of the addresses of the network; the links to the machine have the next. */
  readonly #subnet = Deno.pid % 127 * 2;
  #switch: Switch | null = null;

  private constructor(readonly numHosts: number, readonly kind: NetworkKind) {}

  /** Why this system cannot have such hosts; null if it can. */
  static async problem(kind: NetworkKind): Promise<string | null> {
    if (Deno.build.os !== "linux") return "needs Linux";
    const name = `llh-probe-${Deno.pid}`;
    try {
      await ip("netns", "add", name);
      await ip("netns", "del", name);
      if (kind === "switch") Deno.openSync("/dev/net/tun", { read: true, write: true }).close();
      return null;
    } catch (error) {
      return (error as Error).message;
    }
  }

  /** Why hosts cannot be separated by packet filters; null if they can. */
  static filterProblem(): string | null {
    return whyMissing(nft);
  }

  static async start(numHosts: number, kind: NetworkKind): Promise<HostNetwork> {
    if (numHosts > MAX_HOSTS) throw new Error(`${numHosts} hosts: expected at most ${MAX_HOSTS}`);
    const network = new HostNetwork(numHosts, kind);
    try {
      await network.#start();
      return network;
    } catch (error) {
      await network[Symbol.asyncDispose]();
      throw error;
    }
  }

  /** IP address of a host, for the other hosts and for this machine. */
  addressOf(host: number): string {
    return `${NETWORK}.${this.#subnet}.${host}`;
  }

  /** Begins a command that runs on a host. */
  launcherOf(host: number): readonly string[] {
    return ["ip", "netns", "exec", this.#nameOf(host)];
  }

  /** Processes of a host. */
  async pidsOf(host: number): Promise<number[]> {
    const text = await ip("netns", "pids", this.#nameOf(host));
    return text.split("\n").filter((line) => line !== "").map(Number);
  }

  /** Takes a host off the network, as if its cable were pulled: no connection is closed. */
  async unplug(host: number): Promise<void> {
    if (this.#switch) return this.#switch.cut(host, "*").then(() => this.#switch!.cut("*", host));
    await ip("-n", this.#nameOf("net"), "link", "set", `p${host}`, "down");
  }

  async plug(host: number): Promise<void> {
    if (this.#switch) {
      await this.#switch.set(host, "*", this.#path);
      return await this.#switch.set("*", host, this.#path);
    }
    await ip("-n", this.#nameOf("net"), "link", "set", `p${host}`, "up");
  }

  /** A host hears nothing of others any more, and they hear nothing of it, by packet filters of the host. */
  async filter(host: number, others: readonly number[]): Promise<void> {
    const from = others.map((other) => this.addressOf(other)).join(", ");
    const rules = (hook: string, side: string) =>
      `chain ${hook} {\n type filter hook ${hook} priority 0; policy accept;\n` +
      ` ip ${side} { ${from} } drop\n }\n`;
    await this.#nft(
      host,
      `table ip part {\n ${rules("input", "saddr")} ${rules("output", "daddr")}}\n`,
    );
  }

  async unfilter(host: number): Promise<void> {
    await this.#nft(host, "delete table ip part\n");
  }

  /** What `from` sends does not reach `to`; the other way stays. Needs a switch. */
  async cut(from: number | "*", to: number | "*"): Promise<void> {
    await this.#switch!.cut(from, to);
  }

  #path: Path = { delayMs: 0, loss: 0 };

  /** Delay and loss between all hosts; also ends every cut. Needs a switch. */
  async setPaths(path: Path): Promise<void> {
    this.#path = path;
    await this.#switch!.set("*", "*", path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#switch?.close();
    // A namespace goes in its own time, and its end of a link with it: the next network uses the same names.
    for (const host of this.#hosts) await ip("link", "del", this.#linkOf(host)).catch(() => {});
    for (const name of [...this.#hosts.map((host) => this.#nameOf(host)), this.#nameOf("net")]) {
      await ip("netns", "del", name).catch(() => {});
    }
  }

  get #hosts(): number[] {
    return Array.from({ length: this.numHosts }, (_, i) => i + 1);
  }

  #nameOf(host: number | "net"): string {
    return `${this.#prefix}-${host}`;
  }

  /** This machine's end of the link to a host. */
  #linkOf(host: number): string {
    return `${this.#prefix}m${host}`;
  }

  async #start(): Promise<void> {
    const names = this.#hosts.map((host) => this.#nameOf(host));
    for (const name of names) {
      await ip("netns", "add", name);
      await ip("-n", name, "link", "set", "lo", "up");
    }
    if (this.kind === "switch") this.#switch = await Switch.start(this.#prefix, names);
    else await this.#addBridge();
    for (const host of this.#hosts) {
      const name = this.#nameOf(host);
      await ip("-n", name, "address", "add", `${this.addressOf(host)}/24`, "dev", "eth0");
      await ip("-n", name, "link", "set", "eth0", "up");
      await this.#addLinkToMachine(host);
    }
  }

  async #addBridge(): Promise<void> {
    const net = this.#nameOf("net");
    await ip("netns", "add", net);
    await ip("-n", net, "link", "add", "br0", "type", "bridge", "forward_delay", "0");
    await ip("-n", net, "link", "set", "br0", "up");
    for (const host of this.#hosts) {
      const peer = ["type", "veth", "peer", "name", "eth0", "netns", this.#nameOf(host)];
      await ip("-n", net, "link", "add", `p${host}`, ...peer);
      await ip("-n", net, "link", "set", `p${host}`, "master", "br0", "up");
    }
  }

  async #addLinkToMachine(host: number): Promise<void> {
    const name = this.#nameOf(host), near = this.#linkOf(host);
    const base = `${NETWORK}.${this.#subnet + 1}`;
    const [nearIp, farIp] = [`${base}.${4 * host + 1}`, `${base}.${4 * host + 2}`];
    await ip("link", "add", near, "type", "veth", "peer", "name", "machine", "netns", name);
    await ip("address", "add", `${nearIp}/30`, "dev", near);
    await ip("link", "set", near, "up");
    await ip("-n", name, "address", "add", `${farIp}/30`, "dev", "machine");
    await ip("-n", name, "link", "set", "machine", "up");
    await ip("route", "add", `${this.addressOf(host)}/32`, "via", farIp, "dev", near);
  }

  async #nft(host: number, commands: string): Promise<void> {
    const program = pathOf(nft);
    const [command, ...args] = [...this.launcherOf(host), program, "-f", "-"];
    // Where the package was only unpacked, its libraries are beside it.
    const libraries = new URL("../lib/x86_64-linux-gnu", `file://${program}`).pathname;
    await run(command, args, commands, { LD_LIBRARY_PATH: libraries });
  }
}

/** The process of `switch.ts`. */
class Switch {
  readonly #child: Deno.ChildProcess;
  readonly #commands: WritableStreamDefaultWriter<Uint8Array<ArrayBuffer>>;
  readonly #answers: AsyncIterator<string>;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#commands = child.stdin.getWriter();
    this.#answers = lines(child.stdout);
  }

  static async start(prefix: string, namespaces: readonly string[]): Promise<Switch> {
    const script = new URL("./switch.ts", import.meta.url).pathname;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", script, prefix, ...namespaces],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const one = new Switch(child);
    await one.#answer();
    return one;
  }

  async cut(from: number | "*", to: number | "*"): Promise<void> {
    await this.#do(`cut ${from} ${to}`);
  }

  async set(from: number | "*", to: number | "*", { delayMs, loss }: Path): Promise<void> {
    await this.#do(`set ${from} ${to} ${delayMs} ${loss}`);
  }

  async close(): Promise<void> {
    await this.#commands.close().catch(() => {});
    await this.#child.status;
  }

  async #do(command: string): Promise<void> {
    await this.#commands.write(new TextEncoder().encode(`${command}\n`));
    await this.#answer();
  }

  async #answer(): Promise<void> {
    const { value, done } = await this.#answers.next();
    if (done || value !== "done") throw new Error(`the switch said ${value ?? "nothing"}`);
  }
}

async function* lines(bytes: ReadableStream<Uint8Array<ArrayBuffer>>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of bytes.pipeThrough(new TextDecoderStream())) {
    const parts = (rest + text).split("\n");
    rest = parts.pop()!;
    yield* parts;
  }
}

async function ip(...args: string[]): Promise<string> {
  return await run("ip", args);
}

async function run(
  command: string,
  args: readonly string[],
  input = "",
  env: Record<string, string> = {},
): Promise<string> {
  const child = new Deno.Command(command, {
    args: [...args],
    env,
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  await writer.write(new TextEncoder().encode(input)).catch(() => {});
  await writer.close().catch(() => {});
  const { success, stdout, stderr } = await child.output();
  const said = new TextDecoder().decode(stderr).trim();
  if (!success) throw new Error(`${command} ${args.join(" ")}: ${said}`);
  return new TextDecoder().decode(stdout);
}
