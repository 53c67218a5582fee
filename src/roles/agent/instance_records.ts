/** Which instances of a host run, for an agent that is started again. */
import { join } from "node:path";
import { UsageError } from "../../core/errors.ts";
import { removeIfPresent } from "../../core/files.ts";
import { MAX_HOST_SLOTS } from "../../core/protocol/agents.ts";
import type { InstanceRecords, RecordedInstance } from "../../agent/instance_records.ts";
import { prepareDirectory, userDirectory } from "../manager_address.ts";

/** More than the longest list. */
const MAX_FILE_BYTES = 64 << 10;

/** Records in a file of this user, which one agent at a time has. */
export class InstanceRecordFile implements InstanceRecords, Disposable {
  readonly #path: string;
  readonly #lockPath: string;
  readonly #lock: Deno.FsFile;
  #isCleared = false;

  private constructor(path: string, lockPath: string, lock: Deno.FsFile) {
    this.#path = path;
    this.#lockPath = lockPath;
    this.#lock = lock;
  }

  /**
   * @param directory default: that of this user's sockets
   * @throws {UsageError} another agent has the host's name, or the directory cannot be used
   */
  static async open(host: string, directory = userDirectory()): Promise<InstanceRecordFile> {
    prepareDirectory(directory);
    const path = join(directory, `agent-${host}.json`), lockPath = `${path}.lock`;
    const lock = await Deno.open(lockPath, { create: true, write: true, mode: 0o600 });
    if (await lock.tryLock(true)) return new InstanceRecordFile(path, lockPath, lock);
    lock.close();
    throw new UsageError(
      `an agent for the host "${host}" runs already on this machine: stop that one first, or give this ` +
        "one another --host-name",
    );
  }

  /** A file that cannot be read counts as empty: its instances are then unknown, and end with the manager. */
  read(): readonly RecordedInstance[] {
    try {
      if (Deno.statSync(this.#path).size > MAX_FILE_BYTES) return [];
      const data: unknown = JSON.parse(Deno.readTextFileSync(this.#path));
      return Array.isArray(data) ? data.filter(isRecord).slice(0, MAX_HOST_SLOTS) : [];
    } catch {
      return [];
    }
  }

  write(instances: readonly RecordedInstance[]): void {
    const temporary = `${this.#path}.new`;
    Deno.writeTextFileSync(temporary, JSON.stringify(instances), { mode: 0o600 });
    Deno.renameSync(temporary, this.#path);
  }

  clear(): void {
    removeIfPresent(this.#path);
    this.#isCleared = true;
  }

  /** Gives the host's name free. */
  [Symbol.dispose](): void {
    if (this.#isCleared) removeIfPresent(this.#lockPath); // while it is held: the next agent makes a new file
    this.#lock.close();
  }
}

function isRecord(data: unknown): data is RecordedInstance {
  const { instanceId, pid, processStart } = (data ?? {}) as Partial<RecordedInstance>;
  return typeof instanceId === "string" && typeof processStart === "string" &&
    Number.isSafeInteger(pid) && pid! > 0;
}
