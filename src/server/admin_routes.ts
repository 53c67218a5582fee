/** Routes for operating the service, under `/admin/`. They exist only with an admin token, which each request needs. */
import { STATUS_CODE } from "@std/http/status";
import * as z from "zod";
import type {
  HostStatus,
  InstanceChange,
  InstanceStatus,
  RequestStatus,
} from "../core/protocol/admin.ts";
import type { AdminCall } from "../core/protocol/calls.ts";
import type { MigrationReport } from "../core/protocol/migration.ts";
import { bearerToken, digest, isOneOf, type WrongTokens } from "./access.ts";
import { HttpError } from "./errors.ts";
import type { Exchange } from "./exchange.ts";
import { readJsonObject, readOptionalJsonObject } from "./json_body.ts";
import { refuseUnknownFields } from "./unknown_fields.ts";
import { validate } from "./validation.ts";

/** The token that requests need, and the manager's answers to them. */
export interface AdminAccess {
  readonly token: string;
  readonly call: AdminCall;
}

interface AdminContext {
  readonly call: AdminCall;
  readonly maxBodyBytes: number;
}

/** @param id the part of the path in the place of `{id}` */
type Handler = (exchange: Exchange, context: AdminContext, id: string) => Promise<void>;

const PREFIX = "/admin/";
const UNAUTHORIZED = {
  code: "admin_token_missing",
  headers: { "www-authenticate": 'Bearer realm="llumnix admin"' },
};

const routes: readonly (readonly [method: string, path: string, handle: Handler])[] = [
  ["GET", "/admin/instances", listInstances],
  ["POST", "/admin/instances", addInstance],
  ["DELETE", "/admin/instances/{id}", change("admin_remove")],
  ["POST", "/admin/instances/{id}/drain", change("admin_drain")],
  ["POST", "/admin/instances/{id}/keep", change("admin_keep")],
  ["GET", "/admin/hosts", listHosts],
  ["POST", "/admin/hosts/{id}/drain", drainHost],
  ["POST", "/admin/hosts/{id}/keep", keepHost],
  ["GET", "/admin/requests", listRequests],
  ["POST", "/admin/requests/{id}/migrate", migrateRequest],
];

export function isAdminPath(path: string): boolean {
  return path.startsWith(PREFIX);
}

/**
 * Runs the route of this request.
 * @throws {HttpError} 401 or 403, 404, 405
 * @throws {LlumnixError} what the manager refuses
 */
export async function dispatchAdmin(
  exchange: Exchange,
  { token, call }: AdminAccess,
  maxBodyBytes: number,
  wrongTokens: WrongTokens,
): Promise<void> {
  await authorize(exchange, token, wrongTokens);
  const matching = routes.filter(([, path]) => idIn(path, exchange.path) !== null);
  if (matching.length === 0) {
    const known = routes.map(([method, path]) => `${method} ${path}`).join(", ");
    throw new HttpError(
      STATUS_CODE.NotFound,
      `There is no route "${exchange.path.slice(0, 100)}"; there are ${known}.`,
      { code: "unknown_route" },
    );
  }
  const route = matching.find(([method]) => method === exchange.method);
  if (route === undefined) {
    const allowed = matching.map(([method]) => method);
    throw new HttpError(
      STATUS_CODE.MethodNotAllowed,
      `${matching[0][1]} takes ${allowed.join(" or ")}, not ${exchange.method}.`,
      { code: "method_not_allowed", headers: { allow: allowed.join(", ") } },
    );
  }
  const [, path, handle] = route;
  await handle(exchange, { call, maxBodyBytes }, idIn(path, exchange.path)!);
}

async function authorize(
  exchange: Exchange,
  token: string,
  wrongTokens: WrongTokens,
): Promise<void> {
  const given = bearerToken(exchange);
  if (given === null) {
    throw new HttpError(
      STATUS_CODE.Unauthorized,
      'This route needs the header "Authorization: Bearer TOKEN" with the token of --admin-token.',
      UNAUTHORIZED,
    );
  }
  await wrongTokens.admit(exchange);
  if (isOneOf(given, [digest(token)])) return;
  wrongTokens.note(exchange, "admin token");
  throw new HttpError(
    STATUS_CODE.Forbidden,
    "The token is not that of --admin-token.",
    { code: "admin_token_wrong" },
  );
}

/** The part of a path in the place of `{id}`: empty if the route has none, null if the route does not match. */
function idIn(route: string, path: string): string | null {
  const [before, after] = route.split("{id}");
  if (after === undefined) return path === route ? "" : null;
  const id = path.slice(before.length, path.length - after.length);
  if (before + id + after !== path || id === "" || id.includes("/")) return null;
  try {
    return decodeURIComponent(id);
  } catch {
    return id; // not an escape: no instance or request has such a name, and the answer says so
  }
}

async function listInstances(exchange: Exchange, { call }: AdminContext): Promise<void> {
  const instances = await call("admin_instances", null);
  exchange.sendJson(STATUS_CODE.OK, { instances: instances.map(showInstance) });
}

async function listRequests(exchange: Exchange, { call }: AdminContext): Promise<void> {
  const { requests, numOmitted, unreachable } = await call("admin_requests", null);
  exchange.sendJson(STATUS_CODE.OK, {
    requests: requests.map(showRequest),
    omitted: numOmitted,
    unreachable_instances: unreachable,
  });
}

async function addInstance(
  exchange: Exchange,
  { call, maxBodyBytes }: AdminContext,
): Promise<void> {
  await refuseFields(exchange, maxBodyBytes);
  sendChange(exchange, await call("admin_add", null));
}

function change(method: "admin_drain" | "admin_keep" | "admin_remove"): Handler {
  return async (exchange, { call, maxBodyBytes }, instanceId) => {
    await refuseFields(exchange, maxBodyBytes);
    sendChange(exchange, await call(method, { instanceId }));
  };
}

async function listHosts(exchange: Exchange, { call }: AdminContext): Promise<void> {
  const hosts = await call("admin_hosts", null);
  exchange.sendJson(STATUS_CODE.OK, { hosts: hosts.map(showHost) });
}

const hostDrain = z.object({
  at_once: z.int("a whole number of instances").min(1, "1 or more instances").optional(),
});
const hostDrainFields = new Set(Object.keys(hostDrain.shape));

async function drainHost(
  exchange: Exchange,
  { call, maxBodyBytes }: AdminContext,
  hostName: string,
): Promise<void> {
  const body = await readOptionalJsonObject(exchange, maxBodyBytes);
  refuseUnknownFields(body, hostDrainFields);
  const { at_once: atOnce } = validate(hostDrain, body);
  const host = await call("admin_drain_host", { hostName, atOnce });
  exchange.sendJson(STATUS_CODE.Accepted, showHost(host));
}

async function keepHost(
  exchange: Exchange,
  { call, maxBodyBytes }: AdminContext,
  hostName: string,
): Promise<void> {
  await refuseFields(exchange, maxBodyBytes);
  exchange.sendJson(STATUS_CODE.Accepted, showHost(await call("admin_keep_host", { hostName })));
}

/** @throws {RequestError} the body has fields, of a route that takes none */
async function refuseFields(exchange: Exchange, maxBodyBytes: number): Promise<void> {
  refuseUnknownFields(await readOptionalJsonObject(exchange, maxBodyBytes), new Set());
}

/** The list of instances shows how the change goes on. */
function sendChange(exchange: Exchange, { instanceId, state }: InstanceChange): void {
  exchange.sendJson(STATUS_CODE.Accepted, { id: instanceId, state });
}

const migration = z.object({ instance: z.string("the id of an instance") });
const migrationFields = new Set(Object.keys(migration.shape));

async function migrateRequest(
  exchange: Exchange,
  { call, maxBodyBytes }: AdminContext,
  requestId: string,
): Promise<void> {
  const body = await readJsonObject(exchange, maxBodyBytes);
  refuseUnknownFields(body, migrationFields);
  const { instance: destinationId } = validate(migration, body);
  const report = await call("admin_migrate", { requestId, destinationId });
  exchange.sendJson(STATUS_CODE.OK, showReport(report));
}

function showInstance(instance: InstanceStatus) {
  return {
    id: instance.instanceId,
    type: instance.instanceType,
    state: instance.state,
    host: instance.hostName,
    pid: instance.pid,
    total_blocks: instance.totalBlocks,
    used_blocks: instance.usedBlocks,
    load: instance.load,
    running_requests: instance.runningRequests,
    waiting_requests: instance.waitingRequests,
    preempted_requests: instance.killedRequests,
  };
}

function showHost(host: HostStatus) {
  return {
    id: host.hostName,
    state: host.state,
    instances: host.instances,
    available_instances: host.availableInstances,
    running_requests: host.runningRequests,
    waiting_requests: host.waitingRequests,
  };
}

function showRequest(request: RequestStatus) {
  return {
    id: request.requestId,
    instance: request.instanceId,
    priority: request.priority,
    state: request.state,
    prompt_tokens: request.promptTokens,
    output_tokens: request.outputTokens,
    age_ms: Math.round(request.ageMs),
  };
}

function showReport(report: MigrationReport) {
  return {
    id: report.requestId,
    from: report.sourceId,
    to: report.destinationId,
    tokens: report.lengthTokens,
    stages: report.stages,
    bytes: report.transfer.bytes,
    downtime_ms: report.downtimeMs,
    total_ms: report.totalMs,
  };
}
