/**
 * The sockets of this process by their names. Deno shows no descriptor of its sockets, so they are found
 * among all descriptors of the process. Linux only.
 */

/** `getsockname` and `getpeername` of the C library. */
export const nameSymbol = {
  parameters: ["i32", "buffer", "buffer"],
  result: "i32",
} as const satisfies Deno.ForeignFunction;

type GetName = (
  fd: number,
  address: Uint8Array<ArrayBuffer>,
  length: Uint8Array<ArrayBuffer>,
) => number;

// sys/socket.h, netinet/in.h, sys/un.h of Linux.
const AF_UNIX = 1;
const AF_INET = 2;
const AF_INET6 = 10;
/** `struct sockaddr_un`, larger than `struct sockaddr_in6`. */
const ADDRESS_BYTES = 110;

const address = new Uint8Array(ADDRESS_BYTES);
const length = new Uint32Array(1);
const lengthBytes = new Uint8Array(length.buffer);

/** All open descriptors of this process. Its threads share them. */
export function ownDescriptors(): number[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => Number(name));
}

/** The port in a TCP socket's name; null: it is no such socket, or has no name at that end. */
export function tcpPort(get: GetName, fd: number): number | null {
  const family = readName(get, fd);
  return family === AF_INET || family === AF_INET6 ? address[2] << 8 | address[3] : null;
}

/** A TCP socket's name as in a URL, such as `127.0.0.1:80` or `[::1]:80`; null: it has none at that end. */
export function socketName(get: GetName, fd: number): string | null {
  const family = readName(get, fd);
  if (family !== AF_INET && family !== AF_INET6) return null;
  const port = address[2] << 8 | address[3];
  if (family === AF_INET) return `${address.subarray(4, 8).join(".")}:${port}`;
  const groups = Array.from(
    { length: 8 },
    (_, i) => (address[8 + 2 * i] << 8 | address[9 + 2 * i]).toString(16),
  );
  return `${new URL(`http://[${groups.join(":")}]`).hostname}:${port}`;
}

/** The path in a Unix socket's name; "" without a path; null: it is no such socket, or not connected. */
export function unixPath(get: GetName, fd: number): string | null {
  if (readName(get, fd) !== AF_UNIX) return null;
  const path = address.subarray(2, Math.max(2, length[0]));
  const end = path.indexOf(0);
  return new TextDecoder().decode(end < 0 ? path : path.subarray(0, end));
}

/** Reads a name into `address`. @returns its family; null if there is none */
function readName(get: GetName, fd: number): number | null {
  length[0] = ADDRESS_BYTES;
  return get(fd, address, lengthBytes) === 0 ? address[0] | address[1] << 8 : null;
}
