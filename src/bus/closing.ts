/** Ends of connections that are not in use yet. */
import { closeTls } from "../../ffi/tls_close.ts";

/** Closes a connection at a deadline, unless the function that it returns is called before. */
export function closeAt(deadlineMs: number, conn: Deno.Conn): () => void {
  const timer = setTimeout(() => closeQuietly(conn), Math.max(0, deadlineMs - performance.now()));
  return () => clearTimeout(timer);
}

/** Also in the middle of a TLS handshake. Does nothing if it is closed already. */
export function closeQuietly(conn: Deno.Conn): void {
  try {
    if ("handshake" in conn) closeTls(conn as Deno.TlsConn);
    else conn.close();
  } catch {
    // It is closed already.
  }
}
