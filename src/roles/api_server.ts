/** The role of the API server: HTTP, tokenizer and streams in front of a cluster. */
import { listeningSockets } from "../../ffi/listening_sockets.ts";
import { realClock } from "../core/clock.ts";
import type { ClusterMonitor } from "../core/cluster.ts";
import { logger } from "../core/log.ts";
import type { AdminCall } from "../core/protocol/calls.ts";
import type { EngineOptions, ServerOptions } from "../core/options.ts";
import { createTextService } from "../frontend/text_service.ts";
import { RequestMeter } from "../metrics/request_meter.ts";
import type { RequestTracer } from "../metrics/tracing/request_tracer.ts";
import { ClusterFeed } from "../server/feed/cluster_feed.ts";
import type { LocatingCluster } from "../server/feed/watched_requests.ts";
import { type RunningServer, startServer } from "../server/server.ts";
import { adminToken } from "./admin_token.ts";
import { apiKeys } from "./api_keys.ts";
import type { FoundModel } from "../executor/executor_kind.ts";
import { describeModel, openTokenizer } from "./served_model.ts";
import { startTracing } from "./tracing.ts";
import { version } from "../core/version.ts";

/** An API server whose model files are read, and that does not serve yet. */
export interface PreparedApiServer {
  /**
   * Serves HTTP. Requests wait until an instance serves.
   * @param sockets descriptors of sockets that listen already; none: those of `--host` and `--port`
   * @throws {UsageError} the admin token is invalid, the port is taken, the host name is not this
   *   machine's, or the TLS files cannot be used
   */
  start(
    cluster: LocatingCluster & { readonly admin: AdminCall; readonly monitor: ClusterMonitor },
    sockets: readonly number[],
  ): Promise<RunningServer>;
}

/** @throws {ModelError} there is no usable tokenizer */
export async function prepareApiServer(
  options: EngineOptions & ServerOptions,
  model: FoundModel,
): Promise<PreparedApiServer> {
  const tokenizer = await openTokenizer(options, model);
  return {
    start: async (cluster, descriptors) => {
      const requests = logger("requests");
      const served = describeModel(options, model, tokenizer);
      const token = adminToken(options);
      const names = { version, model: served.names[0], hasAdmin: token !== null };
      const feed = new ClusterFeed(cluster, realClock, names);
      const service = createTextService({
        cluster: feed.requests,
        tokenizer,
        model: served,
        eosTokenIds: model.eosTokenIds,
        maxLogprobs: options.maxLogprobs,
        seed: options.seed,
        clock: realClock,
        startEncoderWorker: () =>
          new Worker(Deno.mainModule, { type: "module", name: "role:tokenizer" }),
        log: options.disableLogRequests ? undefined : (line) => requests.info(line),
      });
      const meter = new RequestMeter(realClock);
      const { monitor } = cluster;
      const [name] = service.model.names;
      const tracer = await startTracing(options.otlpTracesEndpoint, meter, monitor, name);
      const server = await startServer({
        service,
        feed,
        admin: token === null ? undefined : { token, call: cluster.admin },
        apiKeys: apiKeys(options),
        options,
        version,
        meter,
        monitor,
        log: logger("http"),
        descriptors,
      }).catch(async (error) => {
        await tracer?.close();
        throw error;
      });
      return tracer === null ? server : withTracer(server, tracer);
    },
  };
}

/** The last spans are sent before the server has stopped. */
function withTracer(server: RunningServer, tracer: RequestTracer): RunningServer {
  return {
    ...server,
    async giveWay() {
      await server.giveWay();
      await tracer.close();
    },
    async shutdown(deadlineMs) {
      await server.shutdown(deadlineMs);
      await tracer.close();
    },
    closeNow() {
      server.closeNow();
      tracer.close();
    },
  };
}

/** Descriptors of the sockets at which clients reach the server, for its successor. */
export function socketsOf({ ports }: RunningServer): number[] {
  return listeningSockets().filter(({ port }) => ports.includes(port)).map(({ fd }) => fd);
}
