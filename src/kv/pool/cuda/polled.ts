import { setImmediate } from "node:timers";

/** Polling does not pause for so long: small copies take less. */
const EAGER_MS = 0.3;

/**
 * Resolves when `isDone` returns true. It polls without a pause at first, then every millisecond: to wait
 * inside CUDA would stop the event loop.
 */
export async function polled(isDone: () => boolean): Promise<void> {
  const startMs = performance.now();
  while (!isDone()) {
    const isEager = performance.now() - startMs < EAGER_MS;
    await new Promise<void>((resolve) => isEager ? setImmediate(resolve) : setTimeout(resolve, 1));
  }
}
