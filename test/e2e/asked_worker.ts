/** Clients in a thread of their own, which get one order at a time and answer it with a report. */
export class AskedWorker<Order, Report> implements Disposable {
  readonly #worker: Worker;

  /** The worker has said that it can take its first order. */
  readonly ready: Promise<unknown>;

  /** @param module posts a message when it is ready, and one report for each order */
  constructor(module: URL) {
    this.#worker = new Worker(module, { type: "module" });
    this.ready = this.#next();
  }

  /** @throws what the worker throws */
  ask(order: Order): Promise<Report> {
    this.#worker.postMessage(order);
    return this.#next() as Promise<Report>;
  }

  [Symbol.dispose](): void {
    this.#worker.terminate();
  }

  #next(): Promise<unknown> {
    return new Promise((resolve, reject) => {
      this.#worker.onmessage = ({ data }) => resolve(data);
      this.#worker.onerror = (event) => {
        event.preventDefault();
        reject(new Error(event.message));
      };
    });
  }
}
