/** TCP between the processes of a cluster: TLS under the authority of the cluster's key, and a proof inside. */
import { UsageError } from "../../core/errors.ts";
import { closeAt, closeQuietly } from "../closing.ts";
import type { FrameReader } from "../frame_codec.ts";
import type { Tcp } from "../tcp.ts";
import { type Credentials, makeCredentials, TLS_NAME } from "./authority.ts";
import { type ProofKey, proofKey, proveBack, proveFirst } from "./proof.ts";

export class SecureTcp implements Tcp {
  private constructor(
    private readonly credentials: Credentials,
    private readonly key: ProofKey,
  ) {}

  /** @param secret the cluster's key */
  static async open(secret: Uint8Array<ArrayBuffer>): Promise<SecureTcp> {
    const [credentials, key] = await Promise.all([makeCredentials(secret), proofKey(secret)]);
    return new SecureTcp(credentials, key);
  }

  listen(hostname: string, port: number): Deno.TlsListener {
    const { certificate: cert, privateKey: key } = this.credentials;
    return Deno.listenTls({ hostname, port, cert, key });
  }

  async secure(tcp: Deno.TcpConn, deadlineMs: number): Promise<Deno.Conn> {
    const caCerts = [this.credentials.authority];
    // The TLS connection takes over the plain one, which cannot be closed any more.
    const conn = await Deno.startTls(tcp, { hostname: TLS_NAME, caCerts });
    const cancel = closeAt(deadlineMs, conn);
    try {
      await conn.handshake();
      return conn;
    } catch (error) {
      closeQuietly(conn);
      throw explained(error as Error);
    } finally {
      cancel();
    }
  }

  async proveFirst(conn: Deno.Conn, reader: FrameReader, version: number): Promise<void> {
    await proveFirst(conn, reader, this.key, version);
  }

  async proveBack(conn: Deno.Conn, reader: FrameReader, version: number): Promise<void> {
    await proveBack(conn, reader, this.key, version);
  }
}

/** What a failed handshake means here. */
function explained(error: Error): Error {
  const { message } = error;
  if (/certificate|issuer|signature/i.test(message)) {
    return new UsageError(
      "its certificate is of another cluster: give all processes the same --cluster-key-file " +
        `(${message})`,
      { cause: error },
    );
  }
  // The other process may also have ended just now, so this is an error after which callers retry.
  return new Error(
    "it does not speak TLS: another service listens there, or a process that was started with " +
      `--cluster-insecure, or it is ending (${message})`,
    { cause: error },
  );
}
