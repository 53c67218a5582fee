import {
  isInScope,
  type LeaseStore,
  type Scope,
  StoreAwayError,
  type StoreEntry,
} from "../../../../src/cluster/store/lease_store.ts";

/** A lease store that answers at once, with what a test has put there. */
export class MemoryStore implements LeaseStore {
  readonly name = "memory";
  isAway = false;
  readonly #entries = new Map<string, StoreEntry>();
  #revision = 0;

  put(key: string, value: string): void {
    this.#entries.set(key, { key, value, revision: ++this.#revision });
  }

  get(key: string): Promise<StoreEntry | null> {
    return this.#answer(() => this.#entries.get(key) ?? null);
  }

  set(key: string, value: string | null, expected: number): Promise<number | null> {
    return this.#answer(() => {
      if ((this.#entries.get(key)?.revision ?? 0) !== expected) return null;
      if (value === null) this.#entries.delete(key);
      else this.put(key, value);
      return value === null ? ++this.#revision : this.#revision;
    });
  }

  list(scope: Scope) {
    return this.#answer(() => ({
      entries: [...this.#entries.values()].filter(({ key }) => isInScope(key, scope)),
      revision: this.#revision,
    }));
  }

  watch(): () => void {
    return () => {};
  }

  describe() {
    return this.#answer(() => ({ server: "memory 1", place: "this process" }));
  }

  close(): Promise<void> {
    return Promise.resolve();
  }

  #answer<T>(answer: () => T): Promise<T> {
    return this.isAway
      ? Promise.reject(new StoreAwayError("the store is away"))
      : Promise.resolve(answer());
  }
}
