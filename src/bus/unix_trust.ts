/**
 * Whom to trust over Unix sockets: processes of this user, and of root. A directory that others can
 * write could hold their sockets, to which requests and prompts would go.
 */
import { dirname } from "node:path";
import { type UnixPeer, unixPeers } from "../../ffi/unix_peers.ts";
import { UsageError } from "../core/errors.ts";

const ROOT = 0;
const WRITABLE_BY_OTHERS = 0o022;
/** In such a directory other users can make files, but cannot rename or delete this user's files. */
const STICKY = 0o1000;

/**
 * Checks the directory of a socket. One that is not there is no danger.
 * @throws {UsageError} another user could put a socket there
 */
export function checkSocketDirectory(directory: string): void {
  const info = statOf(() => Deno.statSync(directory));
  if (info === null) return;
  // A slash at the end would name what the link leads to.
  const link = statOf(() => Deno.lstatSync(directory.replace(/(?<=.)\/+$/, "")));
  if (link?.isSymlink && !isTrusted(link.uid)) {
    throw new UsageError(
      `${directory} is a symbolic link of another user (uid ${link.uid}), who could lead it ` +
        "elsewhere: remove it, or choose another --manager-address",
    );
  }
  const { uid, mode } = info;
  const isSticky = ((mode ?? 0) & STICKY) !== 0;
  // Also of a sticky directory: its owner can rename and delete what is in it.
  if (!isTrusted(uid)) {
    throw new UsageError(
      `${directory} belongs to another user (uid ${uid}): remove it, or choose another ` +
        "--manager-address",
    );
  }
  if (((mode ?? 0) & WRITABLE_BY_OTHERS) !== 0 && !isSticky) {
    throw new UsageError(
      `${directory} can be written by other users: its sockets may be theirs. Close it ` +
        `(chmod go-w ${directory}), or choose another --manager-address`,
    );
  }
}

/**
 * Checks a socket before it is connected to.
 * @throws {UsageError} it is, or may be, another user's
 */
export function checkSocket(path: string): void {
  checkSocketDirectory(dirname(path));
  const info = statOf(() => Deno.lstatSync(path));
  if (info === null || isTrusted(info.uid)) return;
  throw new UsageError(`${path} belongs to another user (uid ${info.uid}): it is not used`);
}

/** Checks the processes at the other ends of connections. */
export class UnixPeers {
  readonly #path: string;
  readonly #side: "accepted" | "connected";
  #known = new Set<string>();

  constructor(path: string, side: "accepted" | "connected") {
    this.#path = path;
    this.#side = side;
  }

  /**
   * To be called as soon as a connection has been made.
   * @returns pid of the process at its other end; null where the system does not say, or where two
   *   connections were made at once
   * @throws {UsageError} the connection, or another through the same socket, is another user's
   */
  check(): number | null {
    const peers = unixPeers(this.#path, this.#side);
    if (peers === null) return null;
    const stranger = peers.find(({ uid }) => !isTrusted(uid));
    if (stranger !== undefined) {
      const verb = this.#side === "accepted" ? "connected to" : "listens at";
      throw new UsageError(
        `a process of another user (pid ${stranger.pid}, uid ${stranger.uid}) ${verb} ${this.#path}`,
      );
    }
    return this.#pidOfNew(peers);
  }

  #pidOfNew(peers: readonly UnixPeer[]): number | null {
    const fresh = peers.filter(({ inode }) => !this.#known.has(inode));
    this.#known = new Set(peers.map(({ inode }) => inode));
    return fresh.length === 1 ? fresh[0].pid : null;
  }
}

/** The process of this user, or of root, that listens at a socket; null where none does, or it is not known. */
export async function listenerPid(path: string): Promise<number | null> {
  try {
    checkSocket(path);
    using _connection = await Deno.connect({ transport: "unix", path });
    const pid = new UnixPeers(path, "connected").check();
    return pid === 0 ? null : pid; // 0: of another container
  } catch {
    return null;
  }
}

function isTrusted(uid: number | null): boolean {
  return uid === null || uid === ROOT || uid === Deno.uid();
}

function statOf(stat: () => Deno.FileInfo): Deno.FileInfo | null {
  try {
    return stat();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return null;
    throw new UsageError(`a socket cannot be looked at: ${(error as Error).message}`);
  }
}
