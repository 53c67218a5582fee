/**
 * The HTTP server. It uses `node:http`, because `Deno.serve` of Deno 2.9 bounds neither the time of headers, nor
 * idle connections, nor their number: it kept silent connections and half-sent headers for as long as a test
 * waited (150 s).
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { Socket } from "node:net";
import type { Duplex } from "node:stream";
import { STATUS_CODE, STATUS_TEXT, type StatusCode } from "@std/http/status";
import { realClock, sleep } from "../core/clock.ts";
import type { ClusterMonitor } from "../core/cluster.ts";
import { LlumnixError, UnavailableError } from "../core/errors.ts";
import { isLoopback } from "../core/hosts.ts";
import type { Log } from "../core/log.ts";
import type { ServerOptions } from "../core/options.ts";
import type { TextService } from "../frontend/service.ts";
import type { AdminAccess } from "./admin_routes.ts";
import { ApiKeys, WrongTokens } from "./access.ts";
import { Admission } from "./admission.ts";
import type { ServerContext } from "./context.ts";
import { RequestMeter } from "../metrics/request_meter.ts";
import { CorsPolicy } from "./cors.ts";
import { ClientLeftError, HttpError, toErrorReply } from "./errors.ts";
import type { ClusterFeed } from "./feed/cluster_feed.ts";
import { ByteBudget, type ConnectionLimits, Exchange, UnreadAnswers } from "./exchange.ts";
import { connectionsWithinOpenFiles } from "./open_files.ts";
import { serverMetrics } from "./metrics_route.ts";
import { dispatch, isPoll } from "./routes.ts";
import { Listeners } from "./listeners.ts";
import { type PipelineProblem, Pipelines } from "./pipelines.ts";
import { checkHead } from "./request_head.ts";
import { FlushQueue } from "./stream_writer.ts";
import { unknownFieldCheck } from "./unknown_fields.ts";
import { readTlsFiles, type TlsFiles } from "./tls.ts";
import { TurnBudget } from "../core/turn_budget.ts";

export type { ConnectionLimits } from "./exchange.ts";

/** Bounds in force unless {@linkcode StartServerConfig.limits} says otherwise. */
export const defaultLimits: ConnectionLimits = {
  headerTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  idleTimeoutMs: 60_000,
  drainTimeoutMs: 30_000,
  probeIntervalMs: 20,
  maxHeaderBytes: 16 * 1024,
  maxConnections: 8192,
  maxUnreadBytes: 1024 * 1024,
  maxUnreadAnswerBytes: 256 * 1024 * 1024,
  maxPipelined: 8,
  maxIncomingBytes: 256 * 1024 * 1024,
  freeIncomingBytes: 32 * 1024,
};

/** Time for clients to read the last error at the end of a shutdown. */
const FAREWELL_MS = 500;

/**
 * How long a server that has a successor keeps connections without a request: a client that keeps its
 * connection may be about to send one, and gets an answer that says to close it.
 */
const IDLE_MS = 5_000;
const IDLE_POLL_MS = 50;

/** Encoding short prompts takes about 3 us a token, and a token of text is about four characters: 6 ms. */
const ENCODED_PER_TURN = 8192;

/** Bytes of request bodies that are read in one turn of the event loop: at most about 3 ms. */
const READ_PER_TURN = 256 * 1024;

/** Bytes of request bodies that are parsed in one turn of the event loop: at most about 5 ms. */
const PARSED_PER_TURN = 512 * 1024;

export interface StartServerConfig {
  readonly service: TextService;
  /** Opens the admin routes. */
  readonly admin?: AdminAccess;
  /** Clients need one of them; none: every client may use the service. */
  readonly apiKeys?: readonly string[];
  /** What the page at `/` shows. The server closes it when it stops. */
  readonly feed?: ClusterFeed;
  readonly options: ServerOptions;
  readonly version: string;
  readonly log: Log;
  /** Absent: the server has one of its own. */
  readonly meter?: RequestMeter;
  /** For `/metrics`; absent: it has the metrics of this API server alone. */
  readonly monitor?: ClusterMonitor;
  readonly limits?: Partial<ConnectionLimits>;
  /** Sockets to serve at instead of `--host` and `--port`: see {@linkcode ListenersConfig}. */
  readonly descriptors?: readonly number[];
}

export interface RunningServer {
  readonly address: { readonly hostname: string; readonly port: number };
  /** Of all sockets; one, unless sockets were given. */
  readonly ports: readonly number[];
  /** For clients on this machine. */
  readonly url: string;
  /**
   * Finishes the requests of this server, for which there is no time limit, while a successor serves at
   * the same sockets. Every answer asks its client for another connection, which the successor gets.
   * Resolves when no request is left. {@linkcode shutdown} ends it early.
   */
  giveWay(): Promise<void>;
  /**
   * Stops accepting, waits at most `deadlineMs` for the running requests, then ends them with an error.
   * Resolves when no connection is left.
   */
  shutdown(deadlineMs: number): Promise<void>;
  /** Aborts everything and cuts all connections. */
  closeNow(): void;
}

/**
 * Starts to serve.
 * @throws {UsageError} the port is taken, the host is not of this machine, TLS files are wrong
 */
export async function startServer(config: StartServerConfig): Promise<RunningServer> {
  const { options, log } = config;
  const hosts = hostsOf(options.host);
  const wanted = { ...defaultLimits, ...config.limits };
  const limits = boundConnections(wanted, hosts.length, log);
  const tls = await readTlsFiles(options);
  const { apiKeys = [] } = config;
  const cors = new CorsPolicy(options);
  const wrongTokens = new WrongTokens(log);
  const meter = config.meter ?? new RequestMeter(realClock);
  const context: ServerContext = {
    ...config,
    meter,
    metrics: serverMetrics({
      meter,
      monitor: config.monitor,
      model: config.service.model.names[0],
      version: config.version,
      clock: realClock,
    }),
    admission: new Admission(options.maxQueuedRequests),
    encoding: new TurnBudget(ENCODED_PER_TURN),
    generations: new Set(),
    checkFields: unknownFieldCheck(options.unknownFields, log),
    wrongTokens,
    apiKeys: new ApiKeys(apiKeys, wrongTokens),
    cors,
  };
  const exchanges = new Set<Exchange>();
  const shared = {
    queue: new FlushQueue(),
    unread: new UnreadAnswers(limits.maxUnreadAnswerBytes),
    incoming: new ByteBudget(limits.maxIncomingBytes),
    reading: new TurnBudget(READ_PER_TURN),
    parsing: new TurnBudget(PARSED_PER_TURN),
  };
  /** Connections that are kept would reach a server that is about to end. */
  let isLeaving = false;
  let isAccepting = true;

  const pipelines = new Pipelines(
    limits.maxPipelined,
    (socket, problem) => cutPipeline(socket, problem, limits, log),
  );

  const answer: Listener = (request, response) => {
    if (!pipelines.enter(request)) return;
    if (isLeaving) response.setHeader("connection", "close");
    const exchange = new Exchange(request, response, shared, limits);
    exchanges.add(exchange);
    serve(exchange, context);
    exchange.finished.then(() => {
      exchanges.delete(exchange);
      pipelines.leave(request.socket);
      logExchange(exchange, context);
    });
  };
  const listeners = await Listeners.open({
    hosts,
    options,
    create: async () => {
      const server = await createHttpServer(tls, limits, answer, log);
      pipelines.watch(server);
      return server;
    },
    log,
    descriptors: config.descriptors,
    mayRunOutOfFiles: limits.maxConnections < wanted.maxConnections,
  });
  const { address } = listeners;
  // Given sockets take the place of --host.
  if (listeners.areGiven) cors.isLocal = listeners.hostnames.every(isLoopback);
  const host = listeners.areGiven ? listeners.hostnames.join(", ") : options.host;
  warnOfOpenDoors(host, apiKeys, cors, log);
  context.feed?.start();

  function stopAccepting() {
    isLeaving = true;
    if (isAccepting) listeners.stop();
    isAccepting = false;
    context.feed?.close();
  }

  function refuseRequests() {
    stopAccepting();
    context.admission.close();
  }

  const allFinished = () => Promise.all([...exchanges].map((exchange) => exchange.finished));

  function endGenerations(message: string) {
    for (const generation of [...context.generations]) {
      generation.fail(new UnavailableError(message));
    }
  }

  return {
    address,
    ports: listeners.ports,
    url: `${tls === null ? "http" : "https"}://${urlHost(options.host)}:${address.port}`,
    async giveWay() {
      isLeaving = true;
      if (isAccepting) listeners.stopListening();
      isAccepting = false;
      context.feed?.close(); // pages find the successor
      const idleUntilMs = performance.now() + IDLE_MS;
      const mayComeMore = async () =>
        performance.now() < idleUntilMs && await listeners.countConnections() > 0;
      while (exchanges.size > 0 || await mayComeMore()) {
        await (exchanges.size > 0 ? allFinished() : sleep(realClock, IDLE_POLL_MS));
      }
      listeners.cutConnections();
    },
    async shutdown(deadlineMs) {
      refuseRequests();
      if (exchanges.size > 0) {
        log.info("waiting for running requests; a second signal stops at once", {
          requests: exchanges.size,
          atMostSeconds: Math.ceil(deadlineMs / 1000),
        });
      }
      if (!await resolvesWithin(allFinished(), deadlineMs)) {
        log.warn("requests are still running at the deadline, and end now", {
          requests: exchanges.size,
        });
        endGenerations(
          "The server is stopping, and the time that running requests have to end is over " +
            "(--shutdown-timeout). Send the request again once it is back, or to another one.",
        );
        await resolvesWithin(allFinished(), FAREWELL_MS);
      }
      listeners.cutConnections();
      await listeners.closed();
    },
    closeNow() {
      refuseRequests();
      endGenerations(
        "The server was stopped. Send the request again once it is back, or to another one.",
      );
      listeners.cutConnections();
    },
  };
}

/** Disconnects a client whose requests would fill memory, or keep the parser busy. */
function cutPipeline(
  socket: Socket,
  problem: PipelineProblem,
  { maxPipelined }: ConnectionLimits,
  log: Log,
): void {
  const client = socket.remoteAddress;
  if (problem === "too many requests") {
    log.warn(
      "disconnected a client that sends more requests on a connection than it reads answers",
      {
        client,
        requests: maxPipelined,
      },
    );
  } else {
    log.warn(
      "disconnected a client whose request body is hardly anything but the framing of chunks",
      {
        client,
      },
    );
  }
  socket.destroy();
}

function warnOfOpenDoors(
  host: string,
  apiKeys: readonly string[],
  cors: CorsPolicy,
  log: Log,
): void {
  if (apiKeys.length > 0) return;
  if (!cors.isLocal) {
    log.warn("everyone who reaches this address may use the service: no --api-key is set", {
      host,
    });
  }
  if (cors.allowsAll) {
    log.warn(
      "pages of every site may use the service from a browser: --allowed-origins has *, and no " +
        "--api-key is set",
    );
  }
}

function boundConnections(
  limits: ConnectionLimits,
  numHosts: number,
  log: Log,
): ConnectionLimits {
  const all = connectionsWithinOpenFiles(limits.maxConnections * numHosts);
  const maxConnections = Math.floor(all / numHosts);
  if (maxConnections < limits.maxConnections) {
    log.warn(
      `at most ${maxConnections} connections at once instead of ${limits.maxConnections}: this ` +
        `process may not open more files (ulimit -n)`,
    );
  }
  return { ...limits, maxConnections };
}

type Listener = (request: IncomingMessage, response: ServerResponse) => void;

async function createHttpServer(
  tls: TlsFiles | null,
  limits: ConnectionLimits,
  listener: Listener,
  log: Log,
): Promise<Server> {
  const settings = {
    headersTimeout: limits.headerTimeoutMs,
    requestTimeout: limits.requestTimeoutMs,
    keepAliveTimeout: limits.idleTimeoutMs,
    connectionsCheckingInterval: Math.min(1000, limits.headerTimeoutMs),
    maxHeaderSize: limits.maxHeaderBytes,
  };
  let server: Server;
  if (tls === null) {
    server = createServer(settings, listener);
  } else {
    const https = await import("node:https");
    const asksClients = tls.ca !== undefined;
    const secure = {
      ...settings,
      ...tls,
      requestCert: asksClients,
      rejectUnauthorized: asksClients,
      handshakeTimeout: limits.headerTimeoutMs,
    };
    const secureServer = https.createServer(secure, listener);
    // No answer can be written before the handshake is over, also not by `answerClientError`.
    secureServer.on("tlsClientError", (_error, socket) => socket.destroy());
    server = secureServer;
  }
  server.maxConnections = limits.maxConnections;
  const isSecure = tls !== null;
  server.on("clientError", (error, socket) => answerClientError(error, socket, limits, isSecure));
  server.on("error", (error) => {
    // Before it listens, the caller gets the error.
    if (server.listening) log.error("the HTTP server has an error", { error });
  });
  // Without this, a client that closes its side of the connection gets no answer (Node's socketOnEnd).
  return Object.assign(server, { httpAllowHalfOpen: true });
}

/** Clients may try either address of "localhost" first, so both are served. */
function hostsOf(host: string): readonly string[] {
  return host === "localhost" ? ["127.0.0.1", "::1"] : [host];
}

async function serve(exchange: Exchange, context: ServerContext): Promise<void> {
  try {
    checkHead(exchange);
    await dispatch(exchange, context);
  } catch (error) {
    if (error instanceof ClientLeftError) return;
    if (!(error instanceof LlumnixError)) {
      const stack = error instanceof Error ? error.stack : String(error);
      context.log.error("a request hit a defect", { id: exchange.requestId, stack });
    }
    exchange.sendError(error);
  }
}

function logExchange(exchange: Exchange, { options, log }: ServerContext): void {
  const { method, path, status, requestId, address, cutAtBytes } = exchange;
  if (cutAtBytes !== null) {
    log.warn("disconnected a client that did not read its answer", {
      client: address,
      path: path.slice(0, 200),
      unreadBytes: cutAtBytes,
      id: requestId,
    });
  }
  if (options.disableLogRequestsServer) return;
  const tookMs = Math.round(performance.now() - exchange.startedMs);
  const fields = () => ({
    client: address,
    method,
    path: path.slice(0, 200),
    status,
    tookMs,
    id: requestId,
  });
  if (isPoll(path)) log.debug("request", fields);
  else log.info("request", fields);
}

/**
 * Answers a client that sends no HTTP request, or not in time, and closes its connection.
 * @param isSecure the server is reached by TLS
 */
function answerClientError(
  error: Error & { code?: string },
  socket: Duplex,
  { headerTimeoutMs, requestTimeoutMs, maxHeaderBytes }: ConnectionLimits,
  isSecure: boolean,
): void {
  if (!socket.writable || error.code === "ECONNRESET") {
    socket.destroy();
    return;
  }
  const [status, message]: [StatusCode, string] = error.code === "HPE_HEADER_OVERFLOW"
    ? [
      STATUS_CODE.RequestHeaderFieldsTooLarge,
      `The request line and the headers are larger than ${maxHeaderBytes} bytes together. Send a ` +
      "shorter URL, and fewer or shorter headers.",
    ]
    : error.code === "ERR_HTTP_REQUEST_TIMEOUT"
    ? [
      STATUS_CODE.RequestTimeout,
      `The request did not arrive in time: its headers may take ${
        headerTimeoutMs / 1000
      } s, and all ` +
      `of it ${requestTimeoutMs / 1000} s. Send it again, without pauses.`,
    ]
    : [
      STATUS_CODE.BadRequest,
      `This is not an HTTP/1.1 request: ${parseProblem(error)}. Send HTTP/1.1 to an address that ` +
      `begins with ${isSecure ? "https" : "http"}://.`,
    ];
  const body = JSON.stringify(toErrorReply(new HttpError(status, message)).body);
  socket.end(
    `HTTP/1.1 ${status} ${STATUS_TEXT[status]}\r\nconnection: close\r\n` +
      `content-type: application/json\r\ncontent-length: ${body.length}\r\n\r\n${body}`,
  );
}

/** What the parser says is wrong, which is mostly nothing. */
function parseProblem({ message }: Error): string {
  const reason = message.replace(/^Parse Error:? ?/, "");
  if (reason !== "" && reason !== "Parse Error") return reason;
  return "its request line, a header or the length of its body is malformed";
}

/** False when `promise` is still pending after `timeoutMs`. */
async function resolvesWithin(promise: Promise<unknown>, timeoutMs: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<boolean>((resolve) => {
    timer = setTimeout(() => resolve(false), timeoutMs);
  });
  const inTime = await Promise.race([promise.then(() => true), timeout]);
  clearTimeout(timer);
  return inTime;
}

function urlHost(host: string): string {
  if (host === "0.0.0.0" || host === "::") return "localhost";
  return host.includes(":") ? `[${host}]` : host;
}
