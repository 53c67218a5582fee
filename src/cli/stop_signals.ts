/** SIGTERM and SIGINT: the first asks for an orderly stop, the second for a stop at once. */
export class StopSignals implements Disposable {
  readonly #first = Promise.withResolvers<string>();
  readonly #second = Promise.withResolvers<string>();
  readonly #listeners = new Map<Deno.Signal, () => void>();

  constructor() {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const listener = () => this.#receive(signal);
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
