/** A process, here the test's own, and its successor: a shell script, or the test's other end of the bus. */
import assert from "node:assert/strict";
import type { Bus, Peer, Service } from "../../../src/bus/bus.ts";
import { openBus } from "../../../src/bus/open_bus.ts";
import { UnavailableError } from "../../../src/core/errors.ts";
import type { Log } from "../../../src/core/log.ts";
import type { UpgradeOrder } from "../../../src/core/protocol/upgrade.ts";
import {
  controlAddress,
  controlSockets,
  prepareControlDirectory,
} from "../../../src/roles/upgrade/control_socket.ts";
import { Upgrades, type UpgradesConfig } from "../../../src/roles/upgrade/predecessor.ts";
import { VirtualClock } from "../../../src/sim/clock/virtual_clock.ts";
import { until } from "../../patience.ts";
import { writeProgram } from "./_program.ts";

const ignore = Deno.build.os !== "linux";

/** Accepts the checks before the start. */
const accepts = `case "$*" in
  --version) echo "llumnix 9.9.9"; exit ;;
  *--print-config) exit ;;
esac`;

interface Answer {
  readonly data: { readonly pid: number; readonly version: string };
}

interface World {
  readonly upgrades: Upgrades;
  readonly directory: string;
  readonly calls: string[];
  readonly log: string[];
  order(body: string): Promise<{ pid: number; version: string }>;
}

/**
 * Runs with a process that serves, and that can be upgraded.
 * @param call orders an upgrade; default: over the control socket
 */
async function withUpgrades(
  body: (world: World) => Promise<void>,
  config: Partial<UpgradesConfig> = {},
  call?: (order: UpgradeOrder) => Answer | Promise<Answer>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const before = Deno.env.get("XDG_RUNTIME_DIR");
  Deno.env.set("XDG_RUNTIME_DIR", directory);
  const calls: string[] = [], log: string[] = [];
  const write = (message: string) => void log.push(message);
  const logger: Log = { debug: write, info: write, warn: write, error: write };
  try {
    await using upgrades = new Upgrades({
      role: "serve",
      log: logger,
      environment: () => ({ EXTRA: "extra" }),
      sockets: () => [],
      handOver: ({ version }) => {
        assert.ok(version !== "");
        calls.push("handOver");
        return Promise.resolve({ managerAddress: null, numInstances: 2 });
      },
      takeBack: () => {
        calls.push("takeBack");
        return Promise.resolve();
      },
      onReplaced: () => calls.push("replaced"),
      status: () => ({ instances: [], rollout: null }),
      argv: ["serve", "--port", "1"],
      ...config,
    });
    await upgrades.noteServing();
    const order = async (body: string) => {
      const binary = writeProgram(directory, `${accepts}\n${body}`);
      if (call !== undefined) return (await call({ binary })).data;
      const peer = await openBus().connect(controlAddress(Deno.pid), {});
      try {
        return (await peer.call("upgrade", { data: { binary } }, { timeoutMs: 60_000 })).data;
      } finally {
        await peer.close();
      }
    };
    await body({ upgrades, directory, calls, log, order });
  } finally {
    if (before === undefined) Deno.env.delete("XDG_RUNTIME_DIR");
    else Deno.env.set("XDG_RUNTIME_DIR", before);
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test({
  name: "upgrade: a successor that fails says why, and nothing is given to it",
  ignore,
  fn: () =>
    withUpgrades(async ({ order, calls }) => {
      await assert.rejects(order('echo "the model is gone"; exit 2'), {
        kind: "conflict",
        message: /could not take over: the model is gone$/,
      });
      await assert.rejects(order("exit 3"), {
        message: /could not take over: it ended with code 3 before it served; the log of this/,
      });
      await assert.rejects(order("kill -SEGV $$"), { message: /it ended with SIGSEGV before/ });
      assert.deepEqual(calls, []);
    }),
});

Deno.test({
  name: "upgrade: a successor gets the arguments, the variables and the address of its predecessor",
  ignore,
  fn: () =>
    withUpgrades(async ({ order, directory }) => {
      const seen = `${directory}/seen`;
      await assert.rejects(order(`echo "$*|$EXTRA|$LLUMNIX_SUCCESSION" > ${seen}; exit 1`));
      const [argv, extra, succession] = Deno.readTextFileSync(seen).trim().split("|");
      assert.deepEqual([argv, extra], ["serve --port 1", "extra"]);
      assert.deepEqual(JSON.parse(succession), {
        predecessor: controlAddress(Deno.pid),
        sockets: [],
      });
    }),
});

Deno.test({
  name: "upgrade: nobody but the successor can take over, and not before one starts",
  ignore,
  fn: () =>
    withUpgrades(async ({ calls }) => {
      const peer = await openBus().connect(controlAddress(Deno.pid), {});
      for (const method of ["take_over", "taken_over"] as const) {
        const data = method === "take_over" ? { version: "9.9.9" } : null;
        await assert.rejects(
          peer.call(method, { data } as never),
          /is not the successor of process/,
        );
      }
      await peer.close();
      assert.deepEqual(calls, []);
    }),
});

Deno.test({
  name: "upgrade: one that hangs is killed, and what it took is taken back",
  ignore,
  async fn() {
    const clock = new VirtualClock();
    await withUpgrades(async ({ order, calls, log }) => {
      const refused = assert.rejects(order("exec sleep 600"), {
        message: /could not take over: it did not serve within 120 s$/,
      });
      await until(() => log.some((it) => /starts as successor/.test(it)), "a successor starts");
      await assert.rejects(order("exit"), { message: "a successor is starting already" });
      assert.ok(await clock.runUntil(() => clock.nowMs() >= 120_000));
      await refused;
      assert.deepEqual(calls, []);
    }, { clock });
  },
});

/** Shell words that become the successor of `_successor.ts`. */
function successor(mode: "serve" | "die" | "hang" | "skip" | "insist"): string {
  const path = (name: string) => new URL(name, import.meta.url).pathname;
  const config = path("../../../deno.json");
  return `exec ${Deno.execPath()} run -A --config ${config} ${path("_successor.ts")} ${mode}`;
}

Deno.test({
  name:
    "upgrade: what a successor took is taken back if it dies before it serves; the next one may try",
  ignore,
  fn: () =>
    withUpgrades(async ({ order, calls, upgrades }) => {
      await assert.rejects(order(successor("die")), {
        message: /could not take over: the port is gone$/,
      });
      assert.deepEqual(calls.splice(0), ["handOver", "takeBack"]);
      const { pid } = await order(successor("serve"));
      assert.ok(pid > 0 && pid !== Deno.pid);
      assert.deepEqual(calls, ["handOver", "replaced"]);
      assert.equal(await upgrades.finish, 1234); // the successor is stopping
      Deno.kill(pid, "SIGKILL");
      await until(() => !isAlive(pid), `process ${pid} has ended`);
      upgrades.stopSuccessor(); // has nothing to do
      await assert.rejects(order("exit"), { message: "this process has a successor already" });
    }),
});

Deno.test({
  name: "upgrade: a successor that has not taken over cannot say that it has",
  ignore,
  fn: () =>
    withUpgrades(async ({ order, calls }) => {
      await assert.rejects(order(successor("skip")), {
        message: /could not take over: .*a successor calls take_over first/,
      });
      assert.deepEqual(calls, []);
    }),
});

Deno.test({
  name: "upgrade: a successor to which nothing could be handed over has not taken over",
  ignore,
  fn: async () => {
    const calls: string[] = [];
    const config: Partial<UpgradesConfig> = {
      handOver: () => Promise.reject(new UnavailableError("the instances stay")),
      takeBack: () => Promise.resolve(void calls.push("takeBack")),
      onReplaced: () => calls.push("replaced"),
    };
    await withUpgrades(async ({ order }) => {
      await assert.rejects(order(successor("insist")), {
        message: /could not take over: .*the instances stay/,
      });
    }, config);
    assert.deepEqual(calls, ["takeBack"]);
  },
});

Deno.test({
  name: "upgrade: a process of which the system does not say the pid is no successor",
  ignore,
  fn: async () => {
    let service: Service | null = null;
    const bus = {
      listen: (_: string, given: Service) => {
        service = given;
        return Promise.resolve({ address: "unix:/x", close: () => Promise.resolve() });
      },
    } as unknown as Bus;
    await withUpgrades(
      async ({ calls, log, order, upgrades }) => {
        const refused = assert.rejects(order("exec sleep 600"), /SIGKILL/);
        await until(() => log.some((it) => /starts as successor/.test(it)), "a successor starts");
        const takeOver = service!.calls!.take_over!;
        const message = { data: { version: "9.9.9" } };
        await assert.rejects(
          async () => await takeOver(message, { pid: null } as Peer),
          /^ConflictError: a process of which the system does not say the pid is not the successor/,
        );
        assert.deepEqual(calls, []);
        await upgrades.cancel();
        await refused;
      },
      { bus },
      (order) => service!.calls!.upgrade!({ data: order }, {} as Peer),
    );
  },
});

Deno.test({
  name: "upgrade: a process that stops ends the successor that starts, and takes back what it gave",
  ignore,
  fn: async () => {
    const cases: [body: string, isDue: (world: World) => boolean, calls: string[]][] = [
      ["exec sleep 600", ({ log }) => log.some((line) => /starts as successor/.test(line)), []],
      [successor("hang"), ({ calls }) => calls.includes("handOver"), ["handOver", "takeBack"]],
    ];
    for (const [body, isDue, expected] of cases) {
      await withUpgrades(async (world) => {
        const refused = assert.rejects(world.order(body), { message: /it ended with SIGKILL/ });
        await until(() => isDue(world), `the successor of "${body}" is as far`);
        assert.equal(await world.upgrades.cancel(), false);
        await refused;
        assert.deepEqual(world.calls, expected);
        await assert.rejects(world.order("exit"), { message: "this process is stopping" });
      });
    }
  },
});

Deno.test({
  name: "upgrade: the sockets of processes that were killed are removed",
  ignore,
  fn: () =>
    withUpgrades(async ({ directory }) => {
      const dead = `${directory}/llumnix/control-1.sock`;
      Deno.listen({ transport: "unix", path: dead }).close();
      const env = { get: (name: string) => name === "XDG_RUNTIME_DIR" ? directory : undefined };
      if (!exists(dead)) Deno.writeTextFileSync(dead, ""); // Deno removes the file with its listener
      assert.deepEqual(controlSockets(env).map(({ pid }) => pid), [1, Deno.pid]);
      await prepareControlDirectory();
      assert.deepEqual(controlSockets(env).map(({ pid }) => pid), [Deno.pid]);
    }),
});

function isAlive(pid: number): boolean {
  return exists(`/proc/${pid}`);
}

function exists(path: string): boolean {
  try {
    return Deno.lstatSync(path) !== null;
  } catch {
    return false;
  }
}
