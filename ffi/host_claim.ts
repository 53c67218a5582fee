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
