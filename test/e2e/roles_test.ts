/** Manager, API server and instances as processes of their own. Linux: processes are signalled. */
import assert from "node:assert/strict";
import { join } from "node:path";
import {
  assertSameStreams,
  type Cluster,
  isReady,
  pidOf,
  runAll,
  servingInstances,
  small,
  startCluster,
  waitUntilEmpty,
} from "./cluster.ts";
import { freePort } from "../free_port.ts";
import { type Program, runProgram } from "./harness.ts";
import { User } from "./roles.ts";
import { UnixDatagramSocket } from "../ffi/unix_datagram_socket.ts";
import { clusterKey } from "../../src/roles/cluster_key.ts";
import { variedRequests } from "./streams.ts";

async function idsOf(cluster: Cluster): Promise<string[]> {
  return (await servingInstances(cluster)).map(({ instanceId }) => instanceId);
}

Deno.test("roles apart: the manager is killed, streams go on, and the next one finds them", async () => {
  await using user = new User();
  const first = user.manager("--initial-instances", "2");
  const cluster = await user.cluster();
  const requests = variedRequests(8, 400);
  const quiet = await runAll(cluster, requests);
  const ids = await idsOf(cluster);

  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) first.signal("SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await cluster.program.waitForLog(/lost the manager/);
  assertSameStreams(await runAll(cluster, requests), quiet);

  const second = user.manager("--initial-instances", "2");
  await second.waitForLog(/instance-0 is ready[^]*instance-1 is ready|instance-1 is ready[^]*0 is/);
  assert.deepEqual(await idsOf(cluster), ids);
  assert.doesNotMatch(second.stderr, /starting instance/);

  // It looks after those that it found as after its own.
  Deno.kill(await pidOf(cluster, "instance-0"), "SIGKILL");
  await second.waitForLog(/lost instance-0/);
  await second.waitUntil(
    "it was ready again",
    async () => (await idsOf(cluster)).length === 2 && await isReady(cluster),
  );
  assertSameStreams(await runAll(cluster, requests), quiet);
  await waitUntilEmpty(cluster, 2);
  await second.stopWell();
  await cluster.program.stopWell();
});

Deno.test("roles apart: the manager stops in order, and streams that run then finish", async () => {
  await using user = new User();
  const manager = user.manager();
  const cluster = await user.cluster();
  const requests = variedRequests(4, 400);
  const quiet = await runAll(cluster, requests);
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 500) manager.signal("SIGTERM");
  });
  assertSameStreams(streams, quiet);
  assert.equal((await manager.end()).code, 0);
  assert.equal(await isReady(cluster), false);
  await cluster.program.stopWell();
});

/** What a role serves at `--metrics-port`. */
async function metricsOf(program: Program): Promise<string> {
  const at = /metrics at (http:\S+)/;
  await program.waitForLog(at);
  return await (await fetch(at.exec(program.stderr)![1])).text();
}

Deno.test("roles apart: an instance by hand is one more, until it is ended by hand", async () => {
  await using user = new User();
  const manager = user.manager("--metrics-port", "0");
  const cluster = await user.cluster();
  // Its unit of systemd hears that it serves, that it lives, and that it stops.
  using systemd = new UnixDatagramSocket(`@llumnix-test-${crypto.randomUUID()}`);
  const unit = ["env", `NOTIFY_SOCKET=${systemd.path}`, "WATCHDOG_USEC=60000000"];
  const instance = user.startBy(unit, "instance", ...small, "--metrics-port", "0");
  await manager.waitForLog(/instance-hand-\d+ is ready/);
  await instance.waitForLog(
    /joined the manager at unix:.*manager\.sock\n.*instance: serving.*model=.*kvTokens=\d+/,
  );
  assert.doesNotMatch(manager.stderr, /joined the manager|instance: serving/); // nor its own
  assert.equal((await idsOf(cluster)).length, 2);
  // The manager and the API server show both instances, the instance itself.
  const shown = [await metricsOf(manager), await metricsOf(instance)];
  shown.push(await (await fetch(`${cluster.url}/metrics`)).text());
  assert.deepEqual(shown.map((text) => text.match(/^vllm:num_requests_running/gm)?.length), [
    2,
    1,
    2,
  ]);
  assert.equal((await instance.stop("SIGINT")).code, 0);
  const told = [...systemd.receiveAll()].map((text) => text.split("\n")[0].replace(/=\d{4,}$/, ""));
  assert.deepEqual(told.slice(-5), [
    ...["EXTEND_TIMEOUT_USEC", "READY=1", "WATCHDOG=1", "STOPPING=1", "EXTEND_TIMEOUT_USEC"],
  ]);
  await manager.waitForLog(/instance-hand-\d+ has stopped/);
  assert.deepEqual(await idsOf(cluster), ["instance-0"]);
  assert.equal(await isReady(cluster), true);
  await cluster.program.stopWell();
  await manager.stopWell();
});

/** The names of an instance's claims of host memory: see `src/executor/cpu/memory_claims.ts`. */
function memoryClaims(pid: number): string[] {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].flatMap(({ name }) => {
    const link = Deno.readLinkSync(`/proc/${pid}/fd/${name}`);
    return /^\/memfd:(llumnix-memory-\w+)-\d+/.exec(link)?.[1] ?? [];
  });
}

Deno.test("roles apart: two instances that are started by hand at the same moment both serve", async () => {
  await using user = new User();
  const manager = user.manager();
  const cluster = await user.cluster();
  const both = [user.start("instance", ...small), user.start("instance", ...small)];
  await manager.waitForLog(/instance-hand-\d+ is ready[^]*instance-hand-\d+ is ready/);
  const ids = (await idsOf(cluster)).sort();
  assert.equal(new Set(ids).size, 3, `${ids}`);
  // Each has claimed the memory that it will use, once and for good.
  const pids = await Promise.all(ids.map((id) => pidOf(cluster, id)));
  assert.deepEqual(pids.map(memoryClaims), ids.map(() => ["llumnix-memory-claim"]));
  const requests = variedRequests(6, 60);
  assertSameStreams(await runAll(cluster, requests), await runAll(cluster, requests));
  for (const instance of both) assert.equal((await instance.stop("SIGINT")).code, 0);
  await manager.waitForLog(/(instance-hand-\d+ has stopped[^]*){2}/);
  assert.deepEqual(await idsOf(cluster), ["instance-0"]);
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("roles apart: an instance by hand has its name for itself, and ends by itself when it is to", async () => {
  await using user = new User();
  const manager = user.manager();
  const cluster = await user.cluster();
  const requests = variedRequests(8, 200);
  const quiet = await runAll(cluster, requests);
  const args = [...small, "--instance-id", "mine"];
  for (const drainTimeout of ["30", "30", "0.1"]) {
    const instance = user.start("instance", ...args, "--drain-timeout", drainTimeout);
    await cluster.program.waitUntil("it serves", async () => {
      return (await idsOf(cluster)).includes("mine");
    });
    const second = await runProgram(["instance", ...args], {
      env: { XDG_RUNTIME_DIR: user.directory },
    });
    assert.equal(second.code, 2);
    assert.match(
      second.stderr,
      /^[^\n]* stopping: --instance-id mine: an instance of the manager \(process \d+\) has [^\n]*\n$/,
    );
    let events = 0;
    const streams = await runAll(cluster, requests, () => {
      if (++events === 500) instance.signal("SIGTERM");
    });
    assertSameStreams(streams, quiet);
    assert.equal((await instance.end()).code, 0);
  }
  await manager.waitForLog(/(mine has stopped[^]*){3}/);
  assert.deepEqual(await idsOf(cluster), ["instance-0"]);
  assert.doesNotMatch(manager.stderr, /lost /);
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("roles apart: an instance by hand that hangs is killed, with a name of its own or without", async () => {
  await using user = new User();
  const manager = user.manager("--instance-timeout", "2");
  const cluster = await user.cluster();
  const isByHand = (id: string) => /^(instance-hand-\d+|mine)$/.test(id);
  let numServing = 1;
  for (const name of [[], ["--instance-id", "mine"]]) {
    const instance = user.start("instance", ...small, ...name);
    await cluster.program.waitUntil("it served", async () => {
      return (await idsOf(cluster)).some(isByHand);
    });
    instance.signal("SIGSTOP");
    assert.equal((await instance.end()).signal, "SIGKILL");
    // An instance that was lost is replaced, whoever started it. On a busy machine others may be lost too.
    numServing++;
    await cluster.program.waitUntil("it was replaced", async () => {
      const ids = await idsOf(cluster);
      return ids.length === numServing && !ids.some(isByHand);
    });
  }
  await manager.waitForLog(
    /lost (instance-hand-\d+|mine).* and was killed[^]*lost mine.* and was killed/,
  );
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("roles apart: an instance whose step hangs is given up, although its process answers", async () => {
  await using user = new User();
  const simulated = ["--device", "sim", "--model", "llama-7b"];
  const manager = user.start("manager", ...simulated, "--speedup", "50", "--dispatch-policy", "rr");
  const cluster = await user.cluster(...simulated, "--served-model-name", "llumnix-tiny");
  const requests = variedRequests(4, 50); // without seeds: tokens differ from run to run
  const lengths = async () =>
    (await runAll(cluster, requests)).map(({ tokenIds }) => tokenIds.length);
  const quiet = await lengths();
  // Its steps take minutes.
  const hung = user.start("instance", ...simulated, "--speedup=0.0001", "--step-timeout=0.5");
  await manager.waitForLog(/instance-hand-\d+ is ready/);
  assert.deepEqual(await lengths(), quiet);
  assert.equal((await hung.end()).code, 1);
  await manager.waitForLog(
    /lost instance-hand-\d+.*a step \(prefill, .*\) did not end in 0\.5 s \(--step-timeout\)/,
  );
  await cluster.program.stopWell();
  await manager.stopWell();
});

Deno.test("roles apart: instances without a manager end after a while, and leave nothing", async () => {
  await using user = new User();
  const manager = user.manager("--orphan-timeout", "0.5");
  await manager.waitForLog(/instance-0 is ready/);
  manager.signal("SIGKILL");
  await manager.end(); // with the instance, which shares its stderr
  assert.match(manager.stderr, /the manager is gone, and did not come back in 500 ms/);
  const next = user.manager();
  await next.waitForLog(/instance-\w+-0 is ready/);
  await next.stopWell();
});

Deno.test("roles apart: a second manager is refused, and what serves another model", async () => {
  await using user = new User();
  const env = { XDG_RUNTIME_DIR: user.directory };
  const manager = user.manager();
  await manager.waitForLog(/instance-0 is ready/);
  const second = await runProgram(["manager", ...small], { env });
  assert.equal(second.code, 2);
  assert.match(second.stderr, /another manager serves at unix:.*manager\.sock: stop that one/);
  const other = ["--model", "llama-7b", "--device", "sim"];
  const noModel = await runProgram(["instance", "--model", "/nonexistent"], { env });
  assert.equal(noModel.code, 2);
  assert.match(
    noModel.stderr,
    /^.* joined the manager .*\n.* ERROR instance-hand-\d+\/instance: stopping: .*nonexistent.*\n$/,
  );
  const wrong = await runProgram(["api-server", "--port", "0", ...other], { env });
  assert.equal(wrong.code, 2);
  assert.match(wrong.stderr, /this API server has --model llama-7b, and its manager llumnix-tiny/);
  await manager.stopWell();
});

Deno.test("roles apart: over TCP, and instances that the API server's process starts", async () => {
  await using user = new User();
  const address = `tcp:127.0.0.1:${freePort()}`;
  const keyFile = join(user.directory, "key");
  assert.equal((await runProgram(["keygen", keyFile])).code, 0);
  const secured = ["--cluster-key-file", keyFile];
  const keyless = await runProgram(["manager", ...small, "--manager-address", address]);
  assert.equal(keyless.code, 2);
  assert.match(
    keyless.stderr,
    /needs a key that all of them have: make one \(llumnix keygen FILE\)/,
  );
  const placed = [
    ...["--manager-address", address, "--initial-instances", "2", ...secured],
    ...["--disable-init-instance-by-manager", "--migration-backend", "rayrpc"],
  ];
  const manager = user.manager(...placed);
  const cluster = {
    ...await user.cluster(...small, ...placed),
    managerAddress: address,
    clusterKey: clusterKey({ clusterKeyFile: keyFile }),
  };
  assert.doesNotMatch(manager.stderr, /starting instance/);
  const requests = variedRequests(8, 400);
  const quiet = await runAll(cluster, requests);
  const [victim] = await servingInstances(cluster);
  let events = 0;
  const streams = await runAll(cluster, requests, () => {
    if (++events === 1_000) Deno.kill(victim.pid, "SIGKILL");
  });
  assertSameStreams(streams, quiet);
  await manager.waitForLog(/lost instance-api-[^]*instance-\w+-0 is ready/);
  await waitUntilEmpty(cluster, 2);
  const second = await runProgram([
    ...["manager", ...small, "--manager-address", address, ...secured],
  ]);
  assert.match(second.stderr, /another manager or service listens at tcp:/);
  // Instances that serve are the manager's: they end with it and not with the API server.
  cluster.program.signal("SIGTERM");
  await cluster.program.waitForLog(/stopping: SIGTERM/);
  assert.equal((await servingInstances(cluster)).length, 2);
  await manager.stopWell();
  assert.equal((await cluster.program.end()).code, 0);
});

Deno.test("roles apart: whoever is first waits for the manager, until it is stopped", async () => {
  await using user = new User();
  const commands = [["api-server", "--port", "0"], ["instance", ...small]];
  for (const [role, ...args] of commands) {
    for (const signal of ["SIGTERM", "SIGINT"] as const) {
      const alone = user.start(role, ...args);
      await alone.waitForLog(/waiting for a manager at unix:.*manager\.sock\n/);
      assert.equal((await alone.stop(signal)).code, 0);
    }
  }
  const instance = user.start("instance", ...small);
  const port = freePort();
  const server = user.start("api-server", "--host", "127.0.0.1", "--port", `${port}`);
  for (const early of [instance, server]) await early.waitForLog(/waiting for a manager/);
  const manager = user.manager();
  await instance.waitForLog(/serving/);
  await server.waitForLog(/by the manager at/);
  const url = `http://127.0.0.1:${port}`;
  await server.waitUntil("it was ready", () => isReady({ url }).catch(() => false));
  for (const { stderr } of [instance, server]) {
    assert.equal(stderr.match(/waiting for a manager/g)?.length, 1);
  }
  for (const program of [server, instance, manager]) {
    await program.stopWell();
  }
});

Deno.test("roles apart: an API server can be stopped while it waits for a manager, or its instances", async () => {
  await using user = new User();
  const placed = ["--disable-init-instance-by-manager", "--migration-backend", "rayrpc"];
  const args = [...small, ...placed, "--port", "0"];
  const alone = user.start("api-server", ...args);
  await alone.waitForLog(/waiting for a manager/);
  await alone.stopWell();

  const manager = user.manager(...placed);
  await manager.waitForLog(/listening at/);
  const waiting = user.start("api-server", ...args);
  await waiting.waitForLog(/by the manager at/);
  manager.signal("SIGSTOP"); // so that no instance gets to serve
  waiting.signal("SIGTERM");
  await waiting.waitForLog(/stopping: SIGTERM/);
  manager.signal("SIGCONT");
  await manager.stopWell();
  assert.equal((await waiting.end()).code, 0);
});

Deno.test("serve --disable-init-instance-by-manager is the same in one process", async () => {
  await using cluster = await startCluster(2, [
    ...["--disable-init-instance-by-manager", "--disable-fixed-node-init-instance"],
    ...["--migration-backend", "rayrpc"],
  ]);
  // Until then one that ends is a start that failed.
  await cluster.program.waitForLog(/serving .* with 2 instances/);
  const ids = await idsOf(cluster);
  assert.ok(ids.length === 2 && ids.every((id) => id.startsWith("instance-api-")));
  Deno.kill(await pidOf(cluster, ids[0]), "SIGKILL");
  await cluster.program.waitForLog(/instance-0 is ready/);
  assert.equal(await isReady(cluster), true);
});
