/** The TCP sockets on which this process listens, and whether programs that it starts inherit them. Linux only. */
import { linuxLibC } from "./libc.ts";
import { nameSymbol, ownDescriptors, tcpPort } from "./socket_names.ts";

const libc = linuxLibC({
  fcntl: { parameters: ["i32", "i32", "i32"], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  getsockname: nameSymbol,
});

// fcntl.h, sys/socket.h of Linux.
const F_SETFD = 2;
const F_DUPFD_CLOEXEC = 1030;
const FD_CLOEXEC = 1;
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;
const IPPROTO_TCP = 6;
const TCP_INFO = 11;
/** Where `struct tcp_info` (linux/tcp.h) of a socket that listens has the length of its queue. */
const TCPI_UNACKED_OFFSET = 24;

/** A socket that listens. */
export interface ListeningSocket {
  /** The lowest descriptor of the socket. */
  readonly fd: number;
  readonly port: number;
  /** As {@linkcode inodeOf}. */
  readonly inode: string;
}

/** All TCP sockets of this process that listen, each once; empty on other systems than Linux. */
export function listeningSockets(): ListeningSocket[] {
  if (libc() === null) return [];
  const sockets = new Map<string, ListeningSocket>();
  for (const fd of ownDescriptors().sort((a, b) => a - b)) {
    const port = listeningPort(fd);
    if (port === null) continue;
    const inode = inodeOf(fd);
    if (!sockets.has(inode)) sockets.set(inode, { fd, port, inode });
  }
  return [...sockets.values()];
}

/** The name of the socket behind a descriptor. It is the same for copies of the descriptor. */
export function inodeOf(fd: number): string {
  return Deno.readLinkSync(`/proc/self/fd/${fd}`);
}

/** The port on which a descriptor listens; null: it is no TCP socket that listens. */
export function listeningPort(fd: number): number | null {
  const c = libc();
  if (c === null) return null;
  const value = new Int32Array(1);
  const bytes = new Uint8Array(value.buffer);
  const length = new Uint8Array(Uint32Array.of(4).buffer);
  const isKnown = c.getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, bytes, length) === 0;
  return isKnown && value[0] === 1 ? tcpPort(c.getsockname, fd) : null;
}

/** Sets whether programs that this process starts from now on get a descriptor. */
export function setInherited(fd: number, isInherited: boolean): void {
  if (libc()?.fcntl(fd, F_SETFD, isInherited ? 0 : FD_CLOEXEC) === 0) return;
  throw new Error(`descriptor ${fd} cannot be passed on`);
}

/**
 * Another descriptor of the same file, which programs that this process starts do not get.
 * @returns null if this process may not open more files
 */
export function duplicate(fd: number): number | null {
  const copy = libc()?.fcntl(fd, F_DUPFD_CLOEXEC, 0) ?? -1;
  return copy < 0 ? null : copy;
}

/** Connections of a listening socket that no process has accepted yet. */
export function waitingConnections(fd: number): number {
  const info = new Uint32Array(TCPI_UNACKED_OFFSET / 4 + 1);
  const length = new Uint8Array(Uint32Array.of(info.byteLength).buffer);
  const bytes = new Uint8Array(info.buffer);
  const isKnown = libc()?.getsockopt(fd, IPPROTO_TCP, TCP_INFO, bytes, length) === 0;
  return isKnown ? info[TCPI_UNACKED_OFFSET / 4] : 0;
}
