import type { FrameReader } from "./frame_codec.ts";
import { UsageError } from "../core/errors.ts";

/** How connections over TCP are made, and how each end makes sure of the other. */
export interface Tcp {
  listen(hostname: string, port: number): Deno.Listener;
  /**
   * Turns a connection that this process has made into one that may be used. If that fails, it is closed.
   * @param deadlineMs by `performance.now`
   */
  secure(tcp: Deno.TcpConn, deadlineMs: number): Promise<Deno.Conn>;
  /** After the greetings, at the end that connected. @throws {UsageError} the other end does not belong here */
  proveFirst(conn: Deno.Conn, reader: FrameReader, version: number): Promise<void>;
  /** After the greetings, at the other end. @throws {UsageError} the other end does not belong here */
  proveBack(conn: Deno.Conn, reader: FrameReader, version: number): Promise<void>;
}

/** What processes of other hosts have to have: the bytes of the cluster's key, or nothing at all. */
export type ClusterKey = Uint8Array<ArrayBuffer> | "insecure";

/** Neither authenticated nor encrypted. */
const plainTcp: Tcp = {
  listen: (hostname, port) => Deno.listen({ hostname, port }),
  secure: (tcp) => Promise.resolve(tcp),
  proveFirst: () => Promise.resolve(),
  proveBack: () => Promise.resolve(),
};

/** @throws {UsageError} there is no key */
export async function openTcp(key: ClusterKey | null): Promise<Tcp> {
  if (key === "insecure") return plainTcp;
  if (key === null) {
    throw new UsageError(
      "TCP between processes needs a key that all of them have: make one (llumnix keygen FILE) and " +
        "give it to each (--cluster-key-file FILE, or LLUMNIX_CLUSTER_KEY); or let anyone who reaches " +
        "the port use the service and read its prompts (--cluster-insecure)",
    );
  }
  const { SecureTcp } = await import("./tls/secure_tcp.ts"); // 50 ms that only TCP needs
  return await SecureTcp.open(key);
}
