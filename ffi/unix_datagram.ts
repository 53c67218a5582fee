/** Datagrams to Unix sockets through FFI: Deno has them only behind an unstable flag. Linux only. */
import { linuxLibC } from "./libc.ts";

const libc = linuxLibC({
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  sendto: {
    parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"],
    result: "isize",
  },
  close: { parameters: ["i32"], result: "i32" },
});

// sys/socket.h, sys/un.h of Linux.
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
/** `struct sockaddr_un`: the family, then the path. */
const FAMILY_BYTES = 2;
const MAX_PATH_BYTES = 108;

/**
 * Sends one datagram, and does not wait for room at the receiver.
 * @param path of the socket; an abstract name (unix(7)) begins with "@"
 * @returns false if it was not sent: no socket is bound to the path, the receiver's queue is full, or this
 *   is not Linux
 */
export function sendUnixDatagram(path: string, text: string): boolean {
  const address = socketAddress(path);
  const c = libc();
  if (address === null || c === null) return false;
  const fd = c.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return false;
  const data = new TextEncoder().encode(text);
  const flags = MSG_DONTWAIT | MSG_NOSIGNAL;
  const sent = c.sendto(fd, data, BigInt(data.length), flags, address, address.length);
  c.close(fd);
  return Number(sent) === data.length;
}

/** `struct sockaddr_un` of its exact length; null if the path is not one, or is too long. */
function socketAddress(path: string): Uint8Array<ArrayBuffer> | null {
  const isAbstract = path.startsWith("@");
  if (!isAbstract && !path.startsWith("/")) return null;
  const name = new TextEncoder().encode(path);
  if (isAbstract) name[0] = 0;
  // The length of an abstract name counts, and a path may end with its zero.
  if (name.length < 2 || name.length > (isAbstract ? MAX_PATH_BYTES : MAX_PATH_BYTES - 1)) {
    return null;
  }
  const address = new Uint8Array(FAMILY_BYTES + name.length + (isAbstract ? 0 : 1));
  new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX;
  address.set(name, FAMILY_BYTES);
  return address;
}
