/**
 * Closes TLS connections whose handshake may not be over. `Deno.TlsConn.close` of Deno 2.9 keeps such a
 * connection, and its file descriptor, for as long as the other end says nothing. Here both directions are
 * shut down (shutdown(2)), which ends it at once. Linux; on other systems it is `close` alone.
 */
import { linuxLibC } from "./libc.ts";
import { nameSymbol, ownDescriptors, socketName } from "./socket_names.ts";

const libc = linuxLibC({
  getsockname: nameSymbol,
  getpeername: nameSymbol,
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
});

/** sys/socket.h of Linux. */
const SHUT_RDWR = 2;
/** Least time between two searches among the descriptors, which strangers can cause by connecting. */
const PAUSE_MS = 100;

/** Names of connections to be shut down, as {@linkcode nameOf} makes them. */
const closing = new Set<string>();
let timer: ReturnType<typeof setTimeout> | null = null;
let lastMs = -Infinity;

/** @throws {Deno.errors.BadResource} it is closed already; it is shut down nevertheless */
export function closeTls(connection: Deno.TlsConn): void {
  const { localAddr, remoteAddr } = connection as Deno.Conn<Deno.NetAddr>;
  closing.add(nameOf(textOf(localAddr), textOf(remoteAddr)));
  try {
    connection.close();
  } finally {
    const waitMs = lastMs + PAUSE_MS - performance.now();
    if (waitMs <= 0) shutDownAll();
    else timer ??= setTimeout(shutDownAll, waitMs);
  }
}

function shutDownAll(): void {
  clearTimeout(timer ?? undefined);
  timer = null;
  lastMs = performance.now();
  const c = libc();
  for (const fd of c === null ? [] : ownDescriptors()) {
    const local = socketName(c!.getsockname, fd);
    const remote = local === null ? null : socketName(c!.getpeername, fd);
    if (remote === null || !closing.has(nameOf(local!, remote))) continue;
    c!.shutdown(fd, SHUT_RDWR);
  }
  closing.clear();
}

function nameOf(local: string, remote: string): string {
  return `${local} ${remote}`;
}

/** As {@linkcode socketName} has it. */
function textOf({ hostname, port }: Deno.NetAddr): string {
  const isIpv6 = hostname.includes(":");
  return isIpv6 ? `${new URL(`http://[${hostname}]`).hostname}:${port}` : `${hostname}:${port}`;
}
