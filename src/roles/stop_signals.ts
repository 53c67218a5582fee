import { hangupListener } from "./hangup.ts";

/**
 * A signal within this time of the first is an echo of it: `npx`, `deno task` and shells pass on a signal that
 * the terminal sends to their whole process group as well. Nobody presses a key twice as fast.
 */
const ECHO_MS = 300;

/**
 * The signals that stop the process: SIGTERM, SIGINT, and SIGHUP if the terminal hangs up. The first
 * signal asks for an orderly stop, the second for an immediate one. An echo of the first is not a second one.
 */
export class StopSignals implements Disposable {
  readonly #first = Promise.withResolvers<string>();
  readonly #second = Promise.withResolvers<string>();
  readonly #listeners = new Map<Deno.Signal, () => void>();
  #firstMs: number | null = null;

  /** @param nowMs a clock that never goes back, in milliseconds */
  constructor(private readonly nowMs: () => number = () => performance.now()) {
    const listeners = [
      ["SIGTERM", () => this.receive("SIGTERM")],
      ["SIGINT", () => this.receive("SIGINT")],
      ["SIGHUP", hangupListener(() => this.receive("SIGHUP"))],
    ] as const;
    for (const [signal, listener] of listeners) {
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
