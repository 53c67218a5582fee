/** How a process that needs a manager waits for one. */
import { type Clock, sleep } from "./clock.ts";
import { LlumnixError, noManagerError } from "./errors.ts";

/** Processes that are started together need time to find each other. */
export const MANAGER_WAIT_MS = 60_000;
const RETRY_MS = 100;

export interface ManagerWait {
  readonly address: string;
  readonly clock: Clock;
  /** 0: the first attempt is the only one. */
  readonly timeoutMs: number;
  /** Called once, when the first attempt has failed and others follow. */
  readonly onWait?: () => void;
  /** Whether the caller has stopped waiting. */
  readonly isGivenUp?: () => boolean;
}

/**
 * Repeats an attempt to reach a manager until one answers.
 * @throws {UnavailableError} none did in time
 * @throws any other error of the attempt: the manager answered with it
 */
export async function untilManagerAnswers<T>(
  { address, clock, timeoutMs, onWait, isGivenUp = () => false }: ManagerWait,
  attempt: () => Promise<T>,
): Promise<T> {
  const untilMs = clock.nowMs() + timeoutMs;
  for (let isFirst = true;; isFirst = false) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof LlumnixError) || error.kind !== "unavailable") throw error;
      if (clock.nowMs() >= untilMs || isGivenUp()) throw noManagerError(address, error);
      if (isFirst) onWait?.();
      await sleep(clock, RETRY_MS);
      if (isGivenUp()) throw noManagerError(address, error);
    }
  }
}
