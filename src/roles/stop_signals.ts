/**
 * A signal within this time of the first is an echo of it: `npx`, `deno task` and shells pass on a signal that
 * the terminal sends to their whole process group as well. Nobody presses a key twice as fast.
 */
const ECHO_MS = 300;

/**
 * The signals that stop the process: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup). The first
 * signal asks for an orderly stop, the second for an immediate one. An echo of the first is not a second one.
 */
export class StopSignals implements Disposable {
  readonly #first = Promise.withResolvers<string>();
  readonly #second = Promise.withResolvers<string>();
  readonly #listeners = new Map<Deno.Signal, () => void>();
  #firstMs: number | null = null;

  /** @param nowMs a clock that never goes back, in milliseconds */
  constructor(private readonly nowMs: () => number = () => performance.now()) {
    // Deno 2.9 handles SIGHUP from the first listener for any signal on, even if it was ignored before.
    const isIgnored = ignoresHangups();
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      const listener = signal === "SIGHUP" && isIgnored ? () => {} : () => this.receive(signal);
      Deno.addSignalListener(signal, listener);
      this.#listeners.set(signal, listener);
    }
  }

  /** Resolves with the name of the first signal. */
  get first(): Promise<string> {
    return this.#first.promise;
  }

  /** Resolves with the name of the second signal. */
  get second(): Promise<string> {
    return this.#second.promise;
  }

  /** Takes a signal. */
  receive(signal: Deno.Signal): void {
    const nowMs = this.nowMs();
    if (this.#firstMs === null) {
      this.#firstMs = nowMs;
      this.#first.resolve(signal);
    } else if (nowMs - this.#firstMs >= ECHO_MS) this.#second.resolve(signal);
  }

  /** Gives the signals their default meaning again. */
  [Symbol.dispose](): void {
    for (const [signal, listener] of this.#listeners) Deno.removeSignalListener(signal, listener);
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
