/** SIGHUP: a terminal that hangs up stops a role, and a role without a terminal reopens its log file. */
import { reopenLogFile } from "../core/log.ts";

/**
 * A listener for SIGHUP. It calls `stop` if this process has a terminal, because the terminal has hung
 * up; else it opens the log file anew, as logrotate expects. A process under nohup never stops on SIGHUP.
 */
export function hangupListener(stop: () => void): () => void {
  // Asked before any listener is there: the kernel takes the terminal away together with the signal, and
  // Deno 2.9 handles SIGHUP from the first listener for any signal on, even if it was ignored before.
  return hasTerminal() && !ignoresHangups() ? stop : reopenLogFile;
}

/** Whether a terminal controls this process. */
function hasTerminal(): boolean {
  try {
    // proc_pid_stat(5): after the name in parentheses come state, ppid, pgrp, session, tty_nr.
    const stat = Deno.readTextFileSync("/proc/self/stat");
    return stat.slice(stat.lastIndexOf(")") + 2).split(" ")[4] !== "0";
  } catch {
    return [Deno.stdin, Deno.stdout, Deno.stderr].some((stream) => stream.isTerminal());
  }
}

/** Whether this process was started with SIGHUP ignored; false if unknown. */
function ignoresHangups(): boolean {
  try {
    const status = Deno.readTextFileSync("/proc/self/status");
    const ignored = /^SigIgn:\s*([0-9a-f]+)/m.exec(status)?.[1] ?? "0";
    return (BigInt(`0x${ignored}`) & 1n) !== 0n; // SIGHUP is signal 1
  } catch {
    return false;
  }
}
