/** The routes, and the answers to what is none. */
import { STATUS_CODE } from "@std/http/status";
import { dispatchAdmin, isAdminPath } from "./admin_routes.ts";
import { chatCompletions } from "./chat.ts";
import { completions } from "./completions.ts";
import type { ServerContext } from "./context.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { generate, generateBenchmark } from "./generate.ts";
import { health, isReady, model, models, version } from "./status_routes.ts";

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
  /** What follows such a slash, for people. */
  readonly rest?: string;
  readonly handle: Handler;
  /** Asked again and again by load balancers and supervisors. */
  readonly isPoll?: boolean;
}

const routes: readonly Route[] = [
  { method: "GET", path: "/health", handle: health, isPoll: true },
  { method: "GET", path: "/is_ready", handle: isReady, isPoll: true },
  { method: "GET", path: "/version", handle: version },
  { method: "POST", path: "/generate", handle: generate },
  { method: "POST", path: "/generate_benchmark", handle: generateBenchmark },
  { method: "GET", path: "/v1/models", handle: models },
  { method: "GET", path: "/v1/models/", rest: "{id}", handle: model },
  { method: "POST", path: "/v1/completions", handle: completions },
  { method: "POST", path: "/v1/chat/completions", handle: chatCompletions },
];

/**
 * Runs the route of this request.
 * @throws {HttpError} 404 or 405; what the route throws
 */
export async function dispatch(exchange: Exchange, context: ServerContext): Promise<void> {
  const { admin, options } = context;
  if (isAdminPath(exchange.path)) {
    if (!admin) throw adminIsOff();
    return await dispatchAdmin(exchange, admin, options.maxBodyBytes);
  }
  const route = routes.find(({ path }) => matches(path, exchange.path));
  if (route === undefined) {
    const known = routes.map(({ method, path, rest = "" }) => `${method} ${path}${rest}`).join(
      ", ",
    );
    throw new HttpError(
      STATUS_CODE.NotFound,
      `There is no route "${exchange.path.slice(0, 100)}"; there are ${known}.`,
      { code: "unknown_route" },
    );
  }
  const allowed = route.method === "GET" ? ["GET", "HEAD"] : ["POST"];
  if (!allowed.includes(exchange.method)) {
    throw new HttpError(
      STATUS_CODE.MethodNotAllowed,
      `${route.path}${route.rest ?? ""} takes ${allowed.join(" or ")}, not ${exchange.method}.`,
      { code: "method_not_allowed", headers: { allow: allowed.join(", ") } },
    );
  }
  await route.handle(exchange, context, exchange.path.slice(route.path.length));
}

function adminIsOff(): HttpError {
  return new HttpError(
    STATUS_CODE.NotFound,
    "The admin routes are off: the service was started without an admin token (--admin-token or " +
      "LLUMNIX_ADMIN_TOKEN).",
    { code: "unknown_route" },
  );
}

/** Whether requests of this path are too many to be of interest each. */
export function isPoll(path: string): boolean {
  return routes.some((route) => route.isPoll && matches(route.path, path));
}

function matches(path: string, asked: string): boolean {
  return asked === path || path.endsWith("/") && asked.startsWith(path) && asked !== path;
}
