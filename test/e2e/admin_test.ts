/** An operator with curl and a service of two instances. */
import assert from "node:assert/strict";
import { startServer } from "./harness.ts";

const TOKEN = "e2e-token";

// deno-lint-ignore no-explicit-any
type Json = any;

async function curl(...args: readonly string[]): Promise<{ status: number; json: Json }> {
  const { stdout } = await new Deno.Command("curl", {
    args: ["--silent", "--show-error", "--write-out", "\n%{http_code}", ...args],
  }).output();
  const text = new TextDecoder().decode(stdout);
  const end = text.lastIndexOf("\n");
  return { status: Number(text.slice(end + 1)), json: JSON.parse(text.slice(0, end)) };
}

Deno.test("an operator lists, adds, drains and removes instances", async () => {
  const args = ["--initial-instances", "2"];
  await using server = await startServer(args, { env: { LLUMNIX_ADMIN_TOKEN: TOKEN } });
  const admin = (method: string, path: string, ...more: readonly string[]) =>
    curl(
      "-X",
      method,
      "-H",
      `Authorization: Bearer ${TOKEN}`,
      ...more,
      `${server.url}/admin${path}`,
    );
  const states = async () => {
    const { json } = await admin("GET", "/instances");
    return json.instances.map(({ id, state }: Json) => `${id} ${state}`);
  };
  const until = (expected: readonly string[]) =>
    server.program.waitUntil(
      `instances were ${expected}`,
      async () => JSON.stringify(await states()) === JSON.stringify(expected),
    );

  assert.deepEqual(await states(), ["instance-0 serving", "instance-1 serving"]);
  const { json: { instances } } = await admin("GET", "/instances");
  const pids = server.program.processes().map(({ pid }) => pid);
  for (const { pid, type } of instances) {
    assert.ok(pids.includes(pid), `${pid} is one of ${pids}`);
    assert.equal(type, "both");
  }

  const added = await admin("POST", "/instances");
  assert.deepEqual([added.status, added.json], [202, { id: "instance-2", state: "starting" }]);
  await until(["instance-0 serving", "instance-1 serving", "instance-2 serving"]);
  const drained = await admin("POST", "/instances/instance-1/drain");
  assert.equal(drained.status, 202);
  await until(["instance-0 serving", "instance-1 drained", "instance-2 serving"]);
  assert.equal((await admin("POST", "/instances/instance-1/keep")).json.state, "serving");
  assert.equal((await admin("DELETE", "/instances/instance-0")).status, 202);
  await until(["instance-1 serving", "instance-2 serving"]);
  assert.ok(!server.program.processes().some(({ pid }) => pid === instances[0].pid));
  assert.equal((await curl(`${server.url}/is_ready`)).json, true);
});

Deno.test("an operator moves a request while its client reads on", async () => {
  const args = ["--initial-instances", "2", "--enable-migration", "--migration-backend", "rayrpc"];
  await using server = await startServer([...args, "--admin-token", TOKEN]);
  const authorized = ["-H", `Authorization: Bearer ${TOKEN}`];
  const json = ["-H", "Content-Type: application/json"];
  const complete = async () => {
    const prompt = { prompt: "hello", max_tokens: 1500, temperature: 0, ignore_eos: true };
    const url = `${server.url}/v1/completions`;
    const answer = await curl(...json, url, "-d", JSON.stringify(prompt));
    return answer.json.choices[0].text;
  };
  const expected = await complete();
  const moved = complete();
  let request: Json = null;
  await server.program.waitUntil("the request ran", async () => {
    const { json } = await curl(...authorized, `${server.url}/admin/requests`);
    request = json.requests[0];
    return request?.output_tokens > 0;
  });
  const other = request.instance === "instance-0" ? "instance-1" : "instance-0";
  const migrate = [...authorized, ...json, `${server.url}/admin/requests/${request.id}/migrate`];
  const { status, json: report } = await curl(...migrate, "-d", `{"instance": "${other}"}`);
  assert.deepEqual([status, report.id, report.from, report.to], [
    200,
    request.id,
    request.instance,
    other,
  ]);
  assert.ok(report.bytes > 0 && report.tokens > request.prompt_tokens);
  assert.equal(await moved, expected);
});

Deno.test("an operator who errs is told what is wrong", async () => {
  await using server = await startServer(["--admin-token", TOKEN]);
  const url = `${server.url}/admin`;
  const error = async (...args: readonly string[]) => {
    const { status, json } = await curl(...args);
    return [status, json.error.message];
  };
  const authorized = ["-H", `Authorization: Bearer ${TOKEN}`];
  assert.deepEqual(await error(`${url}/instances`), [
    401,
    'This route needs the header "Authorization: Bearer TOKEN" with the token of --admin-token.',
  ]);
  assert.deepEqual(await error("-H", "Authorization: Bearer guess", `${url}/instances`), [
    403,
    "The token is not that of --admin-token.",
  ]);
  assert.deepEqual(await error(...authorized, "-X", "DELETE", `${url}/instances/instance-5`), [
    404,
    'there is no instance "instance-5"; the instances are: instance-0',
  ]);
  const json = ["-H", "Content-Type: application/json"];
  const migrate = [...authorized, ...json, `${url}/requests/nobody/migrate`];
  assert.deepEqual(await error(...migrate, "-d", '{"instance": "instance-0"}'), [
    404,
    'no instance has a request "nobody"; it may have ended',
  ]);
  const [status, message] = await error(...migrate, "-d", "instance-0");
  assert.equal(status, 400);
  assert.match(message, /^The request body is not valid JSON/);
});
