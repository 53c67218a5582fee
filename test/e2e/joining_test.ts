/** Instances that come by hand with other settings than the service's. */
import assert from "node:assert/strict";
import { makeModel, parseMakeModelArgs } from "../../scripts/make_model.ts";
import {
  assertSameStreams,
  isReady,
  restless,
  runAll,
  servingInstances,
  small,
  waitUntilEmpty,
} from "./cluster.ts";
import { runProgram } from "./harness.ts";
import { User } from "./roles.ts";
import { variedRequests } from "./streams.ts";

Deno.test("joining: an instance with another migration backend serves, and the others go on moving", async () => {
  await using user = new User();
  const manager = user.manager("--initial-instances", "2", ...restless);
  const cluster = await user.cluster();
  const instance = user.start(
    "instance",
    ...small,
    "--enable-migration",
    "--migration-backend=rayrpc",
  );
  await manager.waitForLog(
    /instance-hand-\d+ takes no part in migration: its migration backend is rayrpc, but this service's is gloo/,
  );
  const numMoved = () => [...manager.stderr.matchAll(/ moved \S+ from /g)].length;
  for (const isThere of [true, false]) {
    if (!isThere) assert.equal((await instance.stop("SIGINT")).code, 0);
    const before = numMoved();
    while (numMoved() < before + 4) await runAll(cluster, variedRequests(8, 200));
  }
  assert.doesNotMatch(manager.stderr, /transfer thread|instance-[01] takes no part|not ready/);
  await waitUntilEmpty(cluster, 2);
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("joining: another model, dtype or length is refused, and how a directory is written is not", async () => {
  await using user = new User();
  const models = Deno.makeTempDirSync({ dir: user.directory });
  for (const name of ["a", "b"]) makeModel(parseMakeModelArgs(["--out", `${models}/${name}`]));
  Deno.symlinkSync(`${models}/a`, `${models}/link`);
  const manager = user.manager("--model", `${models}/a/`);
  await manager.waitForLog(/instance-0 is ready/);
  const env = { XDG_RUNTIME_DIR: user.directory };
  const refused = async (role: string, args: string[], reason: RegExp) => {
    const { code, stderr } = await runProgram([role, ...args], { env });
    assert.equal(code, 2, stderr);
    assert.match(stderr, reason);
  };
  const same = ["--model", `${models}/b/../a`];
  const short = [...same, "--max-model-len=100"];
  const dtype = [...same, "--dtype=float16"];
  await refused("instance", [...small, "--model", `${models}/b`], /--model \S+\/b, and .* \S+\/a:/);
  await refused("instance", [...small, ...short], /--max-model-len 100, and this manager \d+:/);
  await refused("instance", [...small, ...dtype], /--dtype float16, and this manager float32:/);
  await refused("api-server", ["--port=0", ...short], /API server has --max-model-len 100, and/);
  await manager.waitForLog(/refused instance-hand-\d+: instance-hand-\d+ has --dtype float16/);
  const instance = user.start("instance", ...small, "--model", `${models}/link`);
  await manager.waitForLog(/instance-hand-\d+ is ready/);
  const cluster = await user.cluster(...same, "--served-model-name", "llumnix-tiny");
  assert.equal((await servingInstances(cluster)).length, 2);
  assert.equal(await isReady(cluster), true);
  assert.equal((await instance.stop("SIGINT")).code, 0);
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("joining: a manager that would serve something else than the instances that run does not begin", async () => {
  await using user = new User();
  const first = user.manager("--initial-instances", "2");
  const cluster = await user.cluster();
  const requests = variedRequests(4, 100);
  const quiet = await runAll(cluster, requests);
  first.signal("SIGKILL");
  await cluster.program.waitForLog(/lost the manager/);
  const { code, stderr } = await runProgram(["manager", ...small, "--max-model-len=100"], {
    env: { XDG_RUNTIME_DIR: user.directory },
  });
  assert.equal(code, 2, stderr);
  assert.match(
    stderr,
    /instance-\d has --max-model-len \d+, and this manager 100\. Start the manager with .*instance-\d \(process \d+\), inst/,
  );
  assertSameStreams(await runAll(cluster, requests), quiet);
  const second = user.manager("--initial-instances", "2");
  await second.waitForLog(/instance-0 is ready[^]*instance-1 is ready|instance-1 is ready[^]*0 is/);
  assert.doesNotMatch(second.stderr, /starting instance/);
  assertSameStreams(await runAll(cluster, requests), quiet);
  await second.stopWell();
  await cluster.program.stopWell();
});

Deno.test("joining: an API server does not use a manager that comes with other settings", async () => {
  await using user = new User();
  const first = user.manager();
  const cluster = await user.cluster();
  const requests = variedRequests(2, 50);
  const quiet = await runAll(cluster, requests);
  const complete = () =>
    fetch(`${cluster.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "x", max_tokens: 5 }),
    });
  await first.stopWell();
  const waiting = complete();
  const other = user.manager("--max-model-len=100");
  await other.waitForLog(/instance-0 is ready/);
  const reason = /this API server has --max-model-len \d+, and its manager 100: give both the same/;
  for (const answer of [await waiting, await complete()]) {
    assert.equal(answer.status, 503);
    assert.match((await answer.json()).error.message, reason);
  }
  assert.match(cluster.program.stderr, new RegExp(` ERROR .*is not used: ${reason.source}`));
  assert.equal(await isReady(cluster), false);
  await other.stopWell();
  const second = user.manager();
  await cluster.program.waitUntil("it was ready again", () => isReady(cluster));
  assertSameStreams(await runAll(cluster, requests), quiet);
  await second.stopWell();
  await cluster.program.stopWell();
});
