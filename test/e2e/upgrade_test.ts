/**
 * A running service is replaced by other executables while clients use it. LLUMNIX_UPGRADES=10 replaces it
 * ten times instead of twice. Linux.
 */
import assert from "node:assert/strict";
import { join } from "node:path";
import { assertSameStreams, small } from "./cluster.ts";
import { executablePath, fromSource, runProgram, startServer } from "./harness.ts";
import { canMakeVersions, makeVersion, removeUnpacked } from "./other_version.ts";
import { signalIfThere } from "./harness.ts";
import { runStream, type StreamRequest, type StreamResult, variedRequests } from "./streams.ts";

const NUM_UPGRADES = Number(Deno.env.get("LLUMNIX_UPGRADES") ?? "2");
const versions = Array.from({ length: NUM_UPGRADES }, (_, i) => `0.2.${i % 10}`);
const ignore = fromSource || !canMakeVersions();

/** Clients that keep a service busy until they are told to stop, and count what they saw. */
class Load {
  readonly results: StreamResult[][];
  readonly failures: unknown[] = [];
  numRequests = 0;
  #isOver = false;
  readonly #clients: Promise<void>[];

  constructor(private readonly url: string, private readonly streams: readonly StreamRequest[]) {
    this.results = streams.map(() => []);
    this.#clients = [
      ...streams.map((_, i) => this.#repeat(() => this.#stream(i))),
      this.#repeat(() => this.#request(true)),
      this.#repeat(() => this.#request(false)),
    ];
  }

  async stop(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#clients);
  }

  async #repeat(action: () => Promise<void>): Promise<void> {
    while (!this.#isOver) {
      try {
        await action();
      } catch (error) {
        this.failures.push(error);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    }
  }

  async #stream(i: number): Promise<void> {
    this.results[i].push(await runStream(this.url, this.streams[i]));
  }

  /** @param keepsConnection as most clients do */
  async #request(keepsConnection: boolean): Promise<void> {
    using client = keepsConnection ? undefined : Deno.createHttpClient({ poolMaxIdlePerHost: 0 });
    const response = await fetch(`${this.url}/v1/completions`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ prompt: "a short one", max_tokens: 4 }),
      client,
    });
    const text = await response.text();
    assert.equal(response.status, 200, text);
    this.numRequests++;
  }
}

async function versionOf(url: string): Promise<string> {
  return (await (await fetch(`${url}/version`)).json()).version;
}

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
      const requests = variedRequests(6, 600);
      const quiet = await Promise.all(requests.map((request) => runStream(url, request)));
      load = new Load(url, requests);
      for (const [i, version] of versions.entries()) {
        const binary = join(directory, `llumnix-${i}`);
        await makeVersion(binary, version);
        const upgrade = await runProgram(["upgrade", "--binary", binary], {
          command: [executablePath],
          env,
        });
        assert.equal(upgrade.code, 0, `${upgrade.stdout}${upgrade.stderr}\n${program.stderr}`);
        assert.match(upgrade.stdout, /replaced 2 of 2 instances\n/);
        const next = Number(/replaced by process (\d+)/.exec(upgrade.stdout)?.[1]);
        assert.notEqual(next, pid);
        pid = next;
        assert.equal(await versionOf(url), version);
        const list = await runProgram(["upgrade", "--list"], { command: [executablePath], env });
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
      assert.match(program.stderr, / moved /);
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
