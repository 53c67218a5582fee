/** Signals that stop a role, and SIGHUP, which has a role without a terminal reopen its log file. */
import { reopenLogFile } from "../core/log.ts";

/**
 * The signals that stop the process: SIGTERM, SIGINT, and SIGHUP if the terminal hangs up. The first
 * signal asks for an orderly stop, the second for an immediate one.
 */
export class StopSignals implements Disposable {
  readonly #first = Promise.withResolvers<string>();
  readonly #second = Promise.withResolvers<string>();
  readonly #listeners = new Map<Deno.Signal, () => void>();

  constructor() {
    const listeners = [
      ["SIGTERM", () => this.#receive("SIGTERM")],
      ["SIGINT", () => this.#receive("SIGINT")],
      ["SIGHUP", hangupListener(() => this.#receive("SIGHUP"))],
    ] as const;
    for (const [signal, listener] of listeners) {
      Deno.addSignalListener(signal, listener);
      this.#listeners.set(signal, listener);
    }
  }

  get first(): Promise<string> {
    return this.#first.promise;
  }

  get second(): Promise<string> {
    return this.#second.promise;
  }

  /** Gives the signals their default meaning again. */
  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
  }

  #isStopping = false;

  #receive(signal: Deno.Signal): void {
    if (this.#isStopping) this.#second.resolve(signal);
    this.#isStopping = true;
    this.#first.resolve(signal);
  }
}

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
