import assert from "node:assert/strict";
import { ConflictError, LlumnixError, UnavailableError } from "../../src/core/errors.ts";
import type { HostStatus, InstanceStatus } from "../../src/core/protocol/admin.ts";
import type { AdminCall } from "../../src/core/protocol/calls.ts";
import type { MigrationReport } from "../../src/core/protocol/migration.ts";
import { type Harness, withServer } from "./harness.ts";

const TOKEN = "s3cret";

const instance: InstanceStatus = {
  instanceId: "instance-0",
  instanceType: "decode",
  state: "serving",
  pid: 42,
  hostName: "gpu-1",
  totalBlocks: 100,
  usedBlocks: 7,
  load: "-inf",
  runningRequests: 3,
  waitingRequests: 2,
  killedRequests: 1,
};

const host: HostStatus = {
  hostName: "10.0.0.7",
  state: "serving",
  instances: 4,
  availableInstances: 3,
  runningRequests: 9,
  waitingRequests: 1,
};

const report: MigrationReport = {
  migrationId: "m",
  sourceId: "instance-0",
  destinationId: "instance-1",
  requestId: "cmpl-a/b",
  outcome: "committed",
  phase: "commit",
  reason: "",
  lengthTokens: 30,
  stages: 2,
  blocks: 2,
  transfer: { bytes: 1000, descriptors: 1, rounds: 1, transferMs: 1 },
  downtimeMs: 3,
  totalMs: 9,
};

const answers = {
  admin_instances: [instance],
  admin_requests: {
    requests: [{
      requestId: "cmpl-a",
      instanceId: "instance-0",
      priority: "high",
      state: "running",
      promptTokens: 5,
      outputTokens: 6,
      ageMs: 12.6,
    }],
    numOmitted: 4,
    unreachable: ["instance-9"],
  },
  admin_add: { instanceId: "instance-2", state: "starting" },
  admin_drain: { instanceId: "instance-0", state: "draining" },
  admin_keep: { instanceId: "instance-0", state: "serving" },
  admin_remove: { instanceId: "instance-0", state: "draining" },
  admin_migrate: report,
  admin_hosts: [host],
  admin_drain_host: { ...host, state: "draining" },
  admin_keep_host: host,
};

interface AdminHarness {
  /** What the manager was asked. */
  readonly calls: unknown[];
  /** What it throws. */
  error: Error | null;
  send(method: string, path: string, body?: string, token?: string | null): Promise<{
    status: number;
    headers: Headers;
    // deno-lint-ignore no-explicit-any
    json: any;
  }>;
}

function withAdmin(test: (admin: AdminHarness, harness: Harness) => Promise<void>): Promise<void> {
  const calls: unknown[] = [];
  const call = (method: keyof typeof answers, ask: unknown) => {
    calls.push(ask === null ? [method] : [method, ask]);
    return admin.error ? Promise.reject(admin.error) : Promise.resolve(answers[method]);
  };
  let url = "";
  const admin: AdminHarness = {
    calls,
    error: null,
    async send(method, path, body, token = TOKEN) {
      const headers: Record<string, string> = { "content-type": "application/json" };
      if (token !== null) headers.authorization = `Bearer ${token}`;
      const response = await fetch(url + path, { method, body, headers });
      return { status: response.status, headers: response.headers, json: await response.json() };
    },
  };
  return withServer({ admin: { token: TOKEN, call: call as AdminCall } }, async (harness) => {
    url = harness.url;
    await test(admin, harness);
  });
}

Deno.test("admin routes answer what the manager says", () =>
  withAdmin(async ({ send, calls }) => {
    assert.deepEqual((await send("GET", "/admin/instances")).json, {
      instances: [{
        id: "instance-0",
        type: "decode",
        state: "serving",
        host: "gpu-1",
        pid: 42,
        total_blocks: 100,
        used_blocks: 7,
        load: "-inf",
        running_requests: 3,
        waiting_requests: 2,
        preempted_requests: 1,
      }],
    });
    assert.deepEqual((await send("GET", "/admin/requests")).json, {
      requests: [{
        id: "cmpl-a",
        instance: "instance-0",
        priority: "high",
        state: "running",
        prompt_tokens: 5,
        output_tokens: 6,
        age_ms: 13,
      }],
      omitted: 4,
      unreachable_instances: ["instance-9"],
    });
    const migrated = await send(
      "POST",
      "/admin/requests/cmpl-a%2Fb/migrate",
      '{"instance": "instance-1"}',
    );
    assert.equal(migrated.status, 200);
    assert.deepEqual(migrated.json, {
      id: "cmpl-a/b",
      from: "instance-0",
      to: "instance-1",
      tokens: 30,
      stages: 2,
      bytes: 1000,
      downtime_ms: 3,
      total_ms: 9,
    });
    assert.deepEqual(calls, [
      ["admin_instances"],
      ["admin_requests"],
      ["admin_migrate", { requestId: "cmpl-a/b", destinationId: "instance-1" }],
    ]);
  }));

Deno.test("changes of instances are accepted, and go on", () =>
  withAdmin(async ({ send, calls }) => {
    const change = async (method: string, path: string, body?: string) => {
      const { status, json } = await send(method, path, body);
      return [status, json.id, json.state];
    };
    assert.deepEqual(await change("POST", "/admin/instances"), [202, "instance-2", "starting"]);
    const one = "/admin/instances/instance-0";
    assert.deepEqual(await change("POST", `${one}/drain`, "{}"), [202, "instance-0", "draining"]);
    assert.deepEqual(await change("POST", `${one}/keep`), [202, "instance-0", "serving"]);
    assert.deepEqual(await change("DELETE", one), [202, "instance-0", "draining"]);
    const instanceId = "instance-0";
    assert.deepEqual(calls, [
      ["admin_add"],
      ["admin_drain", { instanceId }],
      ["admin_keep", { instanceId }],
      ["admin_remove", { instanceId }],
    ]);
  }));

Deno.test("hosts are shown, drained and kept", () =>
  withAdmin(async ({ send, calls }) => {
    const shown = {
      id: "10.0.0.7",
      state: "serving",
      instances: 4,
      available_instances: 3,
      running_requests: 9,
      waiting_requests: 1,
    };
    assert.deepEqual((await send("GET", "/admin/hosts")).json, { hosts: [shown] });
    const one = "/admin/hosts/10.0.0.7";
    const drained = await send("POST", `${one}/drain`);
    assert.deepEqual([drained.status, drained.json], [202, { ...shown, state: "draining" }]);
    assert.equal((await send("POST", `${one}/drain`, '{"at_once": 2}')).status, 202);
    assert.deepEqual((await send("POST", `${one}/keep`)).json, shown);
    assert.deepEqual(calls, [
      ["admin_hosts"],
      ["admin_drain_host", { hostName: "10.0.0.7", atOnce: undefined }],
      ["admin_drain_host", { hostName: "10.0.0.7", atOnce: 2 }],
      ["admin_keep_host", { hostName: "10.0.0.7" }],
    ]);
    const refused = await send("POST", `${one}/drain`, '{"at_once": 0}');
    assert.equal(refused.status, 400);
    assert.match(refused.json.error.message, /at_once.*1 or more instances/);
  }));

Deno.test("without the token nothing is told or done", () =>
  withAdmin(async ({ send, calls }) => {
    const missing = await send("GET", "/admin/instances", undefined, null);
    assert.equal(missing.status, 401);
    assert.equal(missing.headers.get("www-authenticate"), 'Bearer realm="llumnix admin"');
    assert.deepEqual(missing.json.error, {
      message: 'This route needs the header "Authorization: Bearer TOKEN" with the token of ' +
        "--admin-token.",
      type: "invalid_request_error",
      param: null,
      code: "admin_token_missing",
    });
    for (const token of ["wrong", `${TOKEN}x`, TOKEN.slice(1), ""]) {
      const { status, json } = await send("POST", "/admin/instances", undefined, token);
      assert.equal(status, token === "" ? 401 : 403, token);
      if (token !== "") assert.equal(json.error.message, "The token is not that of --admin-token.");
    }
    const unknown = await send("GET", "/admin/nothing", undefined, null);
    assert.equal(unknown.status, 401, "what there is is told to nobody");
    assert.deepEqual(calls, []);
  }));

Deno.test("bad requests of an operator are refused, each with its reason", () =>
  withAdmin(async (admin) => {
    const { send, calls } = admin;
    const refusal = async (...request: Parameters<typeof send>) => {
      const { status, json } = await send(...request);
      return [status, json.error.message];
    };
    const migrate = "/admin/requests/r/migrate";
    const cases: [body: string, message: RegExp][] = [
      ["instance-1", /^The request body is not valid JSON: Unexpected token 'i'/],
      ["", /^The request body is empty/],
      ["[]", /must be a JSON object/],
      ["{}", /^instance must be the id of an instance, got nothing\.$/],
      ['{"instance": 1}', /^instance must be the id of an instance, got 1\.$/],
      [
        '{"instace": "instance-1"}',
        /^instace is no field of this request; did you mean instance\?$/,
      ],
    ];
    for (const [body, expected] of cases) {
      const [status, message] = await refusal("POST", migrate, body);
      assert.equal(status, 400, body);
      assert.match(message, expected);
    }
    const one = "/admin/instances/instance-0";
    for (
      const [method, path] of [
        ["POST", "/admin/instances"],
        ["POST", `${one}/drain`],
        ["POST", `${one}/keep`],
        ["DELETE", one],
      ]
    ) {
      assert.deepEqual(await refusal(method, path, '{"count": 3}'), [
        400,
        "count is no field of this request; leave it out.",
      ]);
    }
    assert.deepEqual(await refusal("GET", migrate), [
      405,
      "/admin/requests/{id}/migrate takes POST, not GET.",
    ]);
    assert.deepEqual(await refusal("PUT", "/admin/instances"), [
      405,
      "/admin/instances takes GET or POST, not PUT.",
    ]);
    const [status, message] = await refusal("GET", "/admin/instance");
    assert.equal(status, 404);
    assert.match(
      message,
      /^There is no route "\/admin\/instance"; there are GET \/admin\/instances,/,
    );
    assert.deepEqual(calls, []);
  }));

Deno.test("what the manager refuses reaches the operator with a status that fits", () =>
  withAdmin(async (admin) => {
    const cases: [Error, number, string][] = [
      [new LlumnixError("not_found", "there is no such"), 404, "not_found"],
      [new ConflictError("it drains"), 409, "conflict"],
      [new UnavailableError("the manager is gone"), 503, "unavailable"],
    ];
    for (const [error, status, code] of cases) {
      admin.error = error;
      const answer = await admin.send("DELETE", "/admin/instances/x");
      assert.equal(answer.status, status);
      assert.equal(answer.json.error.message, error.message);
      assert.equal(answer.json.error.code, code);
    }
  }));

Deno.test("without an admin token there are no admin routes", () =>
  withServer({}, async ({ url }) => {
    const response = await fetch(`${url}/admin/instances`, {
      headers: { authorization: "Bearer x" },
    });
    assert.equal(response.status, 404);
    const { error } = await response.json();
    assert.equal(error.code, "unknown_route");
    assert.match(
      error.message,
      /^The admin routes are off: .*\(--admin-token or LLUMNIX_ADMIN_TOKEN\)/,
    );
  }));
