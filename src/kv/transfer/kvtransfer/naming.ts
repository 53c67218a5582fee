import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import * as z from "zod";
import { UsageError } from "../../../core/errors.ts";
import type { InstanceId } from "../../../core/protocol/generate.ts";
import type { KvLayout } from "../../layout.ts";
import type { KvMemory } from "../../pool/pool.ts";
import { type HostProcess, isAlive, isNeighbour } from "./host_process.ts";
import type { UcxName } from "./ucx_pool.ts";

const OPTION = "--migration-backend-kvtransfer-naming-url";
/** An entry has about 1 KB. */
const MAX_ENTRY_BYTES = 64 << 10;
/** Entries that are looked at for stale ones. */
const MAX_ENTRIES = 10_000;
const SUFFIX = ".json", UNFINISHED_SUFFIX = ".tmp";
/** A file that is still being written is younger than this. */
const MAX_WRITING_MS = 60_000;

const text = z.string().max(1_024);
const count = z.int().min(0);
const hex = z.string().max(16_384).regex(/^([0-9a-f]{2})+$/);
const entrySchema = z.object({
  instanceId: text.min(1),
  generation: text.min(1),
  model: text,
  process: z.object({
    hostname: text,
    bootId: text,
    pidNamespace: text,
    pid: count,
    startTicks: count,
  }),
  pool: z.object({
    memory: z.enum(["host", "device", "none"]),
    layout: z.record(text, z.union([text, count])),
    numBlocks: count,
    address: z.string().regex(/^0x[0-9a-f]{1,16}$/),
    ipcHandle: z.string().regex(/^([0-9a-f]{128}){1,64}$/).optional(),
  }),
  ucx: z.object({ workerAddress: hex, key: hex }).nullable(),
});

/** What other instances read of an instance. */
export interface NamingEntry {
  readonly instanceId: InstanceId;
  /** New with each start of an instance: an order for another one concerns a pool that is gone. */
  readonly generation: string;
  readonly model: string;
  readonly process: HostProcess;
  readonly pool: {
    readonly memory: KvMemory;
    readonly layout: KvLayout;
    readonly numBlocks: number;
    /** Of block 0, in the process's memory: hexadecimal with 0x. */
    readonly address: string;
    /**
     * Of an allocation on a CUDA device that begins with block 0: 64 bytes in hexadecimal. Of several devices, one
     * after the other, if blocks are divided among them.
     */
    readonly ipcHandle?: string;
  };
  /** For other hosts; null where UCX is not open. */
  readonly ucx: UcxName | null;
}

/** Which entry: services of one host may have instances of the same name. */
type EntryName = Pick<NamingEntry, "instanceId" | "generation">;

/**
 * Where the instances of a user find each other's pools: a directory with a file for each instance. An
 * entry names memory that others read, so the directory is the user's alone.
 */
export class NamingDirectory {
  private constructor(readonly path: string) {}

  /**
   * Makes the directory if it is not there.
   * @param url `file:DIRECTORY`
   * @throws {UsageError} the URL is not of a directory, or the directory cannot be used
   */
  static open(url: string): NamingDirectory {
    const path = pathOf(url);
    try {
      Deno.mkdirSync(path, { recursive: true, mode: 0o700 });
    } catch (error) {
      if (!(error instanceof Deno.errors.AlreadyExists)) {
        throw refused(path, (error as Error).message);
      }
    }
    const found = statOf(path);
    if (!found.isDirectory) throw refused(path, "it is not a directory");
    if (found.uid !== Deno.uid()) {
      throw refused(path, `it belongs to user ${found.uid}, and this is user ${Deno.uid()}`);
    }
    if (((found.mode ?? 0) & 0o077) !== 0) {
      throw refused(path, `other users can open it; run chmod 700 ${path}`);
    }
    checkParent(path);
    return new NamingDirectory(path);
  }

  /**
   * Writes an instance's entry.
   * @throws {UsageError} the directory cannot be written
   */
  write(entry: NamingEntry): void {
    const temporary = join(this.path, `${crypto.randomUUID()}${UNFINISHED_SUFFIX}`);
    try {
      Deno.writeTextFileSync(temporary, JSON.stringify(entry), { mode: 0o600, createNew: true });
      Deno.renameSync(temporary, this.#file(entry));
    } catch (error) {
      throw refused(this.path, (error as Error).message);
    }
  }

  /** The entry of one start of an instance; null if there is none that can be understood. */
  read(name: EntryName): NamingEntry | null {
    const found = readEntry(this.#file(name));
    return found?.generation === name.generation ? found : null;
  }

  remove(name: EntryName): void {
    removeFile(this.#file(name));
  }

  /**
   * Removes what processes of this host have left that ended without doing it: entries of dead ones and
   * of earlier starts of the host. Entries of other hosts and containers stay.
   * @returns the instances whose entries were removed
   */
  removeStale(here: HostProcess): InstanceId[] {
    const removed: InstanceId[] = [];
    let seen = 0;
    for (const { name } of Deno.readDirSync(this.path)) {
      if (++seen > MAX_ENTRIES) break;
      const file = join(this.path, name);
      if (name.endsWith(UNFINISHED_SUFFIX)) removeUnfinished(file);
      if (!name.endsWith(SUFFIX)) continue;
      const entry = readEntry(file);
      if (entry === null || !isStale(entry.process, here)) continue;
      removeFile(file);
      removed.push(entry.instanceId);
    }
    return removed;
  }

  #file({ instanceId, generation }: EntryName): string {
    const name = `${encodeURIComponent(instanceId)}.${encodeURIComponent(generation)}`;
    return join(this.path, `${name}${SUFFIX}`);
  }
}

function isStale(process: HostProcess, here: HostProcess): boolean {
  if (isNeighbour(process, here)) return !isAlive(process);
  return process.hostname === here.hostname && process.bootId !== here.bootId;
}

function pathOf(url: string): string {
  const parsed = URL.parse(url);
  if (parsed?.protocol !== "file:" || parsed.host !== "" || parsed.pathname === "/") {
    throw new UsageError(
      `${OPTION} ${url}: expected file: and a directory, as in file:/tmp/naming/`,
    );
  }
  return fileURLToPath(parsed).replace(/\/$/, "");
}

function statOf(path: string): Deno.FileInfo {
  try {
    return Deno.lstatSync(path);
  } catch (error) {
    throw refused(path, (error as Error).message);
  }
}

function refused(path: string, reason: string): UsageError {
  return new UsageError(
    `The naming directory ${path} cannot be used: ${reason}. ${OPTION} names another one.`,
  );
}

/**
 * Another user who owns the directory around it could put another naming directory in its place.
 * @throws {UsageError} that is possible
 */
function checkParent(path: string): void {
  const parent = dirname(path), found = statOf(parent), mode = found.mode ?? 0;
  if (found.uid !== Deno.uid() && found.uid !== 0) {
    throw refused(path, `${parent} belongs to user ${found.uid}, who could exchange it`);
  }
  const isSticky = (mode & 0o1000) !== 0;
  if ((mode & 0o022) !== 0 && !isSticky) {
    throw refused(path, `other users can write ${parent}; run chmod go-w ${parent}`);
  }
}

function readEntry(file: string): NamingEntry | null {
  try {
    const { isFile, uid, size } = Deno.lstatSync(file);
    if (!isFile || uid !== Deno.uid() || size > MAX_ENTRY_BYTES) return null;
    const { success, data } = entrySchema.safeParse(JSON.parse(Deno.readTextFileSync(file)));
    return success ? data as unknown as NamingEntry : null;
  } catch {
    return null;
  }
}

function removeUnfinished(file: string): void {
  try {
    const { mtime } = Deno.lstatSync(file);
    if (mtime !== null && Date.now() - mtime.getTime() > MAX_WRITING_MS) Deno.removeSync(file);
  } catch {
    // Another instance has removed or renamed it.
  }
}

function removeFile(file: string): void {
  try {
    Deno.removeSync(file);
  } catch {
    // Another instance has removed it.
  }
}
