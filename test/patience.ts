/**
 * Waiting in tests that run on the real clock. A machine that is busy with other things may stand still for
 * seconds, so no test says how fast something must be: it says what must happen, and gives up after
 * {@linkcode PATIENCE_MS}. What must not be waited for takes far longer than that.
 */
import assert from "node:assert/strict";

/** Until a test gives up. Mutants of `scripts/nccl_mutants.ts` fail on purpose, and sooner. */
export const PATIENCE_MS = Number(Deno.env.get("LLUMNIX_TEST_PATIENCE_MS") ?? 30_000);

/** Longer than any test waits: for delays of which a test shows that nothing waits for them. */
export const ENDLESS_MS = 600_000;

export const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

/**
 * Waits until something is true.
 * @param what it is, for the message of the failure
 * @param everyMs how often to look
 */
export async function until(
  isTrue: () => boolean | Promise<boolean>,
  what: string | (() => string),
  everyMs = 2,
): Promise<void> {
  const endMs = performance.now() + PATIENCE_MS;
  while (!await isTrue()) {
    const isOver = performance.now() > endMs;
    if (isOver) assert.fail(`waited ${PATIENCE_MS} ms until ${textOf(what)}`);
    await pause(everyMs);
  }
}

/** Waits for a promise, which settles sooner than anything that takes {@linkcode ENDLESS_MS}. */
export async function within<T>(promise: Promise<T>, what: string | (() => string)): Promise<T> {
  const limit = Promise.withResolvers<never>();
  const timer = setTimeout(
    () =>
      limit.reject(
        new assert.AssertionError({ message: `no end within ${PATIENCE_MS} ms: ${textOf(what)}` }),
      ),
    PATIENCE_MS,
  );
  try {
    return await Promise.race([promise, limit.promise]);
  } finally {
    clearTimeout(timer);
  }
}

/** Whether a promise has settled, asked without waiting for it. */
export function watch(promise: Promise<unknown>): { readonly isSettled: boolean } {
  const state = { isSettled: false };
  const settle = () => void (state.isSettled = true);
  promise.then(settle, settle);
  return state;
}

function textOf(what: string | (() => string)): string {
  return typeof what === "string" ? what : what();
}
