import { createConnectRouter } from "@connectrpc/connect";
import { createFetchHandler } from "@connectrpc/connect/protocol";
import { create, toBinary } from "@bufbuild/protobuf";
import { timingSafeEqual } from "node:crypto";
import { acceptedConnections } from "../../../../ffi/accepted_connections.ts";
import type { Clock } from "../../../core/clock.ts";
import { LlumnixError, UnavailableError, UsageError } from "../../../core/errors.ts";
import { logger } from "../../../core/log.ts";
import type { HostSecurity } from "../backend_kind.ts";
import { END_FLAG, envelope } from "./envelope.ts";
import { IdleConnections } from "./idle_connections.ts";
import type { IncomingWrites } from "./incoming_writes.ts";
import { type HealthReply, Migration, type StatsReply, WriteReplySchema } from "./migration_pb.ts";

/** Instances of one host that can have the same address: each takes the next free port. */
const NUM_PORTS = 64;
/** Longest message of Health and Stats. */
const MAX_UNARY_BYTES = 4 << 10;
/** Most time for the body of Health and Stats to arrive. */
const UNARY_TIMEOUT_MS = 5_000;
/** Most time for reading a request that is refused whatever it says. */
const DRAIN_MS = 500;
/** Pause before the server listens again, and between attempts. */
const LISTEN_AGAIN_MS = 250;
export const WRITE_PATH = "/llumnix.Migration/Write";
export const HEALTH_PATH = "/llumnix.Migration/Health";
export const STREAM_TYPE = "application/connect+proto";
const GRPC_REFUSAL = "this server speaks the Connect protocol over HTTP/1.1, and not gRPC over " +
  "HTTP/2: call it by a Connect client or by JSON (POST application/json)";

const log = logger("grpc");

type Reply<T> = Omit<T, "$typeName" | "$unknown">;

export interface MigrationServerArgs {
  readonly hostname: string;
  /** 0 for any free port. */
  readonly port: number;
  readonly writes: IncomingWrites;
  readonly clock: Clock;
  /** With it all methods need TLS and a caller of the cluster. */
  readonly security: HostSecurity | null;
  /** Of the migration group; null while there is none. */
  secret(): string | null;
  health(): Reply<HealthReply>;
  stats(): Reply<StatsReply>;
}

/** Serves `migration.proto` by Connect. */
export class MigrationServer {
  readonly port: number;
  readonly #args: MigrationServerArgs;
  /** Null while it cannot listen. */
  #server: Deno.HttpServer<Deno.NetAddr> | null;
  readonly #closing = new AbortController();
  readonly #idle: IdleConnections;
  /** Of Health and Stats, by path. */
  readonly #handlers: ReadonlyMap<string, (request: Request) => Promise<Response>>;

  /**
   * Listens at the address, and at no other.
   * @throws {UsageError} the address is not of this host, or its ports are taken
   */
  constructor(args: MigrationServerArgs) {
    this.#args = args;
    const router = createConnectRouter({
      ...{ grpc: false, grpcWeb: false, acceptCompression: [], readMaxBytes: MAX_UNARY_BYTES },
    });
    router.service(Migration, { health: () => args.health(), stats: () => args.stats() });
    this.#handlers = new Map(
      router.handlers.map((handler) => [handler.requestPath, createFetchHandler(handler)]),
    );
    const server = this.#listen();
    this.#server = server;
    this.port = server.addr.port;
    this.#keepListening(server);
    this.#idle = new IdleConnections({
      clock: args.clock,
      list: () => acceptedConnections(this.port),
    });
  }

  /** Closes the connections. The caller has closed the writes. */
  async close(): Promise<void> {
    this.#idle.close();
    this.#closing.abort();
    await this.#server?.finished.catch(() => {}); // it could not accept
  }

  /**
   * `Deno.serve` of Deno 2.9 ends when it cannot accept a connection for want of a file descriptor, which
   * strangers can bring about.
   */
  #keepListening(server: Deno.HttpServer<Deno.NetAddr>): void {
    server.finished.catch((error) => {
      log.warn(`cannot accept connections from other instances: ${error.message}; trying again`);
      this.#server = null;
      this.#listenAgain();
    });
  }

  #listenAgain(): void {
    this.#args.clock.after(LISTEN_AGAIN_MS, () => {
      if (this.#closing.signal.aborted) return;
      try {
        this.#server = this.#serve(this.port);
        this.#keepListening(this.#server);
      } catch {
        this.#listenAgain(); // the descriptors are still in use, or the port is
      }
    });
  }

  #listen(): Deno.HttpServer<Deno.NetAddr> {
    const { hostname, port } = this.#args;
    const last = port === 0 ? 0 : Math.min(port + NUM_PORTS - 1, 65535);
    for (let next = port; next <= last; next++) {
      try {
        return this.#serve(next);
      } catch (error) {
        if (error instanceof Deno.errors.AddrInUse) continue;
        throw new UsageError(
          `--migration-backend-server-address ${hostname}:${port}: ${(error as Error).message}: ` +
            "expected an address of this host",
        );
      }
    }
    throw new UsageError(
      `--migration-backend-server-address ${hostname}:${port}: other programs have the ports ` +
        `${port} to ${last}: choose another port, or 0 for any free one`,
    );
  }

  #serve(port: number): Deno.HttpServer<Deno.NetAddr> {
    const { hostname, security } = this.#args;
    const { certificate: cert, privateKey: key } = security ?? {};
    const tls = cert === undefined || key === undefined ? {} : { cert, key };
    return Deno.serve({
      ...{ hostname, port, signal: this.#closing.signal, onListen() {}, ...tls },
      onError: () => new Response(null, { status: 500 }),
    }, (request, { remoteAddr, completed }) => {
      const end = this.#idle.begin((remoteAddr as Deno.NetAddr).port);
      completed.then(end, end);
      return this.#answer(request);
    });
  }

  async #answer(request: Request): Promise<Response> {
    const { pathname } = new URL(request.url);
    const type = request.headers.get("content-type") ?? "";
    // The headers of gRPC's answer without a body: its clients show the message.
    if (/^application\/grpc/.test(type)) {
      // Over HTTP/2 an answer that comes before the end of the request can get lost.
      await this.#readShort(request, DRAIN_MS);
      return new Response(null, {
        headers: { "content-type": type, "grpc-status": "12", "grpc-message": GRPC_REFUSAL },
      });
    }
    if (pathname === WRITE_PATH) {
      if (request.method === "POST" && type === STREAM_TYPE) return await this.#write(request);
      const message = `Write takes POST with content-type ${STREAM_TYPE}`;
      return new Response(message, { status: 415, headers: { "accept-post": STREAM_TYPE } });
    }
    const handler = this.#handlers.get(pathname);
    if (handler !== undefined) return await this.#answerUnary(request, handler);
    return new Response("see migration.proto for what there is", { status: 404 });
  }

  async #answerUnary(
    request: Request,
    handler: (request: Request) => Promise<Response>,
  ): Promise<Response> {
    const { security } = this.#args;
    if (security !== null && !hasBearer(request, security.token)) {
      return Response.json(
        { code: "unauthenticated", message: "only processes of the cluster may call" },
        { status: 401 },
      );
    }
    const body = await this.#readShort(request, UNARY_TIMEOUT_MS);
    if (body === null) {
      const message = `expected a body of at most ${MAX_UNARY_BYTES} bytes within ` +
        `${UNARY_TIMEOUT_MS / 1000} s`;
      return Response.json({ code: "invalid_argument", message }, { status: 400 });
    }
    const { url, method, headers } = request;
    const hasBody = method !== "GET" && method !== "HEAD";
    const answer = await handler(
      new Request(url, { method, headers, body: hasBody ? body : undefined }),
    );
    return new Response(await answer.bytes(), answer); // with its length
  }

  /** @returns null: the body is longer than that of a message, or did not come in time */
  async #readShort({ body }: Request, timeoutMs: number): Promise<Uint8Array<ArrayBuffer> | null> {
    if (body === null) return new Uint8Array();
    const reader = body.getReader();
    let isLate = false;
    const cancelTimer = this.#args.clock.after(timeoutMs, () => {
      isLate = true;
      reader.cancel().catch(() => {});
    });
    const bytes: number[] = [];
    try {
      while (bytes.length <= MAX_UNARY_BYTES) {
        const { value } = await reader.read();
        if (value === undefined) return isLate ? null : Uint8Array.from(bytes);
        if (bytes.length + value.length > MAX_UNARY_BYTES) break;
        bytes.push(...value);
      }
    } catch {
      return null; // the client is gone
    } finally {
      cancelTimer();
    }
    await reader.cancel().catch(() => {});
    return null;
  }

  async #write(request: Request): Promise<Response> {
    try {
      this.#checkSecret(request);
      const bytes = await this.#args.writes.receive(request);
      const reply = toBinary(WriteReplySchema, create(WriteReplySchema, { bytes: BigInt(bytes) }));
      return streamAnswer(envelope(reply), {});
    } catch (error) {
      return streamAnswer(null, { error: connectError(error) });
    }
  }

  /** @throws {Unauthenticated} */
  #checkSecret(request: Request): void {
    const secret = this.#args.secret();
    if (secret === null) throw new UnavailableError("the instance is in no migration group");
    if (hasBearer(request, secret)) return;
    throw new Unauthenticated("the caller is not in this instance's migration group");
  }
}

/** In constant time. */
function hasBearer({ headers }: Request, token: string): boolean {
  const given = new TextEncoder().encode(headers.get("authorization") ?? "");
  const expected = new TextEncoder().encode(`Bearer ${token}`);
  return given.length === expected.length && timingSafeEqual(given, expected);
}

class Unauthenticated extends Error {}

/** The answer to a stream: HTTP 200 whatever happened, as Connect has it. */
function streamAnswer(reply: Uint8Array<ArrayBuffer> | null, end: object): Response {
  const last = envelope(new TextEncoder().encode(JSON.stringify(end)), END_FLAG);
  const body = new Uint8Array((reply?.length ?? 0) + last.length);
  if (reply !== null) body.set(reply);
  body.set(last, reply?.length ?? 0);
  return new Response(body, { headers: { "content-type": STREAM_TYPE } });
}

function connectError(error: unknown): { readonly code: string; readonly message: string } {
  const { message } = error as Error;
  if (error instanceof Unauthenticated) return { code: "unauthenticated", message };
  if (!(error instanceof LlumnixError)) return { code: "internal", message };
  return { code: error instanceof UnavailableError ? "unavailable" : "invalid_argument", message };
}
