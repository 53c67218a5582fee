/** The routes, and the answers to requests that have none. */
import { STATUS_CODE } from "@std/http/status";
import { dispatchAdmin, isAdminPath } from "./admin_routes.ts";
import { chatCompletions } from "./chat.ts";
import { completions } from "./completions.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { generate, generateBenchmark } from "./generate.ts";
import { metrics } from "./metrics_route.ts";
import { docs, openApi } from "./openapi.ts";
import { page, pageFeed, pageFile } from "./page_routes.ts";
import { health, isReady, load, model, models, serverVersion } from "./status_routes.ts";
import { detokenize, tokenize } from "./tokenize.ts";

/** @param rest what follows the path of a route that ends with a slash */
type Handler = (
  exchange: Exchange,
  context: ServerContext,
  rest: string,
) => void | Promise<void>;

interface Route {
  readonly method: "GET" | "POST";
  /** With a slash at its end it matches all longer paths too. */
  readonly path: string;
  /** What follows such a slash, for error messages. */
  readonly rest?: string;
  readonly handle: Handler;
  /** Only clients with a key of `--api-key` may use it, if there are keys. */
  readonly needsKey?: boolean;
  /** Asked again and again by load balancers and supervisors. */
  readonly isPoll?: boolean;
}

const routes: readonly Route[] = [
  { method: "GET", path: "/", handle: page },
  { method: "GET", path: "/page/feed", handle: pageFeed, needsKey: true },
  { method: "GET", path: "/page/", rest: "{file}", handle: pageFile, isPoll: true },
  { method: "GET", path: "/health", handle: health, isPoll: true },
  { method: "GET", path: "/ping", handle: health, isPoll: true },
  { method: "POST", path: "/ping", handle: health, isPoll: true },
  { method: "GET", path: "/is_ready", handle: isReady, isPoll: true },
  { method: "GET", path: "/load", handle: load, isPoll: true },
  { method: "GET", path: "/metrics", handle: metrics, isPoll: true },
  { method: "GET", path: "/version", handle: serverVersion },
  { method: "GET", path: "/docs", handle: docs },
  { method: "GET", path: "/openapi.json", handle: openApi },
  { method: "POST", path: "/generate", handle: generate, needsKey: true },
  { method: "POST", path: "/generate_benchmark", handle: generateBenchmark, needsKey: true },
  { method: "POST", path: "/tokenize", handle: tokenize, needsKey: true },
  { method: "POST", path: "/detokenize", handle: detokenize, needsKey: true },
  { method: "GET", path: "/v1/models", handle: models, needsKey: true },
  { method: "GET", path: "/v1/models/", rest: "{id}", handle: model, needsKey: true },
  { method: "POST", path: "/v1/completions", handle: completions, needsKey: true },
  { method: "POST", path: "/v1/chat/completions", handle: chatCompletions, needsKey: true },
];

/**
 * Runs the route of this request.
 * @throws {HttpError} 401, 404, 405 or 429; what the route throws
 */
export async function dispatch(exchange: Exchange, context: ServerContext): Promise<void> {
  const { admin, options, cors, apiKeys, wrongTokens } = context;
  exchange.path = canonical(exchange.path, options.rootPath);
  cors.apply(exchange);
  if (cors.answerPreflight(exchange)) return;
  if (isAdminPath(exchange.path)) {
    if (!admin) throw adminIsOff();
    return await dispatchAdmin(exchange, admin, options.maxBodyBytes, wrongTokens);
  }
  if (!apiKeys.areNeeded) cors.checkName(exchange);
  const matching = routes.filter(({ path }) => matches(path, exchange.path));
  if (matching.some(({ needsKey }) => needsKey) || exchange.path.startsWith("/v1/")) {
    await apiKeys.check(exchange);
  }
  if (matching.length === 0) throw noRoute(exchange.path);
  const method = exchange.method === "HEAD" ? "GET" : exchange.method;
  const route = matching.find((route) => route.method === method);
  if (route === undefined) throw wrongMethod(matching, exchange.method);
  await route.handle(exchange, context, exchange.path.slice(route.path.length));
}

/** The path without a proxy's prefix and without slashes at its end. */
function canonical(path: string, rootPath: string): string {
  const root = rootPath.replace(/\/+$/, "");
  const own = root !== "" && (path === root || path.startsWith(`${root}/`))
    ? path.slice(root.length)
    : path;
  return own.replace(/\/+$/, "") || "/";
}

function noRoute(path: string): HttpError {
  const known = routes.map(({ method, path, rest = "" }) => `${method} ${path}${rest}`).join(", ");
  return new HttpError(
    STATUS_CODE.NotFound,
    `There is no route "${path.slice(0, 100)}"; there are ${known}.`,
    { code: "unknown_route" },
  );
}

function wrongMethod(matching: readonly Route[], method: string): HttpError {
  const [{ path, rest = "" }] = matching;
  const allowed = matching.flatMap(({ method }) => method === "GET" ? ["GET", "HEAD"] : [method]);
  return new HttpError(
    STATUS_CODE.MethodNotAllowed,
    `${path}${rest} takes ${allowed.join(" or ")}, not ${method}.`,
    { code: "method_not_allowed", headers: { allow: allowed.join(", ") } },
  );
}

function adminIsOff(): HttpError {
  return new HttpError(
    STATUS_CODE.NotFound,
    "The admin routes are off: the service was started without an admin token (--admin-token or " +
      "LLUMNIX_ADMIN_TOKEN).",
    { code: "unknown_route" },
  );
}

/** Whether requests of this path come so often that they are logged only at the level debug. */
export function isPoll(path: string): boolean {
  return routes.some((route) => route.isPoll && matches(route.path, path));
}

function matches(path: string, asked: string): boolean {
  if (asked === path) return true;
  return path !== "/" && path.endsWith("/") && asked.startsWith(path);
}
