/**
 * The signals that stop the process: SIGTERM, SIGINT, and SIGHUP unless it is ignored (nohup). The first
 * signal asks for an orderly stop, the second for an immediate one.
 */
export class StopSignals implements Disposable {
  readonly #first = Promise.withResolvers<string>();
  readonly #second = Promise.withResolvers<string>();
  readonly #listeners = new Map<Deno.Signal, () => void>();

  constructor() {
    // Deno 2.9 handles SIGHUP from the first listener for any signal on, even if it was ignored before.
    const isIgnored = ignoresHangups();
    for (const signal of ["SIGTERM", "SIGINT", "SIGHUP"] as const) {
      const listener = signal === "SIGHUP" && isIgnored ? () => {} : () => this.#receive(signal);
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
