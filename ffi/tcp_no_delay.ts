/**
 * Sets TCP_NODELAY (tcp(7)) on accepted TLS connections, for which Deno has no switch. Without it a token
 * may be held back for 40 ms, until the client has acknowledged the token before it. Linux only.
 */
import { linuxLibC } from "./libc.ts";
import { nameSymbol, ownDescriptors, tcpPort } from "./socket_names.ts";

const libc = linuxLibC({
  getsockname: nameSymbol,
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
});

// netinet/in.h, netinet/tcp.h
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;

/**
 * For all sockets of this process with a local port, which connections that were accepted there share.
 * @returns how many there are; null where the system does not have it
 */
export function sendAtOnceFrom(localPort: number): number | null {
  const c = libc();
  if (c === null) return null;
  const on = new Uint8Array(Int32Array.of(1).buffer);
  const own = ownDescriptors().filter((fd) => tcpPort(c.getsockname, fd) === localPort);
  return own.filter((fd) => c.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.length) === 0).length;
}
