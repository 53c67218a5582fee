import { type ChildProcess, spawn } from "node:child_process";
import { HostProcess } from "../core/host_process.ts";
import { selfCommand } from "../core/self_command.ts";
import { parseAddress, tcpHost } from "../bus/address.ts";
import type { Address } from "../bus/bus.ts";
import { listenerPid } from "../bus/unix_trust.ts";
import { socketPath } from "../instance/instance_socket.ts";
import type { InstanceId } from "../core/protocol/generate.ts";
import type {
  AdoptedInstance,
  ExitStatus,
  InstanceLauncher,
  InstanceProcess,
  LaunchedInstance,
  LaunchRequest,
} from "../manager/fleet/launcher.ts";
import type { PreparedInstance } from "./prepared_instance.ts";

export interface ProcessLauncherOptions {
  /** Instances that will share this host. */
  readonly hostShare: number;
  /** Engine arguments, passed on unchanged. */
  readonly engineArgv: readonly string[];
  /** The command that starts this program. Default: the one that started this process. */
  readonly command?: readonly string[];
  /** Becomes the first instance. */
  readonly prepared?: PreparedInstance;
}

const STDERR = 2;

/**
 * Starts each instance as a child process: this program, in the role `instance`. Its output goes to
 * stderr. An instance ends by itself when it loses the manager, so none is left over when this process
 * is killed.
 */
export class ProcessLauncher implements InstanceLauncher {
  constructor(private readonly options: ProcessLauncherOptions) {}

  refusal(managerAddress: Address, avoidHosts: ReadonlySet<string>): string | null {
    return refusalOn(tcpHost(managerAddress) ?? Deno.hostname(), avoidHosts);
  }

  async launch(request: LaunchRequest): Promise<LaunchedInstance> {
    const { instanceId, managerAddress, numBlocks, startedBy } = request;
    const argv = ["--instance-id", instanceId, "--manager-address", managerAddress];
    argv.push("--started-by", startedBy, "--host-share", String(this.options.hostShare));
    argv.push(...this.options.engineArgv);
    if (numBlocks !== null) argv.push("--num-gpu-blocks-override", String(numBlocks));
    const prepared = this.options.prepared?.take(argv) ?? null;
    const child = prepared ?? this.#start(argv);
    let hasExited = false;
    const exited = new Promise<ExitStatus>((resolve) => {
      child.once("exit", (code, signal) => {
        hasExited = true; // from now on its pid may belong to another process
        resolve({ code, signal });
      });
    });
    if (prepared === null) await spawned(child);
    const stop = (signal: "SIGTERM" | "SIGKILL") => {
      if (!hasExited) child.kill(signal);
    };
    return { pid: child.pid!, exited, stop };
  }

  #start(argv: readonly string[]): ChildProcess {
    const [program, ...args] = this.options.command ?? selfCommand();
    // Deno.Command cannot send a child's stdout to our stderr.
    return spawn(program, [...args, "instance", ...argv], { stdio: ["ignore", STDERR, STDERR] });
  }

  /**
   * Only the process at the other end of the instance's own connection: what an instance says of its pid
   * could name any process, and have this one kill it.
   */
  adopt(
    { pid, processStart }: InstanceProcess,
    peerPid: number | null,
  ): AdoptedInstance | null {
    if (processStart === undefined || pid !== peerPid || pid === Deno.pid) return null;
    const found = HostProcess.started(pid, processStart);
    return found && { hasEnded: () => found.hasEnded(), stop: (signal) => found.signal(signal) };
  }

  /** The process that listens at the instance's socket, and no other. */
  async killOrphan(instanceId: InstanceId, managerAddress: Address): Promise<boolean> {
    const manager = parseAddress(managerAddress);
    if (manager.scheme !== "unix") return false;
    const pid = await listenerPid(socketPath(manager.path, instanceId));
    if (pid === null || pid === Deno.pid) return false;
    const start = HostProcess.startOf(pid);
    return start !== undefined && HostProcess.started(pid, start)?.signal("SIGKILL") === true;
  }
}

/** @param hostName of the host where instances would start, as they name it */
export function refusalOn(hostName: string, avoidHosts: ReadonlySet<string>): string | null {
  if (!avoidHosts.has(hostName)) return null;
  return `the host ${hostName} is drained, and instances start there: keep the host first`;
}

function spawned(child: ChildProcess): Promise<void> {
  return new Promise((resolve, reject) => {
    child.once("spawn", resolve);
    child.once("error", reject);
  });
}
