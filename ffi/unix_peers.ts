/**
 * Who is at the other end of a Unix socket, as the kernel has it (unix(7), SO_PEERCRED). Linux.
 *
 * Deno shows no descriptor of its connections. They are found among all descriptors of this process by
 * the name of the socket that they were made through.
 */
import { linuxLibC } from "./libc.ts";
import { nameSymbol, ownDescriptors, unixPath } from "./socket_names.ts";

const libc = linuxLibC({
  getsockname: nameSymbol,
  getpeername: nameSymbol,
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
});

// asm-generic/socket.h
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
/** `struct ucred`: pid, uid, gid. */
const CREDENTIALS_BYTES = 12;

/** The process at the other end when the connection was made, or when it began to listen. */
export interface UnixPeer {
  /** Tells this connection from all others of the host. */
  readonly inode: string;
  readonly pid: number;
  readonly uid: number;
}

/**
 * The other ends of all connections of this process that were made through the socket at `path`.
 * @param side `accepted`: this process listens there; `connected`: it has connected to it
 * @returns null where the system does not say
 */
export function unixPeers(path: string, side: "accepted" | "connected"): UnixPeer[] | null {
  const c = libc();
  if (c === null) return null;
  const wanted = realPath(path);
  const peers: UnixPeer[] = [];
  for (const fd of ownDescriptors()) {
    const own = unixPath(c.getsockname, fd);
    const other = own === null ? null : unixPath(c.getpeername, fd);
    if (own === null || other === null) continue; // no Unix socket, or one that listens
    const through = side === "accepted" ? own : other;
    if (through !== path && (through === "" || realPath(through) !== wanted)) continue;
    const credentials = new Int32Array(CREDENTIALS_BYTES / 4);
    const bytes = new Uint8Array(credentials.buffer);
    const length = new Uint8Array(Uint32Array.of(CREDENTIALS_BYTES).buffer);
    if (c.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytes, length) !== 0) continue;
    const [pid, uid] = credentials;
    peers.push({ inode: Deno.readLinkSync(`/proc/self/fd/${fd}`), pid, uid: uid >>> 0 });
  }
  return peers;
}

/** Two spellings of one path are equal; a file that is gone is as it is written. */
function realPath(path: string): string {
  const slash = path.lastIndexOf("/");
  try {
    return `${Deno.realPathSync(path.slice(0, slash) || "/")}/${path.slice(slash + 1)}`;
  } catch {
    return path;
  }
}
