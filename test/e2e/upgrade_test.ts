/**
 * A running service is replaced by other executables while clients use it. LLUMNIX_UPGRADES=10 replaces it
 * ten times instead of twice. Linux.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { assertSameStreams, small } from "./cluster.ts";
import { fromSource, signalIfThere, startServer } from "./harness.ts";
import { canMakeVersions, makeVersion, removeUnpacked } from "./other_version.ts";
import { User } from "./roles.ts";
import { runStream, variedRequests } from "./streams.ts";
import { Load, successorsIn, upgrade, versionOf } from "./upgrades.ts";

const NUM_UPGRADES = Number(Deno.env.get("LLUMNIX_UPGRADES") ?? "2");
const versions = Array.from({ length: NUM_UPGRADES }, (_, i) => `0.2.${i % 10}`);
const ignore = fromSource || !canMakeVersions();

Deno.test({
  name: `serve: replaced ${NUM_UPGRADES} times under load, in every role, and no request fails` +
    (ignore ? " (needs the self-extracting executable)" : ""),
  ignore,
  async fn() {
    const directory = Deno.makeTempDirSync();
    const env = { XDG_RUNTIME_DIR: directory };
    const args = ["--initial-instances=2", "--enable-migration", "--migration-backend=rayrpc"];
    args.push("--disable-log-requests");
    const server = await startServer([...args, ...small], { env });
    const { program, url } = server;
    let pid = program.pid;
    let load: Load | null = null;
    try {
      const requests = variedRequests(4, 600);
      const quiet = await Promise.all(requests.map((request) => runStream(url, request)));
      load = new Load([url], requests);
      for (const [i, version] of versions.entries()) {
        const binary = join(directory, `llumnix-${i}`);
        await makeVersion(binary, version);
        const { code, stdout, stderr } = await upgrade(directory, "--binary", binary);
        assert.equal(code, 0, `${stdout}${stderr}\n${program.stderr}`);
        assert.match(stdout, /replaced 2 of 2 instances\n/);
        const [next] = successorsIn(stdout);
        assert.notEqual(next, pid);
        pid = next;
        assert.equal(await versionOf(url), version);
        const list = await upgrade(directory, "--list");
        const lines = list.stdout.trim().split("\n");
        assert.equal(lines.length, 3, list.stdout); // itself and two instances
        for (const line of lines) assert.ok(line.includes(`, ${version} (`), list.stdout);
      }
      await load.stop();
      assert.deepEqual(load.failures, [], program.stderr);
      for (const [i, results] of load.results.entries()) {
        assert.ok(results.length > 0);
        assertSameStreams(results, results.map(() => quiet[i]));
      }
      assert.ok(load.numRequests > 0);
      assert.match(program.stderr, /the path to \S+ moves /); // measured by requests that moved
      console.log(
        `${versions.length} replacements: ${load.results.flat().length} streams, ` +
          `${load.numRequests} short requests, ${load.failures.length} failures`,
      );
    } finally {
      await load?.stop();
      signalIfThere(pid, "SIGTERM");
      await program.end();
      await server[Symbol.asyncDispose]();
      removeUnpacked(versions);
      const left = [...Deno.readDirSync(join(directory, "llumnix"))].map(({ name }) => name);
      Deno.removeSync(directory, { recursive: true });
      assert.deepEqual(left, []);
    }
  },
});

Deno.test({
  name:
    "roles apart: each is replaced under load; an executable that cannot take over changes nothing" +
    (ignore ? " (needs the self-extracting executable)" : ""),
  ignore,
  async fn() {
    const directory = Deno.makeTempDirSync();
    await using user = new User();
    const options = ["--enable-migration", "--migration-backend=rayrpc"];
    const manager = user.manager("--initial-instances=2", ...options);
    const { program, url } = await user.cluster(...options, "--disable-log-requests");
    let successors: number[] = [];
    const requests = variedRequests(4, 600);
    const quiet = await Promise.all(requests.map((request) => runStream(url, request)));
    const load = new Load([url], requests);
    try {
      const broken = join(directory, "broken"), other = join(directory, "other");
      const next = join(directory, "next");
      Deno.writeTextFileSync(broken, "#!/bin/sh\necho no such host >&2\nexit 3\n", { mode: 0o755 });
      await makeVersion(other, "0.3.1", 9);
      await makeVersion(next, "0.3.2");

      const refused = await upgrade(user.directory, "--binary", broken);
      assert.equal(refused.code, 1);
      assert.match(
        refused.stderr,
        /manager \(process \d+\) was not upgraded, and serves on: .*broken is not this program, .* code 3 and said: no such host\n$/,
      );
      const foreign = await upgrade(user.directory, "--binary", other);
      assert.equal(foreign.code, 1);
      assert.match(
        foreign.stderr,
        /serves on: .*other could not take over: .* speaks version \d of the bus protocol, and this end version 9: run the same release/,
      );
      assert.doesNotMatch(manager.stderr, /has taken over/);

      const done = await upgrade(user.directory, "--binary", next);
      assert.equal(
        done.code,
        0,
        `${done.stdout}${done.stderr}\n${manager.stderr}${program.stderr}`,
      );
      successors = successorsIn(done.stdout);
      assert.equal(successors.length, 2, done.stdout);
      assert.match(done.stdout, /^manager [^]*replaced 2 of 2 instances\napi-server /);
      const list = await upgrade(user.directory, "--list");
      assert.equal(list.stdout.match(/, 0\.3\.2 \(/g)?.length, 4, list.stdout);
      assert.equal(await versionOf(url), "0.3.2");
      await load.stop();
      assert.deepEqual(load.failures, [], `${manager.stderr}${program.stderr}`);
      for (const [i, results] of load.results.entries()) {
        assertSameStreams(results, results.map(() => quiet[i]));
      }
    } finally {
      await load.stop();
      for (const pid of successors.toReversed()) signalIfThere(pid, "SIGTERM");
      if (successors.length === 0) await Promise.all([program.stop(), manager.stop()]);
      else await Promise.all([program.end(), manager.end()]);
      Deno.removeSync(directory, { recursive: true });
      removeUnpacked(["0.3.1", "0.3.2"]);
    }
  },
});

Deno.test({
  name:
    "serve: a successor that fails after it took over gives everything back; the next one succeeds",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const directory = Deno.makeTempDirSync();
    const keys = join(directory, "keys");
    Deno.writeTextFileSync(keys, "secret\n", { mode: 0o600 });
    const server = await startServer(["--api-key-file", keys, ...small], {
      env: { XDG_RUNTIME_DIR: directory },
    });
    const { program, url } = server;
    let pid = program.pid;
    const complete = async () => {
      const response = await fetch(`${url}/v1/completions`, {
        method: "POST",
        headers: { "content-type": "application/json", authorization: "Bearer secret" },
        body: JSON.stringify({ prompt: "x", max_tokens: 500, ignore_eos: true }),
      });
      const text = await response.text();
      assert.equal(response.status, 200, text);
    };
    try {
      await complete();
      Deno.removeSync(keys); // which only a server that starts reads
      const meanwhile = complete();
      program.signal("SIGUSR2");
      await program.waitForLog(/not upgraded, and serving on: .*--api-key-file .* cannot be read/);
      await meanwhile;
      await program.waitUntil("it was ready", async () => {
        return await (await fetch(`${url}/is_ready`)).text() === "true";
      });
      await complete();
      assert.doesNotMatch(program.stderr, /starting instance-[^0]|lost instance/);

      Deno.writeTextFileSync(keys, "secret\n", { mode: 0o600 });
      program.signal("SIGUSR2");
      await program.waitForLog(/process \d+ has taken over/);
      pid = Number(/process (\d+) has taken over/.exec(program.stderr)![1]);
      await complete();
      await program.waitForLog(/replaced all instances \(1\)/);
    } finally {
      signalIfThere(pid, "SIGTERM");
      await program.end();
      await server[Symbol.asyncDispose]();
      Deno.removeSync(directory, { recursive: true });
    }
  },
});
