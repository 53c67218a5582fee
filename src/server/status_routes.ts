/** Routes that tell about the server: health, readiness, load, version, models. */
import { STATUS_CODE } from "@std/http/status";
import type { ServerContext } from "./context.ts";
import type { Exchange } from "./exchange.ts";
import { servedName } from "./model_name.ts";

export function health(exchange: Exchange): void {
  exchange.send(STATUS_CODE.OK, "text/plain", "");
}

/** `true` when every instance that was asked for is serving. */
export function isReady(exchange: Exchange, { service }: ServerContext): void {
  exchange.sendJson(STATUS_CODE.OK, service.isReady());
}

/** Requests in work, as vLLM's `/load` tells them. */
export function load(exchange: Exchange, { admission }: ServerContext): void {
  exchange.sendJson(STATUS_CODE.OK, { server_load: admission.inWork });
}

export function serverVersion(exchange: Exchange, { version }: ServerContext): void {
  exchange.sendJson(STATUS_CODE.OK, { version });
}

export function models(exchange: Exchange, context: ServerContext): void {
  const data = context.service.model.names.map((name) => modelCard(name, context));
  exchange.sendJson(STATUS_CODE.OK, { object: "list", data });
}

/** `/v1/models/{id}`; ids may hold slashes, escaped or not. */
export function model(exchange: Exchange, context: ServerContext, escapedName: string): void {
  let name = escapedName;
  try {
    name = decodeURIComponent(escapedName);
  } catch {
    // Not an escape: no model has such a name, and the answer says so.
  }
  exchange.sendJson(STATUS_CODE.OK, modelCard(servedName(name, context.service.model), context));
}

function modelCard(id: string, { service: { model } }: ServerContext) {
  return {
    id,
    object: "model",
    created: model.createdSeconds,
    owned_by: "llumnix",
    root: model.names[0],
    parent: null,
    max_model_len: model.maxModelLen,
  };
}
