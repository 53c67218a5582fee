/** Names that one process of a host holds at a time. */
import { linuxLibC } from "./libc.ts";

const libc = linuxLibC({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
});

// sys/socket.h of Linux.
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
/** Bytes of `sun_path`; an abstract name begins with a zero byte. */
const MAX_NAME_BYTES = 107;

/** A name that this process holds. */
export interface HostClaim {
  release(): void;
}

/**
 * Claims a name for this process. The kernel frees it when the process ends, however it ends: the name is
 * that of an abstract socket, so there is no file. Processes in another network namespace, such as a
 * container, have names of their own.
 * @returns null if a process holds the name
 * @throws {RangeError} the name is empty, or longer than 107 bytes
 */
export function claimName(name: string): HostClaim | null {
  const bytes = new TextEncoder().encode(name);
  if (bytes.length === 0 || bytes.length > MAX_NAME_BYTES) {
    throw new RangeError(`a name of ${bytes.length} bytes; expected 1 to ${MAX_NAME_BYTES}`);
  }
  const c = libc();
  if (c === null) return { release() {} }; // nothing to claim it with
  const address = new Uint8Array(2 + 1 + bytes.length);
  new DataView(address.buffer).setUint16(0, AF_UNIX, true);
  address.set(bytes, 3);
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error("cannot open a socket: raise the limit of open files");
  if (c.bind(fd, address, address.length) !== 0) {
    c.close(fd);
    return null;
  }
  let isHeld = true;
  return {
    release() {
      if (isHeld) c.close(fd);
      isHeld = false;
    },
  };
}

/** A name that a process of this host holds. */
export interface HeldName {
  readonly name: string;
  /** Null: the process is another user's, or has just ended. */
  readonly pid: number | null;
}

/** The names that begin with `prefix` and that processes hold, including this one. */
export function heldNames(prefix: string): HeldName[] {
  return abstractSockets()
    .filter(({ name }) => name.startsWith(prefix))
    .map(({ name, inode }) => ({ name, pid: ownerOf(inode) }));
}

function abstractSockets(): { name: string; inode: string }[] {
  // Num RefCount Protocol Flags Type St Inode Path; an abstract name is shown with an "@" before it.
  return textOf("/proc/net/unix").split("\n").flatMap((line) => {
    const found = /^\S+ \S+ \S+ \S+ \S+ \S+ +(\d+) @(.+)$/.exec(line);
    return found === null ? [] : { inode: found[1], name: found[2] };
  });
}

function ownerOf(inode: string): number | null {
  const pids = namesIn("/proc").filter((name) => /^\d+$/.test(name));
  const owner = pids.find((pid) =>
    namesIn(`/proc/${pid}/fd`).some((fd) => linkAt(`/proc/${pid}/fd/${fd}`) === `socket:[${inode}]`)
  );
  return owner === undefined ? null : Number(owner);
}

// Processes end while they are looked at, and other users' may not be looked at.

function textOf(path: string): string {
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return "";
  }
}

function namesIn(path: string): string[] {
  try {
    return [...Deno.readDirSync(path)].map(({ name }) => name);
  } catch {
    return [];
  }
}

function linkAt(path: string): string {
  try {
    return Deno.readLinkSync(path);
  } catch {
    return "";
  }
}
