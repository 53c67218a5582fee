/**
 * Who is at the other end of a Unix socket, as the kernel has it (unix(7), SO_PEERCRED). Linux.
 *
 * Deno shows no descriptor of its connections. They are found among all descriptors of this process by
 * the name of the socket that they were made through.
 */
import { openLibC } from "./libc.ts";

const symbols = {
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getpeername: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// asm-generic/socket.h, sys/socket.h, sys/un.h
const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const AF_UNIX = 1;
const ADDRESS_BYTES = 110;
/** `struct ucred`: pid, uid, gid. */
const CREDENTIALS_BYTES = 12;

/** The process at the other end when the connection was made, or when it began to listen. */
export interface UnixPeer {
  /** Tells this connection from all others of the host. */
  readonly inode: string;
  readonly pid: number;
  readonly uid: number;
}

let loaded: ReturnType<typeof openLibC<typeof symbols>> | undefined;

/**
 * The other ends of all connections of this process that were made through the socket at `path`.
 * @param side `accepted`: this process listens there; `connected`: it has connected to it
 * @returns null where the system does not say
 */
export function unixPeers(path: string, side: "accepted" | "connected"): UnixPeer[] | null {
  if (Deno.build.os !== "linux") return null;
  const c = loaded === undefined ? loaded = openLibC(symbols) : loaded;
  if (c === null) return null;
  const address = new Uint8Array(ADDRESS_BYTES);
  const length = new Uint32Array(1);
  const nameOf = (get: typeof c.getsockname, fd: number): string | null => {
    length[0] = ADDRESS_BYTES;
    if (get(fd, address, new Uint8Array(length.buffer)) !== 0) return null;
    if ((address[0] | address[1] << 8) !== AF_UNIX) return null;
    const end = address.indexOf(0, 2);
    const text = address.subarray(2, Math.min(length[0], end < 0 ? ADDRESS_BYTES : end));
    return new TextDecoder().decode(text);
  };
  const wanted = realPath(path);
  const peers: UnixPeer[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    const own = nameOf(c.getsockname, fd);
    const other = own === null ? null : nameOf(c.getpeername, fd);
    if (own === null || other === null) continue; // no Unix socket, or one that listens
    const through = side === "accepted" ? own : other;
    if (through !== path && (through === "" || realPath(through) !== wanted)) continue;
    const credentials = new Int32Array(CREDENTIALS_BYTES / 4);
    length[0] = CREDENTIALS_BYTES;
    const bytes = new Uint8Array(credentials.buffer);
    if (c.getsockopt(fd, SOL_SOCKET, SO_PEERCRED, bytes, new Uint8Array(length.buffer)) !== 0) {
      continue;
    }
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
