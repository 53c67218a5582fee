/** `/metrics` of a role that has no HTTP server of its own (`--metrics-port`). */
import { createServer, type Server } from "node:http";
import { realClock } from "../core/clock.ts";
import { UsageError } from "../core/errors.ts";
import { logger } from "../core/log.ts";
import { Exposition } from "../metrics/exposition.ts";
import { CONTENT_TYPE } from "../metrics/text_format.ts";
import type { MetricFamily } from "../metrics/family.ts";
import type { MetricsPlace } from "./metrics_place.ts";

/** More than read metrics; others wait for a connection to end. */
const MAX_CONNECTIONS = 16;
const TIMEOUT_MS = 10_000;

/** Answers `GET /metrics` and `GET /health`, and nothing else. */
export class MetricsServer {
  readonly #server: Server;

  private constructor(server: Server) {
    this.#server = server;
  }

  /** The port that it took. */
  get port(): number {
    return (this.#server.address() as { readonly port: number }).port;
  }

  /**
   * @param collect the metrics at this moment
   * @throws {UsageError} the port is taken, or the host is not this machine's
   */
  static async listen(
    { host, port }: Pick<MetricsPlace, "host" | "port">,
    collect: () => readonly MetricFamily[],
  ): Promise<MetricsServer> {
    const log = logger("metrics");
    const exposition = new Exposition(() => Promise.resolve(collect()), realClock);
    const server = createServer({
      headersTimeout: TIMEOUT_MS,
      requestTimeout: TIMEOUT_MS,
      keepAliveTimeout: TIMEOUT_MS,
    }, async (request, response) => {
      const [path] = (request.url ?? "/").split("?", 1);
      const isRead = request.method === "GET" || request.method === "HEAD";
      response.setTimeout(TIMEOUT_MS, () => response.destroy());
      if (!isRead || (path !== "/metrics" && path !== "/health")) {
        response.writeHead(404, { "content-type": "text/plain" });
        response.end("There are GET /metrics and GET /health.\n");
        return;
      }
      let text = "";
      try {
        if (path === "/metrics") text = await exposition.text();
      } catch (error) {
        log.error("metrics cannot be read", { error });
        response.writeHead(500, { "content-type": "text/plain" });
        response.end("Metrics cannot be read; see the log of this process.\n");
        return;
      }
      response.writeHead(200, {
        "content-type": path === "/metrics" ? CONTENT_TYPE : "text/plain",
      });
      response.end(request.method === "HEAD" ? "" : text);
    });
    server.maxConnections = MAX_CONNECTIONS;
    await new Promise<void>((resolve, reject) => {
      server.once("error", (error) => {
        reject(
          new UsageError(
            `--metrics-port ${port} at ${host} cannot be used (${error.message}); choose another`,
            { cause: error },
          ),
        );
      });
      server.listen(port, host, resolve);
    });
    server.on("error", (error) => log.error("the server of /metrics has an error", { error }));
    const metrics = new MetricsServer(server);
    log.info(
      `metrics at http://${host.includes(":") ? `[${host}]` : host}:${metrics.port}/metrics`,
    );
    return metrics;
  }

  /** Idempotent. */
  async close(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    this.#server.closeAllConnections();
    await closed;
  }
}
