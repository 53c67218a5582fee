/**
 * The hosts of a service are upgraded while clients use it. They share this machine here. The suite upgrades
 * the leader's host; `deno task upgrades` both hosts, in turn and at the same time, and roles that run apart.
 * Linux.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import config from "../../deno.json" with { type: "json" };
import { UnixDatagramSocket } from "../ffi/unix_datagram_socket.ts";
import { freePort } from "../free_port.ts";
import { assertSameStreams, isReady, small } from "./cluster.ts";
import { executablePath, fromSource, type Program, signalIfThere } from "./harness.ts";
import { canMakeVersions, makeVersion, removeUnpacked } from "./other_version.ts";
import { User } from "./roles.ts";
import { runStream, variedRequests } from "./streams.ts";
import { Load, successorsIn, upgrade, versionOf } from "./upgrades.ts";

const ignore = fromSource || !canMakeVersions();
const needs = ignore ? " (needs the self-extracting executable)" : "";
/** `deno task upgrades` */
const isLong = Deno.env.get("LLUMNIX_UPGRADES") !== undefined;
const numRounds = Number(Deno.env.get("LLUMNIX_UPGRADES") ?? "1");
const migration = ["--enable-migration", "--migration-backend=rayrpc"];
/** Silence alone would end no leadership during the test. */
const lease = "--cluster-lease=60";

/** A host's `serve`. */
interface Host {
  readonly program: Program;
  readonly url: string;
  /** Of the process that serves now. */
  pid: number;
}

function startHost(user: User, name: string): Host {
  const port = freePort();
  const program = user.start(
    ...["serve", ...small, ...migration, lease, "--disable-log-requests"],
    ...["--cluster", `file:${join(user.directory, "store")}`, "--host-name", name],
    ...["--host", "127.0.0.1", "--port", `${port}`, "--log-filename", ""],
  );
  return { program, url: `http://127.0.0.1:${port}`, pid: program.pid };
}

async function untilReady({ program, url }: Host): Promise<void> {
  await program.waitUntil("it was ready", () => isReady({ url }).catch(() => false));
}

async function stopAll(load: Load | null, pids: readonly number[], programs: readonly Program[]) {
  await load?.stop();
  for (const pid of pids) signalIfThere(pid, "SIGTERM");
  for (const program of programs) await program.end();
}

/** Where managers and instances of a host had their sockets. */
function removeDirectories(user: User): void {
  for (const name of ["a", "b"]) {
    try {
      Deno.removeSync(join(user.directory, "llumnix", name));
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

Deno.test({
  name:
    `serve --cluster: hosts replaced under load, beside hosts of another version, and no request fails` +
    needs,
  ignore,
  async fn() {
    const versions = Array.from({ length: numRounds }, (_, i) => `0.4.${i % 10}`);
    using systemd = new UnixDatagramSocket(`@llumnix-test-${crypto.randomUUID()}`);
    await using user = new User({ NOTIFY_SOCKET: systemd.path });
    const told: string[] = [];
    const listen = () => {
      for (const text of systemd.receiveAll()) told.push(...text.split("\n"));
    };
    const listening = setInterval(listen, 50); // a socket keeps ten messages
    const binaries = Deno.makeTempDirSync();
    const a = startHost(user, "a");
    await untilReady(a);
    const b = startHost(user, "b");
    await b.program.waitForLog(/joined the manager/);
    await untilReady(b);
    const hosts = [a, b];
    let load: Load | null = null;
    const said = () => hosts.map(({ program }) => program.stderr).join("\n--\n");
    const successors: number[] = [];
    const upgradeHost = async (host: Host, binary: string) => {
      const done = await upgrade(user.directory, "--pid", `${host.pid}`, "--binary", binary);
      assert.equal(done.code, 0, `${done.stdout}${done.stderr}\n${said()}`);
      assert.match(done.stdout, /^serve [^]*replaced 1 of 1 instances\n$/);
      [host.pid] = successorsIn(done.stdout);
      successors.push(host.pid);
    };
    try {
      const requests = variedRequests(numRounds > 1 ? 4 : 2, 600);
      const quiet = await Promise.all(requests.map((request) => runStream(a.url, request)));
      load = new Load(hosts.map(({ url }) => url), requests);

      const broken = join(binaries, "broken");
      Deno.writeTextFileSync(broken, "#!/bin/sh\necho no such host >&2\nexit 3\n", { mode: 0o755 });
      const refused = await upgrade(user.directory, "--pid", `${a.pid}`, "--binary", broken);
      assert.equal(refused.code, 1);
      assert.match(
        refused.stderr,
        /serve \(process \d+\) was not upgraded, and serves on: .*broken/,
      );

      let before = config.version;
      for (const [i, version] of versions.entries()) {
        const binary = join(binaries, `llumnix-${i}`);
        await makeVersion(binary, version);
        const isAtOnce = isLong && i % 2 === 0;
        if (isAtOnce) { // their instances drain one after the other all the same
          await Promise.all(hosts.map((host) => upgradeHost(host, binary)));
        } else {
          await upgradeHost(a, binary);
          const both = await Promise.all(hosts.map(({ url }) => versionOf(url)));
          assert.deepEqual(both, [version, before]);
          if (isLong) await upgradeHost(b, binary);
        }
        const list = await upgrade(user.directory, "--list");
        const lines = list.stdout.trim().split("\n");
        assert.equal(lines.length, 4, list.stdout); // two hosts, and an instance of each
        const isNew = (line: string) => line.includes(`, ${version} (`);
        assert.equal(lines.filter(isNew).length, isLong ? 4 : 2, list.stdout);
        before = version;
      }
      // With this lease, only leaders that resigned can have been followed.
      const epochs = [...said().matchAll(/leading in epoch (\d+)/g)].map(([, epoch]) =>
        Number(epoch)
      );
      assert.ok(Math.max(...epochs) > versions.length, said());
      await load.stop();
      assert.deepEqual(load.failures, [], said());
      for (const [i, results] of load.results.entries()) {
        assert.ok(results.length > 0);
        assertSameStreams(results, results.map(() => quiet[i]));
      }
      assert.ok(load.numRequests > 0);
      listen();
      const mainPids = told.flatMap((text) => /^MAINPID=(\d+)$/.exec(text)?.[1] ?? []).map(Number);
      assert.deepEqual(mainPids.toSorted(), successors.toSorted());
      assert.equal(told.filter((text) => text === "READY=1").length, 2 + successors.length);
      console.log(
        `${successors.length} replacements of a host: ${load.results.flat().length} streams, ` +
          `${load.numRequests} short requests, ${load.failures.length} failures`,
      );
    } finally {
      await stopAll(load, hosts.map(({ pid }) => pid), hosts.map(({ program }) => program));
      clearInterval(listening);
      Deno.removeSync(binaries, { recursive: true });
      removeUnpacked(versions);
      removeDirectories(user);
    }
  },
});

Deno.test({
  name:
    "roles apart over two hosts: managers, agents and API server replaced under load, in place" +
    (isLong ? needs : " (long: deno task upgrades)"),
  ignore: ignore || !isLong,
  async fn() {
    const version = "0.4.9";
    await using user = new User();
    const binaries = Deno.makeTempDirSync();
    const shared = [...migration, lease, "--cluster", `file:${join(user.directory, "store")}`];
    const managers = ["a", "b"].map((name) =>
      user.manager(
        ...[...shared, "--manager-address", addressOf(user, name)],
        ...["--disable-fixed-node-init-instance", "--initial-instances", "2"],
      )
    );
    const agents = ["a", "b"].map((name) =>
      user.start("agent", ...small, ...shared, "--host-name", name)
    );
    for (const agent of agents) await agent.waitForLog(/joined the manager/);
    const { program: api, url } = await user.cluster(...shared, "--disable-log-requests");
    const programs = [...managers, ...agents, api];
    let load: Load | null = null, successors: number[] = [];
    try {
      const requests = variedRequests(4, 600);
      const quiet = await Promise.all(requests.map((request) => runStream(url, request)));
      load = new Load([url], requests);
      const next = join(binaries, "next");
      await makeVersion(next, version);
      const done = await upgrade(user.directory, "--binary", next);
      const said = () => programs.map(({ stderr }) => stderr).join("\n--\n");
      assert.equal(done.code, 0, `${done.stdout}${done.stderr}\n${said()}`);
      assert.match(done.stdout, /^manager [^]*\nmanager [^]*\nagent [^]*\nagent [^]*\napi-server /);
      assert.equal(done.stdout.match(/replaced 1 of 1 instances\n/g)?.length, 2, done.stdout);
      successors = successorsIn(done.stdout);
      assert.equal(successors.length, 5, done.stdout);
      const list = await upgrade(user.directory, "--list");
      assert.equal(list.stdout.match(/, 0\.4\.9 \(/g)?.length, 7, list.stdout);
      assert.equal(await versionOf(url), version);
      await load.stop();
      assert.deepEqual(load.failures, [], said());
      for (const [i, results] of load.results.entries()) {
        assertSameStreams(results, results.map(() => quiet[i]));
      }
    } finally {
      const pids = successors.length > 0 ? successors.toReversed() : programs.map(({ pid }) => pid);
      await stopAll(load, pids, programs);
      Deno.removeSync(binaries, { recursive: true });
      removeUnpacked([version]);
      removeDirectories(user);
    }
  },
});

Deno.test({
  name: "a cluster's manager that starts instances itself gives them to its successor" +
    (isLong ? needs : " (long: deno task upgrades)"),
  ignore: ignore || !isLong,
  async fn() {
    const version = "0.4.8";
    await using user = new User();
    const binaries = Deno.makeTempDirSync();
    const shared = [...migration, lease, "--cluster", `file:${join(user.directory, "store")}`];
    const manager = (name: string) =>
      user.manager(
        ...[...shared, "--manager-address", addressOf(user, name), "--initial-instances", "2"],
      );
    const leader = manager("a");
    await leader.waitForLog(/leading in epoch 1/);
    const follower = manager("b");
    await follower.waitForLog(/following .* which leads in epoch 1/);
    const { program: api, url } = await user.cluster(...shared, "--disable-log-requests");
    const programs = [leader, follower, api];
    const requests = variedRequests(4, 600);
    const quiet = await Promise.all(requests.map((request) => runStream(url, request)));
    const load = new Load([url], requests);
    let successors: number[] = [];
    try {
      const next = join(binaries, "next");
      await makeVersion(next, version);
      const done = await upgrade(user.directory, "--pid", `${leader.pid}`, "--binary", next);
      assert.equal(done.code, 0, `${done.stdout}${done.stderr}\n${leader.stderr}`);
      assert.match(done.stdout, /replaced 2 of 2 instances\n$/);
      successors = successorsIn(done.stdout);
      assert.match(leader.stderr, /leading in epoch 2/);
      assert.doesNotMatch(follower.stderr, /leading in/);
      await load.stop();
      assert.deepEqual(load.failures, [], `${leader.stderr}${api.stderr}`);
      for (const [i, results] of load.results.entries()) {
        assertSameStreams(results, results.map(() => quiet[i]));
      }
    } finally {
      await stopAll(load, [api.pid, follower.pid], [api, follower]);
      await stopAll(load, [successors[0] ?? leader.pid], programs);
      Deno.removeSync(binaries, { recursive: true });
      removeUnpacked([version]);
      removeDirectories(user);
    }
  },
});

Deno.test({
  name: "a leader is not replaced while the lease store is away, and serves on" +
    (isLong ? needs : " (long: deno task upgrades)"),
  ignore: ignore || !isLong,
  async fn() {
    await using user = new User();
    const store = join(user.directory, "store"), away = join(user.directory, "away");
    const manager = user.manager(
      ...["--cluster", `file:${store}`, "--manager-address", addressOf(user, "a")],
      ...["--disable-fixed-node-init-instance", ...migration],
    );
    await manager.waitForLog(/leading in epoch 1/);
    const order = () => upgrade(user.directory, "--binary", executablePath);
    let pid = manager.pid;
    try {
      Deno.renameSync(store, away);
      Deno.writeTextFileSync(store, "");
      await manager.waitForLog(/cannot use the lease store, and go on without it/);
      const refused = await order();
      assert.equal(refused.code, 1, refused.stdout);
      assert.match(
        refused.stderr,
        /manager \(process \d+\) was not upgraded, and serves on: .* could not take over: the lease store does not answer, .*: try again/,
      );
      Deno.removeSync(store);
      Deno.renameSync(away, store);
      await manager.waitForLog(/the lease store answers again/);
      assert.doesNotMatch(manager.stderr, /leading no more/);
      const done = await order();
      assert.equal(done.code, 0, `${done.stderr}\n${manager.stderr}`);
      [pid] = successorsIn(done.stdout);
      await manager.waitForLog(/leading in epoch 2/);
    } finally {
      await stopAll(null, [pid], [manager]);
      removeDirectories(user);
    }
  },
});

/** Where the manager of a host listens. */
function addressOf(user: User, host: string): string {
  return `unix:${join(user.directory, "llumnix", host, "manager.sock")}`;
}
