/**
 * The seam to a lease store: a small, reliable map that operators run already (etcd, NATS JetStream), where
 * the processes of a cluster find each other and elect a leader. It holds soft state only: whatever is lost
 * there is written again by the process that it describes. Requests, tokens, prompts and KV never go there.
 */
import { LlumnixError, RequestError, UnavailableError } from "../../core/errors.ts";

/**
 * The store's own counter, which grows with every change of any key. Pass it back unchanged. 0 stands for
 * "the key is absent", and for "before the first change".
 */
export type Revision = number;

export interface StoreEntry {
  readonly key: string;
  /** Text of at most {@linkcode MAX_VALUE_BYTES}. */
  readonly value: string;
  /** Of the latest change of this key. */
  readonly revision: Revision;
}

/** A store, for people. */
export interface StoreDescription {
  /** Its program and version: `etcd 3.5.16`. */
  readonly server: string;
  /** Where it has the entries of this cluster: `keys below /llumnix/blue/`. */
  readonly place: string;
}

/** A key has another value now, or, with null, is gone. */
export interface StoreChange {
  readonly key: string;
  readonly value: string | null;
  readonly revision: Revision;
}

export interface StoreList {
  readonly entries: readonly StoreEntry[];
  /** A watch after this revision misses no change that the list does not show. */
  readonly revision: Revision;
}

export interface StoreWatcher {
  /** Comes in the order of the changes. Values that were replaced soon after may be skipped, the latest never. */
  onChange(change: StoreChange): void;
  /**
   * The watch has ended and will not go on: the store is away, or ({@linkcode CompactedError}) it no longer
   * has the changes since the given revision. List again, then watch.
   */
  onEnd(error: Error): void;
}

/**
 * A key, or all keys below one: `leader`, `hosts/`. A scope of several keys ends with a slash.
 * See {@linkcode storeKey}.
 */
export type Scope = string;

/**
 * A lease store. No store's expiry of keys is relied on, and no clock but the caller's own.
 *
 * Every call is answered or rejected within the time limit that the store was opened with. A watch has no
 * such limit, and notices nothing of a server that falls silent: read beside it ({@linkcode StoreView}).
 */
export interface LeaseStore {
  /** Kind and place, for people: `etcd at 10.0.0.1:2379`. */
  readonly name: string;

  /**
   * @returns null when the key is absent
   * @throws {StoreAwayError} no answer
   * @throws {StoreRefusedError} the store does not want this client, or cannot serve it
   */
  get(key: string): Promise<StoreEntry | null>;

  /**
   * Writes, or with null removes, a key that is still at revision `expected`. The write may be sent twice; the
   * comparison refuses the second. After {@linkcode StoreAwayError} it may have been done, or may be done yet:
   * read before you try again.
   * @returns the new revision; null when the key is at another revision, be it by an earlier write of
   *   this very caller whose answer was lost
   * @throws {StoreAwayError} no answer
   * @throws {StoreRefusedError} the store does not want this client, or cannot serve it
   * @throws {RequestError} key or value are over their limits
   */
  set(key: string, value: string | null, expected: Revision): Promise<Revision | null>;

  /**
   * At most {@linkcode MAX_ENTRIES}.
   * @throws {StoreAwayError} no answer
   * @throws {StoreRefusedError} the store does not want this client, holds more, or cannot serve it
   */
  list(scope: Scope): Promise<StoreList>;

  /**
   * Reports changes after a revision.
   * @returns ends the watch; then neither method is called any more
   */
  watch(scope: Scope, after: Revision, watcher: StoreWatcher): () => void;

  /**
   * @throws {StoreAwayError} no answer
   * @throws {StoreRefusedError} the store does not want this client
   */
  describe(): Promise<StoreDescription>;

  /** Ends all watches in silence, and rejects what waits for an answer. Idempotent. */
  close(): Promise<void>;
}

/** Longest key. */
export const MAX_KEY_CHARS = 256;
/** Longest value, in UTF-8. NATS takes 1 MiB by default, etcd 1.5 MiB. */
export const MAX_VALUE_BYTES = 16 << 10;
/** Most entries of one scope. */
export const MAX_ENTRIES = 4_096;

/** The store gave no answer in time, or cannot be reached: ask again later. */
export class StoreAwayError extends UnavailableError {
  override name = "StoreAwayError";
}

/**
 * The store answers, and refuses: wrong credentials, another version, damaged data. The operator has to
 * look; the caller may ask again later.
 */
export class StoreRefusedError extends LlumnixError {
  override name = "StoreRefusedError";
  constructor(message: string, options?: ErrorOptions) {
    super("unavailable", message, options);
  }
}

/** The store has dropped the changes that a watch should begin with. */
export class CompactedError extends StoreAwayError {
  override name = "CompactedError";
}

const KEY = /^[A-Za-z0-9=-]+(?:\/[A-Za-z0-9=-]+)*$/;

/**
 * Makes a key of names: `storeKey("hosts", "gpu_1.example")` is `hosts/gpu=5F1=2Eexample`. Characters
 * that some store does not take become `=` and two hexadecimal digits for each byte of their UTF-8.
 * @throws {RequestError} a name is empty, or the key too long
 */
export function storeKey(...names: readonly [string, ...string[]]): string {
  const key = names.map((name) =>
    name.replace(/[^A-Za-z0-9-]/gu, (character) =>
      [...new TextEncoder().encode(character)]
        .map((byte) => "=" + byte.toString(16).toUpperCase().padStart(2, "0")).join(""))
  ).join("/");
  checkKey(key);
  return key;
}

/** The inverse of {@linkcode storeKey}. Damaged escapes stay as they are. */
export function namesOfKey(key: string): string[] {
  return key.split("/").map((part) => {
    const escaped = part.replace(/%/g, "%25").replace(/=([0-9A-F]{2})/g, "%$1");
    try {
      return decodeURIComponent(escaped);
    } catch {
      return part;
    }
  });
}

/** @throws {RequestError} not a key */
export function checkKey(key: string): void {
  if (key.length <= MAX_KEY_CHARS && KEY.test(key)) return;
  throw new RequestError(
    `"${
      key.slice(0, MAX_KEY_CHARS)
    }" is not a key of the lease store: expected at most ${MAX_KEY_CHARS} ` +
      "characters, made by storeKey",
  );
}

/** @throws {RequestError} not a scope */
export function checkScope(scope: Scope): void {
  if (scope !== "") checkKey(scope.endsWith("/") ? scope.slice(0, -1) : scope);
}

/** Whether a scope is one key. */
export function isOneKey(scope: Scope): boolean {
  return scope !== "" && !scope.endsWith("/");
}

/** Whether a key is in a scope. The empty scope has all keys. */
export function isInScope(key: string, scope: Scope): boolean {
  return isOneKey(scope) ? key === scope : key.startsWith(scope);
}

/** @throws {RequestError} key or value are over their limits */
export function checkWrite(key: string, value: string | null): void {
  checkKey(key);
  const bytes = value === null ? 0 : new TextEncoder().encode(value).length;
  if (bytes <= MAX_VALUE_BYTES) return;
  throw new RequestError(
    `the value of ${key} has ${bytes} bytes, but a lease store takes ${MAX_VALUE_BYTES}: it is for ` +
      "addresses and states, not for data",
  );
}

/** @throws {StoreRefusedError} the store has a larger value than any process of this version writes */
export function checkRead(entry: StoreEntry): StoreEntry {
  if (entry.value.length <= MAX_VALUE_BYTES) return entry;
  throw new StoreRefusedError(
    `the lease store has a value of ${entry.value.length} characters at ${entry.key}, but the limit is ` +
      `${MAX_VALUE_BYTES}: another program writes there; give this cluster another name`,
  );
}

/** @throws {StoreRefusedError} a scope has more entries than a reader takes */
export function checkEntryCount(count: number, scope: Scope): void {
  if (count <= MAX_ENTRIES) return;
  throw new StoreRefusedError(
    `the lease store has more than ${MAX_ENTRIES} entries below "${scope}": remove those of processes ` +
      "that are gone, or give this cluster another name",
  );
}
