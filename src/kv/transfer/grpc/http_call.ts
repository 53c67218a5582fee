import { closeTls } from "../../../../ffi/tls_close.ts";
import { UnavailableError } from "../../../core/errors.ts";
import type { HostSecurity } from "../backend_kind.ts";

/** Longest head and longest body of an answer. */
const MAX_HEAD_BYTES = 16 << 10, MAX_BODY_BYTES = 64 << 10;
const READ_BYTES = 4 << 10;

export interface HttpTarget {
  readonly host: string;
  readonly port: number;
}

export interface HttpAnswer {
  readonly status: number;
  readonly body: Uint8Array<ArrayBuffer>;
}

/**
 * A POST on a connection of its own, with a body of known length that the caller writes piece by piece.
 * `fetch` takes bodies only as streams, which cost a copy and several promises for each 64 KiB: it sent
 * blocks at half of this class's speed or less.
 */
export class HttpCall {
  /**
   * Settles when the server has answered, which it may do before the body's end to refuse it. Writes that
   * are under way then fail.
   */
  readonly answer: Promise<HttpAnswer>;
  readonly #connection: Deno.Conn;
  #isAnswered = false;
  #isClosed = false;

  private constructor(connection: Deno.Conn) {
    this.#connection = connection;
    this.answer = this.#readAnswer();
    this.answer.catch(() => {}).finally(() => {
      this.#isAnswered = true;
      this.close();
    });
  }

  /**
   * Connects and sends the head.
   * @param security with it the connection is TLS, and the server a process of the cluster
   * @throws {Error} nobody answers there, or no process of the cluster, or `signal` was aborted
   */
  static async open(
    { host, port }: HttpTarget,
    path: string,
    headers: Readonly<Record<string, string>>,
    signal: AbortSignal,
    security: HostSecurity | null,
  ): Promise<HttpCall> {
    const connection = await Deno.connect({ hostname: host, port, signal });
    connection.setNoDelay();
    const call = new HttpCall(
      security === null ? connection : await startTls(connection, security, signal),
    );
    const close = () => call.close();
    signal.addEventListener("abort", close);
    call.answer.catch(() => {}).finally(() => signal.removeEventListener("abort", close));
    if (signal.aborted) close();
    const authority = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`;
    const lines = Object.entries({ host: authority, connection: "close", ...headers })
      .map(([name, value]) => `${name}: ${value}\r\n`);
    try {
      await call.write(new TextEncoder().encode(`POST ${path} HTTP/1.1\r\n${lines.join("")}\r\n`));
      return call;
    } catch (error) {
      call.close();
      throw error;
    }
  }

  /** Whether there is no use in writing more. */
  get isAnswered(): boolean {
    return this.#isAnswered;
  }

  /** Resolves when the system has taken the bytes: the caller may use the buffer again. */
  async write(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    for (let written = 0; written < bytes.length;) {
      written += await this.#connection.write(bytes.subarray(written));
    }
  }

  /** Ends what is under way. */
  close(): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    this.#connection.close();
  }

  async #readAnswer(): Promise<HttpAnswer> {
    let bytes = new Uint8Array(0);
    const chunk = new Uint8Array(READ_BYTES);
    const more = async () => {
      const count = await this.#connection.read(chunk);
      if (count === null) throw new UnavailableError("the other end closed the connection");
      const longer = new Uint8Array(bytes.length + count);
      longer.set(bytes);
      longer.set(chunk.subarray(0, count), bytes.length);
      bytes = longer;
    };
    let headBytes;
    while ((headBytes = endOfHead(bytes)) < 0) {
      if (bytes.length > MAX_HEAD_BYTES) {
        throw new UnavailableError("the answer's head is too long");
      }
      await more();
    }
    const head = new TextDecoder().decode(bytes.subarray(0, headBytes));
    const status = Number(/^HTTP\/1\.[01] (\d{3})/.exec(head)?.[1] ?? NaN);
    const bodyBytes = Number(/^content-length: *(\d{1,9})\r$/im.exec(head)?.[1] ?? NaN);
    if (!(status >= 200) || !(bodyBytes <= MAX_BODY_BYTES)) {
      throw new UnavailableError(
        "the other end is no migration backend: another service has the port",
      );
    }
    while (bytes.length < headBytes + bodyBytes) await more();
    return { status, body: bytes.slice(headBytes, headBytes + bodyBytes) };
  }
}

async function startTls(
  connection: Deno.TcpConn,
  { authority, serverName }: HostSecurity,
  signal: AbortSignal,
): Promise<Deno.TlsConn> {
  // The TLS connection takes over the plain one, which cannot be closed any more.
  const tls = await Deno.startTls(connection, { hostname: serverName, caCerts: [authority] });
  let isClosed = false;
  const close = () => {
    if (!isClosed) closeTls(tls); // the other end may never have answered
    isClosed = true;
  };
  signal.addEventListener("abort", close, { once: true });
  try {
    if (signal.aborted) throw new Error("it was aborted");
    await tls.handshake();
    return tls;
  } catch (error) {
    close();
    throw new UnavailableError(
      `no process of this cluster answers there (${
        (error as Error).message
      }): give all processes ` +
        "the same --cluster-key-file",
    );
  } finally {
    signal.removeEventListener("abort", close);
  }
}

/** -1 while the head is incomplete. */
function endOfHead(bytes: Uint8Array): number {
  for (let i = 3; i < bytes.length; i++) {
    if (bytes[i] === 10 && bytes[i - 1] === 13 && bytes[i - 2] === 10) return i + 1;
  }
  return -1;
}
