import {
  checkScope,
  checkWrite,
  CompactedError,
  isInScope,
  type LeaseStore,
  type Revision,
  type Scope,
  StoreAwayError,
  type StoreChange,
  type StoreDescription,
  type StoreEntry,
  type StoreWatcher,
} from "../../cluster/store/lease_store.ts";
import type { SimNetwork, SimNode } from "../network/sim_bus.ts";

/** Name of the store's node, between which and the clients the network may be cut. */
export const STORE_NODE = "store";
/** Most time by which a message is late that was sent while nothing got through: TCP sends it again. */
const LATE_MS = 3_000;
/** Writes that arrive within this time may race. */
const RACE_MS = 20;

/** What the store does wrong, besides being away. */
export interface StoreFaults {
  /** Share of the answers that are lost after the work was done. */
  readonly lostAnswers: number;
  /** Share of the changes that no watch hears of. */
  readonly skippedChanges: number;
  /** Share of the messages under way in a cut that arrive late in place of never. */
  readonly lateMessages: number;
  /**
   * Share of the writes that are done although another one was, just before. A JetStream cluster of 2.9
   * compares before it replicates: of writes that arrive at the same time it acknowledges several.
   */
  readonly racingWrites: number;
}

export const noStoreFaults: StoreFaults = {
  lostAnswers: 0,
  skippedChanges: 0,
  lateMessages: 0,
  racingWrites: 0,
};

type State = ReadonlyMap<string, StoreChange>;

interface Watch {
  readonly client: string;
  readonly scope: Scope;
  send(change: StoreChange | Error): void;
}

/**
 * The server of a simulated lease store, a node of a {@linkcode SimNetwork}. It fails as real ones do: it
 * is away or silent, loses answers and even acknowledged writes, is emptied or restored from an old copy,
 * compacts, and its watches skip changes or hang.
 */
export class SimStore {
  readonly #network: SimNetwork;
  #faults: StoreFaults;
  #state: State = new Map();
  #revision: Revision = 0;
  #compacted: Revision = 0;
  /** Earlier states, for {@linkcode restore}; the latest last. */
  readonly #history: {
    readonly atMs: number;
    readonly state: State;
    readonly revision: Revision;
  }[] = [];
  readonly #watches = new Set<Watch>();
  /** The latest write: the revision that it replaced. */
  #before: { readonly key: string; readonly revision: Revision; readonly atMs: number } | null =
    null;
  #mode: "up" | "down" | "silent" = "up";
  /** Answers to lose, beyond those of the faults. */
  #numToLose = 0;

  constructor(network: SimNetwork, faults: StoreFaults = noStoreFaults) {
    this.#network = network;
    this.#faults = faults;
    network.addNode(STORE_NODE);
  }

  /** From now on. */
  set faults(faults: StoreFaults) {
    this.#faults = faults;
  }

  /** What is stored, without a message. */
  peek(key: string): string | null {
    return this.#state.get(key)?.value ?? null;
  }

  /** Ends. Connections break, so that watches end; what was acknowledged stays. */
  stop(): void {
    this.#mode = "down";
    for (const watch of [...this.#watches]) watch.send(new StoreAwayError("the store has ended"));
    this.#watches.clear();
  }

  /** Answers nothing, while connections stay open. */
  silence(): void {
    this.#mode = "silent";
  }

  start(): void {
    this.#mode = "up";
  }

  /** Goes back to the state of `agoMs` ago: later writes are lost, acknowledged or not. Watches hang. */
  restore(agoMs: number): void {
    const untilMs = this.#network.clock.nowMs() - agoMs;
    let last = { state: new Map() as State, revision: 0 };
    for (const one of this.#history) if (one.atMs <= untilMs) last = one;
    this.#state = last.state;
    this.#revision = last.revision;
    this.#compacted = Math.min(this.#compacted, this.#revision);
    this.hangWatches();
  }

  /** Watches report nothing any more, and do not end. */
  hangWatches(): void {
    this.#watches.clear();
  }

  compact(): void {
    this.#compacted = this.#revision;
  }

  loseNextAnswer(): void {
    this.#numToLose++;
  }

  /** @param timeoutMs limit of each call */
  connect(node: SimNode, timeoutMs: number): LeaseStore {
    return new SimStoreClient(this, this.#network, node, timeoutMs);
  }

  /** Does the work of a message that has come; the answer goes back. Undefined: there is no answer. */
  handle<T>(work: () => T): T | undefined {
    return this.#mode === "up" ? work() : undefined;
  }

  get isDown(): boolean {
    return this.#mode === "down";
  }

  /** Whether an answer gets lost, apart from cuts. */
  losesAnswer(): boolean {
    if (this.#numToLose > 0) {
      this.#numToLose--;
      return true;
    }
    return this.#chance(this.#faults.lostAnswers);
  }

  /** By how much a message is late that met a cut; null: it never arrives. */
  lateMs(): number | null {
    return this.#chance(this.#faults.lateMessages) ? this.#network.random.below(LATE_MS) : null;
  }

  set(key: string, value: string | null, expected: Revision): Revision | null {
    const there = this.#state.get(key);
    const atMs = this.#network.clock.nowMs();
    if ((there?.value == null ? 0 : there.revision) !== expected) {
      const before = this.#before;
      const isRace = before?.key === key && before.revision === expected &&
        atMs - before.atMs <= RACE_MS && this.#chance(this.#faults.racingWrites);
      if (!isRace) return null;
    }
    if (value === null && expected === 0) return this.#revision;
    this.#before = { key, revision: expected, atMs };
    this.#history.push({ atMs, state: this.#state, revision: this.#revision });
    const change = { key, value, revision: ++this.#revision };
    this.#state = new Map(this.#state).set(key, change);
    for (const watch of this.#watches) {
      if (isInScope(key, watch.scope) && !this.#chance(this.#faults.skippedChanges)) {
        watch.send(change);
      }
    }
    return change.revision;
  }

  list(scope: Scope): { entries: StoreEntry[]; revision: Revision } {
    const entries: StoreEntry[] = [];
    for (const { key, value, revision } of this.#state.values()) {
      if (value !== null && isInScope(key, scope)) entries.push({ key, value, revision });
    }
    return { entries, revision: this.#revision };
  }

  watch(watch: Watch, after: Revision): void {
    if (after < this.#compacted) {
      return watch.send(new CompactedError(`compacted up to ${this.#compacted}`));
    }
    this.#watches.add(watch);
    const missed = [...this.#state.values()]
      .filter(({ key, revision }) => revision > after && isInScope(key, watch.scope))
      .sort((a, b) => a.revision - b.revision);
    for (const change of missed) watch.send(change);
  }

  unwatch(watch: Watch): void {
    this.#watches.delete(watch);
  }

  #chance(share: number): boolean {
    return share > 0 && this.#network.random.uniform() < share;
  }
}

/** One process's connection to the store. */
class SimStoreClient implements LeaseStore {
  readonly name = "simulated store";
  readonly #watches = new Map<Watch, () => void>();
  #isClosed = false;

  constructor(
    private readonly server: SimStore,
    private readonly network: SimNetwork,
    private readonly node: SimNode,
    private readonly timeoutMs: number,
  ) {}

  async get(key: string): Promise<StoreEntry | null> {
    return (await this.list(key)).entries[0] ?? null;
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async set(key: string, value: string | null, expected: Revision): Promise<Revision | null> {
    checkWrite(key, value);
    return this.#call(() => this.server.set(key, value, expected));
  }

  // deno-lint-ignore require-await -- what is thrown must be a rejection
  async list(scope: Scope): Promise<{ entries: StoreEntry[]; revision: Revision }> {
    checkScope(scope);
    return this.#call(() => this.server.list(scope));
  }

  watch(scope: Scope, after: Revision, watcher: StoreWatcher): () => void {
    checkScope(scope);
    let isStopped = false;
    const stop = () => {
      isStopped = true;
      this.server.unwatch(watch);
      this.#watches.delete(watch);
    };
    let lastDueMs = 0;
    const watch: Watch = {
      client: this.node.name,
      scope,
      send: (change) => {
        // In order, as on one connection; a change that meets a cut is lost, and the watch hangs.
        const { clock } = this.network;
        const delayMs = this.network.delayMs(STORE_NODE, this.node.name);
        lastDueMs = Math.max(lastDueMs, clock.nowMs() + delayMs);
        clock.after(lastDueMs - clock.nowMs(), () => {
          if (isStopped) return;
          if (!this.network.canPass(STORE_NODE, this.node.name)) return this.server.unwatch(watch);
          this.node.clock.soon(() => {
            if (isStopped) return;
            if (!(change instanceof Error)) return watcher.onChange(change);
            stop();
            watcher.onEnd(change);
          });
        });
      },
    };
    this.#watches.set(watch, stop);
    this.#send(() => {
      if (isStopped) return;
      if (this.server.isDown) watch.send(new StoreAwayError("connection refused"));
      else this.server.handle(() => this.server.watch(watch, after));
    });
    return stop;
  }

  describe(): Promise<StoreDescription> {
    return this.#call(() => ({ server: this.name, place: "this process" }));
  }

  close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of [...this.#watches.values()]) stop();
    return Promise.resolve();
  }

  #call<T>(work: () => T): Promise<T> {
    const { clock } = this.node;
    if (this.#isClosed) return Promise.reject(new StoreAwayError(`${this.name} is closed`));
    return new Promise((resolve, reject) => {
      const away = (why: string) => reject(new StoreAwayError(`${this.name}: ${why}`));
      const cancel = clock.after(this.timeoutMs, () => away(`no answer in ${this.timeoutMs} ms`));
      this.#send(() => {
        // A refused connection is known at once.
        const isRefused = this.server.isDown;
        const answer = this.server.handle(work);
        if ((answer === undefined || this.server.losesAnswer()) && !isRefused) return;
        this.#receive(() => {
          cancel();
          if (isRefused) away("connection refused");
          else resolve(answer!);
        });
      });
    });
  }

  /** A message to the server. */
  #send(arrive: () => void): void {
    this.#pass(this.node.name, STORE_NODE, arrive);
  }

  /** A message to this client. It waits while the process hangs. */
  #receive(arrive: () => void): void {
    this.#pass(STORE_NODE, this.node.name, () => this.node.clock.soon(arrive));
  }

  #pass(from: string, to: string, arrive: () => void): void {
    const { clock } = this.network;
    clock.after(this.network.delayMs(from, to), () => {
      if (this.network.canPass(from, to)) return arrive();
      const lateMs = this.server.lateMs();
      if (lateMs !== null) clock.after(lateMs, () => this.network.canPass(from, to) && arrive());
    });
  }
}
