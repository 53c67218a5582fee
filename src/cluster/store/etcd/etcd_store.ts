import { decodeBase64, encodeBase64 } from "./base64.ts";
import { Gateway, linesOf } from "./gateway.ts";
import {
  checkEntryCount,
  checkRead,
  checkScope,
  checkWrite,
  CompactedError,
  isOneKey,
  type LeaseStore,
  MAX_ENTRIES,
  type Revision,
  type Scope,
  StoreAwayError,
  type StoreChange,
  type StoreDescription,
  type StoreEntry,
  type StoreList,
  StoreRefusedError,
  type StoreWatcher,
} from "../lease_store.ts";
import type { StoreOptions } from "../store_kind.ts";

const MAX_VERSION_CHARS = 100;

/** A key of etcd (mvccpb.KeyValue) as the gateway writes it: bytes in base64, int64 as text. */
interface Pair {
  readonly key: string;
  readonly value?: string;
  readonly mod_revision: string;
}

interface WatchAnswer {
  readonly result?: {
    readonly canceled?: boolean;
    readonly cancel_reason?: string;
    readonly compact_revision?: string;
    readonly events?: readonly { readonly type?: string; readonly kv: Pair }[];
  };
  readonly error?: { readonly message?: string };
}

/**
 * A lease store in etcd: keys below `/llumnix/CLUSTER/`. Reads are linearizable, as is etcd's default; writes
 * are transactions that compare the key's revision.
 */
export class EtcdStore implements LeaseStore {
  readonly name: string;
  readonly #gateway: Gateway;
  readonly #prefix: string;
  readonly #watches = new Set<AbortController>();

  private constructor(options: StoreOptions) {
    this.name = `etcd at ${options.servers.join(", ")}`;
    this.#prefix = `/llumnix/${options.path}/`;
    this.#gateway = new Gateway(options);
  }

  /** @throws {UsageError} the credentials cannot work */
  static open(options: StoreOptions): EtcdStore {
    return new EtcdStore(options);
  }

  async get(key: string): Promise<StoreEntry | null> {
    return (await this.list(key)).entries[0] ?? null;
  }

  async set(key: string, value: string | null, expected: Revision): Promise<Revision | null> {
    checkWrite(key, value);
    const name = this.#keyOf(key);
    const answer = await this.#gateway.call("/v3/kv/txn", {
      compare: [{
        key: name,
        target: "MOD",
        result: "EQUAL",
        mod_revision: String(expected),
      }],
      success: [
        value === null
          ? { request_delete_range: { key: name } }
          : { request_put: { key: name, value: encodeBase64(value) } },
      ],
    }) as { succeeded?: boolean; header?: { revision?: string } };
    return answer.succeeded === true ? toRevision(answer.header?.revision) : null;
  }

  async list(scope: Scope): Promise<StoreList> {
    checkScope(scope);
    const limit = String(MAX_ENTRIES + 1);
    const answer = await this.#gateway.call("/v3/kv/range", { ...this.#rangeOf(scope), limit }) as {
      kvs?: readonly Pair[];
      header?: { revision?: string };
    };
    const pairs = answer.kvs ?? [];
    checkEntryCount(pairs.length, scope);
    const entries = pairs.map((pair) => {
      const { key, value, revision } = this.#changeOf(pair, false);
      return checkRead({ key, value: value!, revision });
    });
    return { entries, revision: toRevision(answer.header?.revision) };
  }

  watch(scope: Scope, after: Revision, watcher: StoreWatcher): () => void {
    checkScope(scope);
    const abort = new AbortController();
    this.#watches.add(abort);
    this.#follow(scope, after, watcher, abort.signal).catch((error) => {
      if (abort.signal.aborted) return;
      stop();
      watcher.onEnd(error);
    });
    const stop = () => {
      abort.abort();
      this.#watches.delete(abort);
    };
    return stop;
  }

  async describe(): Promise<StoreDescription> {
    const { version } = await this.#gateway.call("/v3/maintenance/status", {}) as {
      version?: unknown;
    };
    const written = typeof version === "string" ? version.slice(0, MAX_VERSION_CHARS) : "?";
    return { server: `etcd ${written}`, place: `keys below ${this.#prefix}` };
  }

  close(): Promise<void> {
    for (const watch of this.#watches) watch.abort();
    this.#watches.clear();
    this.#gateway.close();
    return Promise.resolve();
  }

  /** @throws {Error} why the watch has ended */
  async #follow(
    scope: Scope,
    after: Revision,
    watcher: StoreWatcher,
    signal: AbortSignal,
  ): Promise<never> {
    const create_request = { ...this.#rangeOf(scope), start_revision: String(after + 1) };
    const body = await this.#gateway.stream("/v3/watch", { create_request }, signal);
    try {
      for await (const line of linesOf(body)) {
        if (signal.aborted) break;
        for (const change of this.#changesOf(line)) if (!signal.aborted) watcher.onChange(change);
      }
    } catch (error) {
      if (error instanceof StoreAwayError || error instanceof StoreRefusedError) throw error;
      throw new StoreAwayError(`etcd has ended a watch: ${(error as Error).message}`);
    }
    throw new StoreAwayError("etcd has ended a watch");
  }

  #changesOf(line: string): StoreChange[] {
    let answer: WatchAnswer;
    try {
      answer = JSON.parse(line);
    } catch {
      throw new StoreRefusedError("etcd sent a line of a watch that is not JSON");
    }
    const { result, error } = answer;
    if (result === undefined) {
      throw new StoreAwayError(`etcd has ended a watch: ${error?.message ?? "no reason"}`);
    }
    if (result.canceled) {
      const { compact_revision, cancel_reason = "no reason" } = result;
      if (toRevision(compact_revision ?? "0") > 0) {
        throw new CompactedError(`etcd has the changes since revision ${compact_revision} only`);
      }
      throw new StoreAwayError(`etcd has ended a watch: ${cancel_reason}`);
    }
    return (result.events ?? []).map(({ type, kv }) => this.#changeOf(kv, type === "DELETE"));
  }

  #changeOf({ key, value = "", mod_revision }: Pair, isRemoval: boolean): StoreChange {
    return {
      key: decodeBase64(key).slice(this.#prefix.length),
      value: isRemoval ? null : decodeBase64(value),
      revision: toRevision(mod_revision),
    };
  }

  #keyOf(key: string): string {
    return encodeBase64(this.#prefix + key);
  }

  /** All keys that begin with the scope's: up to the next character after its last, a slash. */
  #rangeOf(scope: Scope): { readonly key: string; readonly range_end?: string } {
    if (isOneKey(scope)) return { key: this.#keyOf(scope) };
    const begin = this.#prefix + scope;
    const end = begin.slice(0, -1) + String.fromCharCode("/".charCodeAt(0) + 1);
    return { key: encodeBase64(begin), range_end: encodeBase64(end) };
  }
}

/** @throws {StoreRefusedError} not a revision */
function toRevision(text: string | undefined): Revision {
  const revision = Number(text);
  if (Number.isSafeInteger(revision) && revision >= 0) return revision;
  throw new StoreRefusedError(`the server at etcd's address is no etcd: its revision is "${text}"`);
}
