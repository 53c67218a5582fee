import { join } from "node:path";
import * as z from "zod";
import { realClock, sleep } from "../../../core/clock.ts";
import { UsageError } from "../../../core/errors.ts";
import {
  checkEntryCount,
  checkScope,
  checkWrite,
  CompactedError,
  isInScope,
  type LeaseStore,
  MAX_ENTRIES,
  MAX_VALUE_BYTES,
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

/** How often a watch reads the file, and a writer tries the lock. */
const WATCH_INTERVAL_MS = 50;
const LOCK_RETRY_MS = 5;
/** The file is written anew with each change. */
const MAX_FILE_BYTES = 16 << 20;
const WRITABLE_BY_OTHERS = 0o022;

/**
 * The whole store. A removed key keeps its place with the value null, so that watches see the removal, until
 * {@linkcode MAX_ENTRIES} keys are there.
 */
const contentSchema = z.object({
  revision: z.int().min(0),
  /** Removals up to here are forgotten. */
  compacted: z.int().min(0),
  entries: z.array(z.object({
    key: z.string(),
    value: z.string().max(MAX_VALUE_BYTES).nullable(),
    revision: z.int().min(1),
  })).max(MAX_ENTRIES),
});
type Content = z.infer<typeof contentSchema>;

const EMPTY: Content = { revision: 0, compacted: 0, entries: [] };

/**
 * A lease store in a directory: one file with all entries, which a writer replaces (write, then rename) while
 * it holds a lock (flock(2)). Readers see the file before or after a change, never in between.
 *
 * For tests, and for the processes of one host. The file system has to be a local one: over NFS and the
 * like, neither locks nor renames are sure to be seen by other hosts.
 */
export class FileStore implements LeaseStore {
  readonly name: string;
  readonly #path: string;
  readonly #lockPath: string;
  readonly #watches = new Set<() => void>();
  #isClosed = false;

  private constructor(directory: string, private readonly timeoutMs: number) {
    this.name = `directory ${directory}`;
    this.#path = join(directory, "store.json");
    this.#lockPath = join(directory, "lock");
  }

  /**
   * @param mustExist the directory is not made
   * @throws {UsageError} the directory is not there or cannot be made, or other users can write it
   */
  static open(directory: string, timeoutMs: number, mustExist = false): FileStore {
    try {
      if (mustExist) Deno.statSync(directory);
      else Deno.mkdirSync(directory, { recursive: true, mode: 0o700 });
    } catch (error) {
      if (mustExist && error instanceof Deno.errors.NotFound) {
        throw new UsageError(`no process has used ${directory} as a lease store: it is not there`);
      }
      throw new UsageError(
        `cannot use ${directory} as a lease store: ${(error as Error).message}`,
      );
    }
    checkOwner(directory);
    return new FileStore(directory, timeoutMs);
  }

  async get(key: string): Promise<StoreEntry | null> {
    const { entries } = await this.list(key);
    return entries[0] ?? null;
  }

  async set(key: string, value: string | null, expected: Revision): Promise<Revision | null> {
    checkWrite(key, value);
    this.#checkOpen();
    const lock = await this.#lock();
    try {
      const content = await this.#read();
      const there = content.entries.find((entry) => entry.key === key);
      if ((there?.value == null ? 0 : there.revision) !== expected) return null;
      if (value === null && expected === 0) return content.revision;
      const revision = content.revision + 1;
      await this.#write(changed(content, { key, value, revision }));
      return revision;
    } finally {
      lock.close();
    }
  }

  async list(scope: Scope): Promise<StoreList> {
    checkScope(scope);
    this.#checkOpen();
    const { revision, entries } = await this.#read();
    return {
      revision,
      entries: entries.filter(isPresent).filter(({ key }) => isInScope(key, scope)),
    };
  }

  watch(scope: Scope, after: Revision, watcher: StoreWatcher): () => void {
    checkScope(scope);
    let isStopped = false;
    const stop = () => {
      isStopped = true;
      this.#watches.delete(stop);
    };
    this.#watches.add(stop);
    this.#follow(scope, after, watcher, () => isStopped).catch((error) => {
      if (isStopped) return;
      stop();
      watcher.onEnd(error);
    });
    return stop;
  }

  async describe(): Promise<StoreDescription> {
    this.#checkOpen();
    await this.#read();
    return { server: "a file that processes lock", place: this.#path };
  }

  close(): Promise<void> {
    this.#isClosed = true;
    for (const stop of [...this.#watches]) stop();
    return Promise.resolve();
  }

  async #follow(
    scope: Scope,
    after: Revision,
    watcher: StoreWatcher,
    isStopped: () => boolean,
  ): Promise<void> {
    let seen = after, text: string | null = null;
    while (!isStopped()) {
      const latest = await this.#readText();
      if (latest !== text) {
        text = latest;
        const content = this.#parse(latest);
        if (seen < content.compacted || seen > content.revision) {
          const { compacted, revision } = content;
          throw new CompactedError(
            `${this.name} has the changes from ${compacted} to ${revision}, not those after ${seen}`,
          );
        }
        const changes = content.entries
          .filter(({ key, revision }) => revision > seen && isInScope(key, scope))
          .sort((a, b) => a.revision - b.revision);
        for (const change of changes) if (!isStopped()) watcher.onChange(change);
        seen = content.revision;
      }
      await sleep(realClock, WATCH_INTERVAL_MS);
    }
  }

  async #read(): Promise<Content> {
    return this.#parse(await this.#readText());
  }

  /** Null before the first write. */
  async #readText(): Promise<string | null> {
    try {
      const { size } = await Deno.stat(this.#path);
      if (size > MAX_FILE_BYTES) throw this.#damaged(`it has ${size} bytes`);
      return await Deno.readTextFile(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return null;
      throw error instanceof StoreRefusedError ? error : this.#away(error);
    }
  }

  #parse(text: string | null): Content {
    if (text === null) return EMPTY;
    let data: unknown;
    try {
      data = JSON.parse(text);
    } catch {
      throw this.#damaged("it is not JSON");
    }
    const result = contentSchema.safeParse(data);
    if (!result.success) throw this.#damaged(result.error.issues[0].message);
    return result.data;
  }

  async #write(content: Content): Promise<void> {
    const text = JSON.stringify(content);
    if (text.length > MAX_FILE_BYTES) {
      throw new StoreRefusedError(`${this.name} is full: ${MAX_FILE_BYTES} bytes are the limit`);
    }
    const draft = `${this.#path}.new`; // nobody else writes one: the lock is held
    try {
      await Deno.writeTextFile(draft, text, { mode: 0o600 });
      await Deno.rename(draft, this.#path);
    } catch (error) {
      throw this.#away(error);
    }
  }

  async #lock(): Promise<Deno.FsFile> {
    let file: Deno.FsFile;
    try {
      file = await Deno.open(this.#lockPath, { create: true, write: true, mode: 0o600 });
    } catch (error) {
      throw this.#away(error);
    }
    // Attempts count, not time: this process may have been busy meanwhile.
    let attemptsLeft = Math.ceil(this.timeoutMs / LOCK_RETRY_MS);
    while (!await file.tryLock(true)) {
      if (--attemptsLeft <= 0) {
        file.close();
        throw new StoreAwayError(
          `${this.name} stayed locked for ${this.timeoutMs} ms: a process that writes there is stopped`,
        );
      }
      await sleep(realClock, LOCK_RETRY_MS);
    }
    return file;
  }

  #checkOpen(): void {
    if (this.#isClosed) throw new StoreAwayError(`${this.name} is closed`);
  }

  #away(error: unknown): StoreAwayError {
    return new StoreAwayError(`cannot use ${this.name}: ${(error as Error).message}`, {
      cause: error,
    });
  }

  #damaged(why: string): StoreRefusedError {
    return new StoreRefusedError(
      `${this.#path} is not a lease store of this version: ${why}. Remove it while no process uses it, ` +
        "or choose another directory",
    );
  }
}

function isPresent(change: StoreChange): change is StoreEntry {
  return change.value !== null;
}

/** @throws {StoreRefusedError} too many keys */
function changed(content: Content, change: StoreChange): Content {
  let entries = content.entries.filter(({ key }) => key !== change.key);
  let { compacted } = content;
  if (entries.length >= MAX_ENTRIES) {
    for (const { value, revision } of entries) {
      if (value === null) compacted = Math.max(compacted, revision);
    }
    entries = entries.filter(isPresent);
    checkEntryCount(entries.length + 1, "");
  }
  return { revision: change.revision, compacted, entries: [...entries, change] };
}

/** @throws {UsageError} other users could write there */
function checkOwner(directory: string): void {
  const { uid, mode } = Deno.statSync(directory);
  const isOurs = uid === null || uid === 0 || uid === Deno.uid();
  if (isOurs && ((mode ?? 0) & WRITABLE_BY_OTHERS) === 0) return;
  throw new UsageError(
    `${directory} can be written by other users, so that they could name themselves the leader: choose ` +
      `another directory for file:, or close it (chmod go-w ${directory})`,
  );
}
