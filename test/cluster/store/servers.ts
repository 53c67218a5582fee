/**
 * Real servers of lease stores for tests: etcd and nats-server, as Debian packages them. They are found by
 * `LLUMNIX_STORE_SERVERS`, a directory under which a package was unpacked (`dpkg -x`), or on PATH.
 */
import { join } from "node:path";

/** A program, or why it is not there. */
export type Found = { readonly path: string } | { readonly missing: string };

export function findServer(name: string): Found {
  const root = Deno.env.get("LLUMNIX_STORE_SERVERS");
  const unpacked = root ? ["usr/bin", "usr/sbin", ""].map((part) => join(root, part)) : [];
  const onPath = (Deno.env.get("PATH") ?? "").split(":").filter((part) => part !== "");
  for (const directory of [...unpacked, ...onPath]) {
    const path = join(directory, name);
    try {
      if (Deno.statSync(path).isFile) return { path };
    } catch {
      // Not here.
    }
  }
  return { missing: `needs ${name} on PATH or below LLUMNIX_STORE_SERVERS` };
}

export function whyMissing(found: Found): string | null {
  return "missing" in found ? found.missing : null;
}

/** @throws {Error} it is missing */
export function pathOf(found: Found): string {
  if ("missing" in found) throw new Error(found.missing);
  return found.path;
}

/** A server's process, which is stopped, continued and started again at the same place. */
export class ServerProcess {
  #child: Deno.ChildProcess | null = null;

  constructor(private readonly program: string, private readonly args: readonly string[]) {}

  start(): void {
    this.#child = new Deno.Command(this.program, {
      args: [...this.args],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  /** It answers nothing any more, and its connections stay open. */
  async silence(): Promise<void> {
    const child = this.#child;
    if (child === null) return;
    child.kill("SIGSTOP");
    // The signal is there at once, and each thread stops a little later.
    while (!isStopped(child.pid)) await new Promise((resolve) => setTimeout(resolve, 5));
  }

  unsilence(): void {
    this.#child?.kill("SIGCONT");
  }

  /** Ends at once, if it has not ended by itself. */
  async stop(): Promise<void> {
    const child = this.#child;
    this.#child = null;
    if (child === null) return;
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended with its host.
    }
    await child.status;
  }
}

/** All threads of a process are stopped (proc(5), field 3 of stat). Elsewhere than on Linux: unknown. */
function isStopped(pid: number): boolean {
  if (Deno.build.os !== "linux") return true;
  return [...Deno.readDirSync(`/proc/${pid}/task`)].every(({ name }) => {
    const stat = Deno.readTextFileSync(`/proc/${pid}/task/${name}/stat`);
    return stat.slice(stat.lastIndexOf(")") + 2).startsWith("T");
  });
}
