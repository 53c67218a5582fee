/**
 * Services of the host's systemd that run this program. They run as users of their own, so that other users reach
 * neither their control sockets nor their processes: systemd upgrades them.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

export interface ServiceUnit {
  /** With ".service". */
  readonly name: string;
  /** What upgrades it, once the executable was replaced. */
  readonly command: string;
}

/** The name of a process that serves, which /proc shows to all users. */
const PROCESS_NAME = "llumnix";

/** Empty where there is no /proc. */
export function serviceUnits(proc = "/proc"): ServiceUnit[] {
  const roles = new Map<string, Set<string>>();
  for (const pid of pidsIn(proc)) {
    if (textOf(join(proc, pid, "comm")).trim() !== PROCESS_NAME) continue;
    const name = unitOf(textOf(join(proc, pid, "cgroup")));
    if (name === null) continue;
    const words = textOf(join(proc, pid, "cmdline")).split("\0");
    roles.set(name, (roles.get(name) ?? new Set()).add(words[1] ?? ""));
  }
  return [...roles].map(([name, roles]) => {
    const isRestarted = [...roles].every((role) => role === "instance");
    return { name, command: `systemctl ${isRestarted ? "restart" : "reload"} ${name}` };
  }).sort((a, b) => a.name < b.name ? -1 : 1);
}

/** The host's unit that a process belongs to, by cgroups(7) of either version; null: none, or a user's. */
function unitOf(cgroup: string): string | null {
  return /^(?:0:|\d+:name=systemd):\/system\.slice\/(?:[^/\n]+\.slice\/)*([^/\n]+\.service)/m
    .exec(cgroup)?.[1] ?? null;
}

function pidsIn(proc: string): string[] {
  try {
    return readdirSync(proc).filter((name) => /^\d+$/.test(name));
  } catch {
    return [];
  }
}

/** Empty: the process has ended. */
function textOf(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}
