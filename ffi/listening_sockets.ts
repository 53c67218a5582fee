/**
 * The TCP sockets on which this process listens, and whether programs that it starts inherit them. Deno
 * shows no descriptor of its listeners, so they are found among all descriptors of this process. Linux only.
 */
import { openLibC } from "./libc.ts";

const symbols = {
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

// fcntl.h, sys/socket.h, netinet/in.h of Linux.
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
const AF_INET = 2;
const AF_INET6 = 10;
const SOCKADDR6_BYTES = 28;

/** A socket that listens. */
export interface ListeningSocket {
  readonly fd: number;
  readonly port: number;
}

let c: ReturnType<typeof openLibC<typeof symbols>> | undefined;

function libc() {
  if (c === undefined) c = Deno.build.os === "linux" ? openLibC(symbols) : null;
  return c;
}

/** All TCP sockets of this process that listen; empty on other systems than Linux. */
export function listeningSockets(): ListeningSocket[] {
  if (libc() === null) return [];
  return [...Deno.readDirSync("/proc/self/fd")]
    .map(({ name }) => Number(name))
    .sort((a, b) => a - b)
    .flatMap((fd) => {
      const port = listeningPort(fd);
      return port === null ? [] : { fd, port };
    });
}

/** The port on which a descriptor listens; null: it is no TCP socket that listens. */
export function listeningPort(fd: number): number | null {
  const symbols = libc();
  if (symbols === null) return null;
  const value = new Int32Array(1);
  const length = Uint32Array.of(4);
  const bytes = (array: Int32Array<ArrayBuffer> | Uint32Array<ArrayBuffer>) =>
    new Uint8Array(array.buffer);
  if (symbols.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, bytes(value), bytes(length)) !== 0) {
    return null;
  }
  const address = new Uint8Array(SOCKADDR6_BYTES);
  length[0] = address.length;
  if (value[0] !== 1 || symbols.getsockname(fd, address, bytes(length)) !== 0) return null;
  const view = new DataView(address.buffer);
  const isTcp = [AF_INET, AF_INET6].includes(view.getUint16(0, true)); // x86-64 and ARM64
  return isTcp ? view.getUint16(2) : null; // sin_port, sin6_port: in network order
}

/** Sets whether programs that this process starts from now on get a descriptor. */
export function setInherited(fd: number, isInherited: boolean): void {
  if (libc()?.fcntl(fd, F_SETFD, isInherited ? 0 : FD_CLOEXEC) === 0) return;
  throw new Error(`descriptor ${fd} cannot be passed on`);
}
