import type { KvEntry } from "@nats-io/kv";
import { headers } from "@nats-io/transport-node";
import { UsageError } from "../../../core/errors.ts";
import {
  checkEntryCount,
  checkRead,
  checkScope,
  checkWrite,
  isOneKey,
  type LeaseStore,
  type Revision,
  type Scope,
  StoreAwayError,
  type StoreChange,
  type StoreDescription,
  type StoreEntry,
  type StoreList,
  type StoreWatcher,
} from "../lease_store.ts";
import type { StoreOptions } from "../store_kind.ts";
import { NatsBucket } from "./nats_connection.ts";

const IP_ADDRESS = /^(?:\[|\d+\.\d+\.\d+\.\d+:)/;
/** JetStream's codes for a subject that is at another sequence than was expected. */
const WRONG_SEQUENCE: readonly unknown[] = [10071, 10164];

/**
 * A lease store in a key-value bucket of NATS JetStream, `llumnix-CLUSTER`. A revision is a sequence number of
 * the bucket's stream. No key has a time to live: server 2.9 ignores it without an error.
 *
 * A JetStream cluster takes 4 to 9 s to elect a leader of its own; that long nothing can be read or written.
 */
export class NatsStore implements LeaseStore {
  readonly name: string;
  readonly #bucket: NatsBucket;
  readonly #watches = new Set<() => void>();

  private constructor(options: StoreOptions) {
    this.name = `NATS at ${options.servers.join(", ")}`;
    this.#bucket = new NatsBucket(options);
  }

  /** @throws {UsageError} TLS to a server that is written as an IP address */
  static open(options: StoreOptions): NatsStore {
    const { servers, credentials: { authority } } = options;
    const byAddress = servers.find((server) => IP_ADDRESS.test(server));
    if (authority !== undefined && byAddress !== undefined) {
      throw new UsageError(
        `nats: TLS needs the servers' host names, as in their certificates, in place of ${byAddress}: the ` +
          "client cannot check addresses",
      );
    }
    return new NatsStore(options);
  }

  async get(key: string): Promise<StoreEntry | null> {
    return (await this.list(key)).entries[0] ?? null;
  }

  async set(key: string, value: string | null, expected: Revision): Promise<Revision | null> {
    checkWrite(key, value);
    const name = toSubject(key);
    return await this.#bucket.use(async ({ kv, js }) => {
      try {
        if (value !== null) {
          return expected === 0
            ? await kv.create(name, value)
            : await kv.update(name, value, expected);
        }
        if (expected === 0) return await kv.get(name).then((entry) => isPut(entry) ? null : 0);
        // What the client's `delete` sends; that does not tell the revision.
        const header = headers();
        header.set("KV-Operation", "DEL");
        const expect = { lastSubjectSequence: expected };
        const subject = `$KV.${this.#bucket.name}.${name}`;
        return (await js.publish(subject, "", { headers: header, expect })).seq;
      } catch (error) {
        if (WRONG_SEQUENCE.includes((error as { code?: unknown }).code)) return null;
        throw error;
      }
    });
  }

  async list(scope: Scope): Promise<StoreList> {
    checkScope(scope);
    return await this.#bucket.use(async ({ kv }) => {
      if (isOneKey(scope)) {
        const entry = await kv.get(toSubject(scope));
        const entries = isPut(entry) ? [toEntry(entry)] : [];
        return { entries, revision: entry?.revision ?? 0 };
      }
      // Before the entries: what changes meanwhile, a watch reports again.
      const { streamInfo } = await kv.status();
      const latest = new Map<string, KvEntry>();
      for await (const entry of await kv.history({ key: toFilter(scope) })) {
        latest.set(entry.key, entry);
        checkEntryCount(latest.size, scope);
      }
      const entries = [...latest.values()].filter(isPut).map(toEntry);
      return { entries, revision: streamInfo.state.last_seq };
    });
  }

  watch(scope: Scope, after: Revision, watcher: StoreWatcher): () => void {
    checkScope(scope);
    let isStopped = false;
    let stopIterator = () => {};
    const stop = () => {
      isStopped = true;
      stopIterator();
      this.#watches.delete(stop);
    };
    this.#watches.add(stop);
    const follow = async () => {
      const changes = await this.#bucket.useOnce(({ kv }) =>
        kv.watch({ key: toFilter(scope), resumeFromRevision: after + 1 })
      );
      stopIterator = () => changes.stop();
      if (isStopped) return stopIterator();
      for await (const entry of changes) if (!isStopped) watcher.onChange(toChange(entry));
      throw new StoreAwayError("NATS has ended a watch");
    };
    follow().catch((error) => {
      if (isStopped) return;
      stop();
      watcher.onEnd(error);
    });
    return stop;
  }

  async describe(): Promise<StoreDescription> {
    return await this.#bucket.use(async ({ connection, kv }) => {
      const { replicas } = await kv.status();
      return {
        server: `NATS ${connection.info?.version ?? "?"}`,
        place: `bucket ${this.#bucket.name}, ${replicas} ${replicas === 1 ? "copy" : "copies"}`,
      };
    });
  }

  async close(): Promise<void> {
    for (const stop of [...this.#watches]) stop();
    await this.#bucket.close();
  }
}

/** Dots separate the tokens of a subject, which wildcards match. */
function toSubject(key: string): string {
  return key.replaceAll("/", ".");
}

function toFilter(scope: Scope): string {
  return isOneKey(scope) ? toSubject(scope) : `${toSubject(scope)}>`;
}

function isPut(entry: KvEntry | null): entry is KvEntry & { operation: "PUT" } {
  return entry?.operation === "PUT";
}

function toEntry(entry: KvEntry): StoreEntry {
  const { key, revision } = entry;
  return checkRead({ key: key.replaceAll(".", "/"), value: entry.string(), revision });
}

function toChange(entry: KvEntry): StoreChange {
  return isPut(entry)
    ? toEntry(entry)
    : { key: entry.key.replaceAll(".", "/"), value: null, revision: entry.revision };
}
