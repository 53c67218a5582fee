/** Runs a server over a fake service for the length of a test. */
import type { ClusterMonitor } from "../../src/core/cluster.ts";
import type { AdminAccess } from "../../src/server/admin_routes.ts";
import type { Log } from "../../src/core/log.ts";
import type { ServerOptions } from "../../src/core/options.ts";
import { type ConnectionLimits, type RunningServer, startServer } from "../../src/server/server.ts";
import type { ClusterFeed } from "../../src/server/feed/cluster_feed.ts";
import { until as patiently } from "../patience.ts";
import { FakeTextService } from "./fake_text_service.ts";

export const testOptions: ServerOptions = {
  host: "127.0.0.1",
  port: 0,
  sslKeyfile: null,
  sslCertfile: null,
  sslCaCerts: null,
  sslCertReqs: 0,
  disableLogRequestsServer: true,
  disableLogRequests: true,
  logRequestTimestamps: false,
  logPrompts: false,
  maxLogLen: null,
  servedModelName: null,
  maxLogprobs: 5,
  maxQueuedRequests: 8,
  maxBodyBytes: 64 * 1024,
  resumeHold: 60,
  shutdownTimeout: 1,
  adminToken: null,
  apiKey: null,
  apiKeyFile: null,
  chatTemplate: null,
  responseRole: "assistant",
  unknownFields: "refuse",
  allowedOrigins: null,
  allowedMethods: null,
  allowedHeaders: null,
  allowCredentials: false,
  otlpTracesEndpoint: null,
  rootPath: "",
};

/** Parsed JSON whose shape the test asserts. */
// deno-lint-ignore no-explicit-any
export type Json = any;

export interface Harness {
  readonly server: RunningServer;
  readonly service: FakeTextService;
  readonly url: string;
  /** Lines logged so far. */
  readonly log: string[];
  /** Sends a JSON body (or a string as it is) and gives the whole answer. */
  post(
    path: string,
    body: unknown,
    headers?: Record<string, string>,
  ): Promise<{ status: number; headers: Headers; text: string; json: Json }>;
}

export interface HarnessConfig {
  readonly admin?: AdminAccess;
  readonly apiKeys?: readonly string[];
  readonly feed?: ClusterFeed;
  readonly options?: Partial<ServerOptions>;
  readonly limits?: Partial<ConnectionLimits>;
  readonly monitor?: ClusterMonitor;
  readonly descriptors?: readonly number[];
}

export async function withServer(
  config: HarnessConfig,
  test: (harness: Harness) => Promise<void>,
): Promise<void> {
  const service = new FakeTextService();
  const log: string[] = [];
  const append: Log["info"] = (message, fields) => {
    log.push(`${message} ${JSON.stringify(typeof fields === "function" ? fields() : fields)}`);
  };
  const debug: Log["debug"] = (message, fields) => append(`debug: ${message}`, fields);
  const server = await startServer({
    service,
    admin: config.admin,
    apiKeys: config.apiKeys,
    feed: config.feed,
    options: { ...testOptions, ...config.options },
    version: "1.2.3",
    log: { debug, info: append, warn: append, error: append },
    limits: config.limits,
    monitor: config.monitor,
    descriptors: config.descriptors,
  });
  const { url } = server;
  try {
    await test({ server, service, url, log, post });
  } finally {
    server.closeNow();
    await server.shutdown(0);
  }

  async function post(path: string, body: unknown, headers: Record<string, string> = {}) {
    const response = await fetch(url + path, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      body: typeof body === "string" ? body : JSON.stringify(body),
    });
    const text = await response.text();
    const isJson = response.headers.get("content-type") === "application/json";
    const json = isJson ? JSON.parse(text) : null;
    return { status: response.status, headers: response.headers, text, json };
  }
}

/** Waits until `condition` holds. */
export function until(condition: () => boolean): Promise<void> {
  return patiently(condition, `${condition}`);
}

/** JSON documents of a stream of server-sent events, and whether it ended with [DONE]. */
export function parseEvents(text: string): { events: Json[]; done: boolean } {
  const data = text.split("\n\n").filter(Boolean).map((event) => event.replace(/^data: /, ""));
  const done = data.at(-1) === "[DONE]";
  return { events: (done ? data.slice(0, -1) : data).map((json) => JSON.parse(json)), done };
}
