/** Several managers, of which one leads. Linux: processes are signalled. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { assertSameStreams, pidOf, runAll, servingInstances } from "./cluster.ts";
import { freePort } from "../free_port.ts";
import { runProgram } from "./harness.ts";
import { User } from "./roles.ts";
import { variedRequests } from "./streams.ts";

Deno.test("cluster: the leading manager is killed, streams go on, and another one leads", async () => {
  await using user = new User();
  const directory = join(user.directory, "llumnix");
  const managers = join(directory, "managers");
  Deno.mkdirSync(managers, { recursive: true, mode: 0o700 });
  const url = `file:${join(managers, "store")}`;
  const addressOf = (name: string) => `unix:${join(managers, name, "manager.sock")}`;
  const manager = (name: string) =>
    user.manager(
      ...["--cluster", url, "--manager-address", addressOf(name), "--initial-instances", "2"],
    );
  const first = manager("a");
  await first.waitForLog(/leading in epoch 1/);
  const second = manager("b");
  await second.waitForLog(/following .* which leads in epoch 1/);
  const joined = await user.cluster("--cluster", url);
  const requests = variedRequests(8, 400);
  const quiet = await runAll({ ...joined, managerAddress: addressOf("a") }, requests);
  const cluster = { ...joined, managerAddress: addressOf("b") };

  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) first.signal("SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await second.waitForLog(/leading in epoch 2/);
  await second.waitForLog(/instance-0 is ready[^]*instance-1 is ready|instance-1 is ready[^]*0 is/);
  await joined.program.waitForLog(/another manager leads now/);
  assertSameStreams(await runAll(cluster, requests), quiet);
  const ids = (await servingInstances(cluster)).map(({ instanceId }) => instanceId);
  assert.deepEqual(ids, ["instance-0", "instance-1"]);
  assert.doesNotMatch(second.stderr, /starting instance/);

  await joined.program.stopWell();
  // They outlive each manager: the next leader would find them.
  for (const id of ids) Deno.kill(await pidOf(cluster, id), "SIGTERM");
  await second.waitForLog(
    /instance-0 has stopped[^]*instance-1|instance-1 has stopped[^]*instance-0/,
  );
  await second.stop();
  Deno.removeSync(managers, { recursive: true });
  Deno.removeSync(join(directory, `control-${first.pid}.sock`)); // killed, it could not do so itself
});

Deno.test("cluster: a manager with another key or model than the leader's does not stand, and says so", async () => {
  await using user = new User();
  Deno.mkdirSync(join(user.directory, "llumnix")); // nothing will be there
  const key = join(user.directory, "key"), otherKey = join(user.directory, "other-key");
  for (const path of [key, otherKey]) assert.equal((await runProgram(["keygen", path])).code, 0);
  const store = join(user.directory, "store");
  Deno.mkdirSync(store, { mode: 0o700 });
  const stand = (keyFile: string, ...args: string[]) =>
    user.start(
      ...["manager", "--cluster", `file:${store}`, "--cluster-key-file", keyFile] as const,
      ...["--manager-address", `tcp:127.0.0.1:${freePort()}`],
      ...["--device", "sim", "--model", "llama-7b"],
      ...["--disable-init-instance-by-manager", "--migration-backend", "rayrpc", ...args],
    );
  const leader = stand(key);
  await leader.waitForLog(/leading in epoch 1/);
  const strangers = [
    [stand(otherKey), /its certificate is of another cluster.* --cluster-key-file/],
    [stand(key, "--max-model-len", "64"), /--max-model-len 64, and the leader at tcp:.* \d+: give/],
  ] as const;
  for (const [stranger, message] of strangers) {
    assert.equal((await stranger.end()).code, 1);
    assert.match(stranger.stderr, message);
    assert.match(stranger.stderr, / ERROR \S+: stopping: .*, or this cluster another name/);
    assert.doesNotMatch(stranger.stderr, /leading in epoch/);
  }
  await leader.stopWell();
});

Deno.test("cluster: a manager's address that other hosts cannot reach is refused", async () => {
  for (const address of ["tcp:127.0.0.1:9000", "unix:/tmp/manager.sock"]) {
    const { code, stderr } = await runProgram([
      ...["manager", "--cluster", "etcd://10.0.0.9", "--manager-address", address],
      "--cluster-insecure",
    ]);
    assert.equal(code, 2);
    assert.match(
      stderr,
      /--manager-address .*: .*of other hosts cannot connect.*expected tcp:HOST/,
    );
  }
});
