/** What must not happen whatever a peer sends: an uncaught error, or one that was caught and logged. */
import { setupLogging } from "../../src/core/log.ts";

export class DefectWatch implements Disposable {
  readonly found: string[] = [];
  readonly #writeSync = Deno.stderr.writeSync;

  constructor() {
    setupLogging({ level: "error", filename: null });
    Deno.stderr.writeSync = (bytes) => {
      this.found.push(new TextDecoder().decode(bytes));
      return bytes.length;
    };
    globalThis.addEventListener("error", this.#onError);
    globalThis.addEventListener("unhandledrejection", this.#onRejection);
  }

  /** @throws {Error} something was found */
  check(what: string): void {
    if (this.found.length > 0) throw new Error(`${what}:\n${this.found.join("\n")}`);
  }

  [Symbol.dispose](): void {
    Deno.stderr.writeSync = this.#writeSync;
    globalThis.removeEventListener("error", this.#onError);
    globalThis.removeEventListener("unhandledrejection", this.#onRejection);
  }

  readonly #onError = (event: ErrorEvent) => {
    event.preventDefault();
    this.found.push(`uncaught: ${event.error?.stack ?? event.message}`);
  };

  readonly #onRejection = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    this.found.push(`uncaught: ${event.reason?.stack ?? event.reason}`);
  };
}
