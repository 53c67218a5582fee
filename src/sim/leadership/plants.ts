import {
  type LeaseStore,
  type Scope,
  StoreAwayError,
  type StoreList,
} from "../../cluster/store/lease_store.ts";

/** Bugs that are planted to see whether the simulation catches them. */
export const plants = [
  /** A leader goes on in its epoch, although it was told that another one leads. */
  "leader_goes_on",
  /** A leader stamps its decisions with the newest epoch that it knows, in place of its own. */
  "leader_ignores_its_epoch",
  /** A receiver obeys every manager. */
  "receiver_does_not_fence",
  /** A follower counts the leader's silence while the store is away. */
  "silence_while_away",
  /** A leader that the store does not answer stops to lead. */
  "store_away_ends_leadership",
  /** A follower waits until the store removes the record, as if it had a time to live. */
  "expiry_by_the_store",
  /** What a watch does not say stays unknown: nothing is read beside it. */
  "watch_alone",
  /** A leader that has lost most instances goes on, although a follower hears them. */
  "leader_does_not_give_way",
] as const;

export type Plant = typeof plants[number];

/** The store as a process with a planted bug sees it. */
export function plantedStore(store: LeaseStore, plant: Plant | null): LeaseStore {
  if (plant === "silence_while_away") return withList(store, answersWhileAway(store));
  if (plant === "expiry_by_the_store") return withList(store, isAwayUnlessChanged(store));
  if (plant === "watch_alone") return new WatchOnlyStore(store);
  return store;
}

type List = LeaseStore["list"];

function withList(store: LeaseStore, list: List): LeaseStore {
  return {
    name: store.name,
    get: (key) => store.get(key),
    set: (...args) => store.set(...args),
    list,
    watch: (...args) => store.watch(...args),
    describe: () => store.describe(),
    close: () => store.close(),
  };
}

/** A read that fails shows what the one before has shown. */
function answersWhileAway(store: LeaseStore): List {
  const lists = new Map<Scope, StoreList>();
  return async (scope) => {
    try {
      const list = await store.list(scope);
      lists.set(scope, list);
      return list;
    } catch (error) {
      const last = lists.get(scope);
      if (last !== undefined) return last;
      throw error;
    }
  };
}

/** Silence is never counted, so that only a removed record leads to a takeover. */
function isAwayUnlessChanged(store: LeaseStore): List {
  const values = new Map<Scope, string>();
  return async (scope) => {
    const list = await store.list(scope);
    const value = JSON.stringify(list.entries);
    if (list.entries.length > 0 && values.get(scope) === value) {
      throw new StoreAwayError("the record is still there");
    }
    values.set(scope, value);
    return list;
  };
}

/** After the first read of a scope, what the watch says is all. */
class WatchOnlyStore implements LeaseStore {
  readonly #lists = new Map<Scope, StoreList>();
  constructor(private readonly store: LeaseStore) {}

  get name(): string {
    return this.store.name;
  }

  get: LeaseStore["get"] = (key) => this.store.get(key);
  set: LeaseStore["set"] = (...args) => this.store.set(...args);
  describe: LeaseStore["describe"] = () => this.store.describe();

  async list(scope: Scope): Promise<StoreList> {
    const known = this.#lists.get(scope);
    if (known !== undefined) return known;
    const list = await this.store.list(scope);
    this.#lists.set(scope, list);
    return list;
  }

  watch: LeaseStore["watch"] = (scope, after, watcher) =>
    this.store.watch(scope, after, {
      onEnd: (error) => watcher.onEnd(error),
      onChange: (change) => {
        const { key, value, revision } = change;
        const entries = (this.#lists.get(scope)?.entries ?? []).filter((one) => one.key !== key);
        if (value !== null) entries.push({ key, value, revision });
        this.#lists.set(scope, { entries, revision });
        watcher.onChange(change);
      },
    });

  close(): Promise<void> {
    return this.store.close();
  }
}
