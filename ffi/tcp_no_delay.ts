/**
 * Sets TCP_NODELAY (tcp(7)) on accepted TLS connections, for which Deno has no switch. Without it a token
 * may be held back for 40 ms, until the client has acknowledged the token before it. Linux only.
 */
import { openLibC } from "./libc.ts";

const symbols = {
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// sys/socket.h, netinet/in.h, netinet/tcp.h
const AF_INET = 2;
const AF_INET6 = 10;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
/** `struct sockaddr_in6`, the larger of the two. */
const ADDRESS_BYTES = 28;

let loaded: ReturnType<typeof openLibC<typeof symbols>> | undefined;

/**
 * For all sockets of this process with a local port, which connections that were accepted there share.
 * @returns how many there are; null where the system does not have it
 */
export function sendAtOnceFrom(localPort: number): number | null {
  if (Deno.build.os !== "linux") return null;
  const c = loaded === undefined ? loaded = openLibC(symbols) : loaded;
  if (c === null) return null;
  const address = new Uint8Array(ADDRESS_BYTES);
  const length = new Uint32Array(1);
  const on = new Uint8Array(Int32Array.of(1).buffer);
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    const fd = Number(name);
    length[0] = ADDRESS_BYTES;
    if (c.getsockname(fd, address, new Uint8Array(length.buffer)) !== 0) continue;
    const family = address[0] | address[1] << 8;
    const port = address[2] << 8 | address[3];
    if ((family !== AF_INET && family !== AF_INET6) || port !== localPort) continue;
    if (c.setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, on, on.length) === 0) count++;
  }
  return count;
}
