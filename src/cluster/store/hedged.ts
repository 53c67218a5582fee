/**
 * The first answer to the same question. The next attempt begins once those before have not answered within
 * `afterMs`, or as soon as one of them has failed. Attempts that are overtaken go on, and their ends are of
 * no interest.
 *
 * A packet that is lost on the way is sent again after 0.3 s or more, and whatever was sent behind it on
 * the same connection waits: an attempt on another connection does not.
 * @param attempts one or more; any of them may be made although another one is done already
 * @throws what the first attempt has thrown, once all have failed
 */
export function hedged<T>(
  attempts: readonly [() => Promise<T>, ...(() => Promise<T>)[]],
  afterMs: number,
): Promise<T> {
  const { promise, resolve, reject } = Promise.withResolvers<T>();
  const errors = new Map<number, unknown>();
  let numBegun = 0, isDone = false;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const begin = () => {
    clearTimeout(timer);
    if (isDone || numBegun === attempts.length) return;
    const index = numBegun++;
    if (numBegun < attempts.length) timer = setTimeout(begin, afterMs);
    attempts[index]().then((answer) => {
      isDone = true;
      clearTimeout(timer);
      resolve(answer);
    }, (error) => {
      errors.set(index, error);
      if (errors.size < attempts.length) return begin();
      clearTimeout(timer);
      reject(errors.get(0));
    });
  };
  begin();
  return promise;
}

/** Attempts of a call begin so long after each other, as a part of its time limit. */
export const HEDGE_PART = 1 / 3;
