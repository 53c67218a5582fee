/** What becomes of a process in which an error was thrown that no code expected. */
import { LlumnixError } from "../core/errors.ts";
import type { Log } from "../core/log.ts";

/**
 * Ends this process with exit code 1 on the first uncaught error, which is logged with its stack. Nothing
 * is closed and no other process is told, as after `kill -9`: instances outlive a manager that ends so.
 *
 * @returns ends the process too, for errors of promises that somebody waits for, unless the error is
 *   deliberate
 */
export function exitOnDefects(log: Log): (error: unknown) => void {
  const exit = (error: unknown) => {
    log.error("ending after a defect", { error });
    Deno.exit(1);
  };
  globalThis.addEventListener("error", (event) => {
    event.preventDefault();
    exit(event.error);
  });
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    exit(event.reason);
  });
  return (error) => {
    if (!(error instanceof LlumnixError)) exit(error);
  };
}
