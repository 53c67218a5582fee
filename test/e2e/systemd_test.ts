/** The service as systemd sees it; the test plays systemd. Linux. */
import assert from "node:assert/strict";
import { UnixDatagramSocket } from "../ffi/unix_datagram_socket.ts";
import { small } from "./cluster.ts";
import { freePort } from "../free_port.ts";
import { executablePath, fromSource, Program, signalIfThere } from "./harness.ts";

const ignore = fromSource || Deno.build.os !== "linux";
const WATCHDOG_MS = 2_000;

/** What the service has told, with the time of each part. */
class Supervisor {
  readonly #told: { text: string; atMs: number }[] = [];

  constructor(private readonly socket: UnixDatagramSocket) {}

  get texts(): string[] {
    for (const text of this.socket.receiveAll()) {
      this.#told.push(...text.split("\n").map((text) => ({ text, atMs: performance.now() })));
    }
    return this.#told.map(({ text }) => text);
  }

  count(text: string): number {
    return this.texts.filter((one) => one === text).length;
  }
}

function environmentOf(pid: number): string[] {
  return Deno.readTextFileSync(`/proc/${pid}/environ`).split("\0");
}

Deno.test({
  name: "systemd: readiness, watchdog, its socket, a reload by SIGUSR2, the stop, and the journal" +
    (fromSource ? " (needs the executable)" : ""),
  ignore,
  async fn() {
    const directory = Deno.makeTempDirSync();
    using socket = new UnixDatagramSocket(`@llumnix-test-${crypto.randomUUID()}`);
    const systemd = new Supervisor(socket);
    const port = freePort();
    const path = (name: string) => new URL(name, import.meta.url).pathname;
    await using program = new Program(
      // The port is that of the socket; the one of the arguments would not be free.
      ["serve", "--host=127.0.0.1", "--port=1", ...small],
      {
        command: [executablePath],
        launcher: [
          ...[Deno.execPath(), "run", "-A", "--config", path("../../deno.json")],
          ...[path("_systemd.ts"), String(port)],
        ],
        env: {
          RUNTIME_DIRECTORY: directory,
          NOTIFY_SOCKET: socket.path,
          WATCHDOG_USEC: `${WATCHDOG_MS * 1000}`,
        },
      },
    );
    let pid = program.pid;
    try {
      await program.waitUntil("it was ready", () => systemd.count("READY=1") === 1);
      assert.ok(systemd.texts.some((text) => text.startsWith("EXTEND_TIMEOUT_USEC=")));
      assert.ok(
        systemd.texts.some((text) => /^STATUS=serving .* with 1 instance /.test(text)),
        systemd.texts.join("\n"),
      );
      const isReady = async () =>
        await (await fetch(`http://127.0.0.1:${port}/is_ready`)).text() === "true";
      assert.ok(await isReady());
      await program.waitUntil("it was alive", () => systemd.count("WATCHDOG=1") >= 3);

      for (const { pid, command } of program.processes()) {
        const names = environmentOf(pid).map((entry) => entry.split("=")[0]);
        if (!/ instance /.test(command)) continue;
        for (const name of ["NOTIFY_SOCKET", "WATCHDOG_USEC", "LISTEN_FDS", "LISTEN_PID"]) {
          assert.ok(!names.includes(name), `${name} in the environment of ${command}`);
        }
        assert.equal(Deno.readTextFileSync(`/proc/${pid}/comm`), "llumnix\n");
      }

      program.signal("SIGUSR2");
      await program.waitUntil("its successor was ready", () => systemd.count("READY=1") === 2);
      const { texts } = systemd;
      const successor = texts.find((text) => text.startsWith("MAINPID="));
      pid = Number(successor?.slice("MAINPID=".length));
      assert.notEqual(pid, program.pid);
      assert.ok(texts.lastIndexOf("READY=1") > texts.indexOf(successor!), texts.join("\n"));
      await program.waitForLog(/replaced all instances \(1\)/);
      const alive = systemd.count("WATCHDOG=1");
      await program.waitUntil("it was alive", () => systemd.count("WATCHDOG=1") >= alive + 2);
      assert.ok(await isReady());

      signalIfThere(pid, "SIGTERM");
      await program.end();
      assert.equal(systemd.count("STOPPING=1"), 1);
    } finally {
      signalIfThere(pid, "SIGTERM");
      await program.end();
      const left = [...Deno.readDirSync(directory)].map(({ name }) => name);
      Deno.removeSync(directory, { recursive: true });
      assert.deepEqual(left, []);
    }
    const lines = program.stderr.trim().split("\n");
    for (const line of lines) assert.match(line, /^<[3467]>[\w-]+\/[\w-]+: /);
    assert.ok(lines.some((line) => line.startsWith("<6>instance-0/instance: stopping")));
    assert.deepEqual([...Deno.readDirSync(program.directory)], []); // no log file
  },
});
