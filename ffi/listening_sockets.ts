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
const FD_CLOEXEC = 1;
const SOL_SOCKET = 1;
const SO_ACCEPTCONN = 30;

/** A socket that listens. */
export interface ListeningSocket {
  readonly fd: number;
  readonly port: number;
}

/** All TCP sockets of this process that listen; empty on other systems than Linux. */
export function listeningSockets(): ListeningSocket[] {
  if (libc() === null) return [];
  return ownDescriptors().sort((a, b) => a - b).flatMap((fd) => {
    const port = listeningPort(fd);
    return port === null ? [] : { fd, port };
  });
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
