/** The manager and instances as real processes. */
import assert from "node:assert/strict";
import { openBus } from "../../src/bus/open_bus.ts";
import { realClock } from "../../src/core/clock.ts";
import { UsageError } from "../../src/core/errors.ts";
import { HostProcess } from "../../src/core/host_process.ts";
import type { EngineOptions } from "../../src/core/options.ts";
import type { RequestOutput } from "../../src/core/protocol/generate.ts";
import { ClusterClient } from "../../src/client/cluster_client.ts";
import { Manager } from "../../src/manager/manager.ts";
import type { ManagerEvent } from "../../src/manager/manager_event.ts";
import { ProcessLauncher } from "../../src/roles/process_launcher.ts";
import { makeRuntimeDirectory } from "../../src/roles/runtime_directory.ts";
import { rejection, until } from "../conformance/bus.ts";
import { generateRequest, managerOptions } from "./support.ts";

const program = import.meta.resolve("./fixtures/cluster_process.ts");
const command = [Deno.execPath(), "run", "-A", program];

interface World {
  readonly manager: Manager;
  readonly managerAddress: string;
  readonly events: ManagerEvent[];
  readonly directory: string;
}

async function withManager(
  options: Partial<EngineOptions>,
  body: (world: World) => Promise<void>,
): Promise<void> {
  const directory = makeRuntimeDirectory();
  const managerAddress = `unix:${directory.path}/manager.sock`;
  const events: ManagerEvent[] = [];
  const engineArgv = ["--options", JSON.stringify(options)];
  const manager = await Manager.listen({
    bus: openBus(),
    addresses: [managerAddress],
    options: managerOptions,
    launcher: new ProcessLauncher({ hostShare: 2, engineArgv, command }),
    clock: realClock,
    onEvent: (event) => events.push(event),
  });
  try {
    await body({ manager, managerAddress, events, directory: directory.path });
  } finally {
    await manager.stop();
    directory.remove();
  }
}

function isRunning(pid: number): boolean {
  try {
    // A process that ended but was not waited for yet is state Z.
    return !/^\d+ \(.*\) Z/.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return false;
  }
}

function socketsIn(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test("processes: two instances serve side by side; one is killed, the other goes on", () =>
  withManager({ maxModelLen: 100_000, maxNumBatchedTokens: 100_000 }, async (world) => {
    const { manager, managerAddress, events, directory } = world;
    await manager.startInstances();
    const instances = manager.instances();
    assert.deepEqual(socketsIn(directory), [
      "instance-0.sock",
      "instance-1.sock",
      "manager.sock",
    ]);
    const bus = openBus();
    const frontendId = "frontend";
    const resumed: string[] = [];
    const client = await ClusterClient.connect({
      bus,
      managerAddress,
      frontendId,
      clock: realClock,
      onResume: (_, reason) => resumed.push(reason),
    });
    const submit = async (requestId: string, maxTokens: number): Promise<RequestOutput[]> => {
      const outputs: RequestOutput[] = [];
      const request = generateRequest(requestId);
      const params = { ...request.params, maxTokens };
      await client.submit({ ...request, params }, (output) => outputs.push(output));
      return outputs;
    };
    const hasEnded = (outputs: RequestOutput[]) => outputs.at(-1)?.finish !== undefined;

    const short = await Promise.all(["a", "b", "c", "d"].map((id) => submit(id, 50)));
    await until(() => short.every(hasEnded));
    for (const outputs of short) {
      assert.equal(outputs.flatMap(({ tokenIds }) => tokenIds).length, 50);
      assert.equal(outputs.at(-1)!.finish!.reason, "length");
    }

    const long = await Promise.all(["e", "f"].map((id) => submit(id, 90_000)));
    await until(() => long.every((outputs) => outputs.length > 0));
    Deno.kill(instances[1].pid, "SIGINT"); // is for the manager to decide
    Deno.kill(instances[0].pid, "SIGKILL");
    await until(() => resumed.length > 0);
    assert.equal(resumed.length, 1);
    assert.match(resumed[0], /instance-0 was lost/);
    const after = await Promise.all(["g", "h"].map((id) => submit(id, 5)));
    await until(() => after.every(hasEnded));
    await until(() => events.some(({ type }) => type === "lost"));
    const event = events.find((event) => event.type === "lost")!;
    assert.equal(event.reason, "instance-0 was ended by SIGKILL");

    const lengths = long.map((outputs) => outputs.length);
    await until(() => long.every((outputs, i) => outputs.length > lengths[i]));
    for (const outputs of long) {
      outputs.reduce((next, { index, tokenIds }) => {
        assert.equal(index, next);
        return next + tokenIds.length;
      }, 0);
    }

    await client.close();
    for (const outputs of long) assert.equal(outputs.at(-1)!.finish!.error!.kind, "unavailable");
    await manager.stop();
    assert.ok(instances.every(({ pid }) => !isRunning(pid)));
    assert.deepEqual(socketsIn(directory), ["instance-0.sock"], "only the killed one left its own");
  }));

Deno.test("processes: what an instance cannot do reaches the parent as one message", () =>
  withManager({ numGpuBlocksOverride: 0 }, async ({ manager }) => {
    const error = await rejection(manager.startInstances());
    assert.ok(error instanceof UsageError);
    assert.match(
      error.message,
      /^instance-\d could not start: --num-gpu-blocks-override is 0, expected 1 or more$/,
    );
  }));

Deno.test("processes: a program that cannot be started is an error, not a wait", async () => {
  const launcher = new ProcessLauncher({
    hostShare: 1,
    engineArgv: [],
    command: ["/nonexistent/llumnix"],
  });
  await assert.rejects(
    launcher.launch({
      instanceId: "instance-0",
      managerAddress: "inproc:manager",
      numBlocks: null,
      startedBy: "manager",
    }),
  );
});

/** A process that listens at an instance's socket, and hangs. */
async function withHungInstance(
  body: (args: {
    readonly pid: number;
    readonly address: string;
    readonly status: Promise<Deno.CommandStatus>;
  }) => Promise<void>,
): Promise<void> {
  const directory = Deno.makeTempDirSync();
  const code = `Deno.listen({ transport: "unix", path: "${directory}/instance-7.sock" });` +
    `Deno.kill(Deno.pid, "SIGSTOP");`;
  const instance = new Deno.Command(Deno.execPath(), { args: ["eval", code], stdin: "null" })
    .spawn();
  const { pid, status } = instance;
  const stat = () => Deno.readTextFileSync(`/proc/${pid}/stat`);
  await until(() => / T /.test(stat()));
  try {
    await body({ pid, address: `unix:${directory}/manager.sock`, status });
  } finally {
    if (isRunning(pid)) instance.kill("SIGKILL");
    await status;
    Deno.removeSync(directory, { recursive: true });
  }
}

Deno.test("processes: the one that listens at an instance's socket is killed, and no other", () =>
  withHungInstance(async ({ address, status }) => {
    const launcher = new ProcessLauncher({ hostShare: 1, engineArgv: [] });
    assert.equal(
      await launcher.killOrphan("instance-7", `${address.slice(0, -13)}2/manager.sock`),
      false,
    );
    assert.equal(await launcher.killOrphan("instance-8", address), false);
    assert.equal(await launcher.killOrphan("instance-7", address), true);
    assert.equal((await status).signal, "SIGKILL");
    assert.equal(await launcher.killOrphan("instance-7", address), false);
  }));

Deno.test("processes: one whose command line names an instance is not killed for that", async () => {
  const address = `unix:/${crypto.randomUUID()}/manager.sock`;
  const args = ["-c", "sleep 20; :", "instance-7", address];
  const bystander = new Deno.Command("sh", { args, stdin: "null" }).spawn();
  const launcher = new ProcessLauncher({ hostShare: 1, engineArgv: [] });
  await until(() => isRunning(bystander.pid));
  assert.equal(await launcher.killOrphan("instance-7", address), false);
  assert.ok(isRunning(bystander.pid));
  bystander.kill("SIGKILL");
  await bystander.status;
});

Deno.test("processes: one that cannot be killed is no error of the manager's", () =>
  withHungInstance(async ({ pid, address }) => {
    const launcher = new ProcessLauncher({ hostShare: 1, engineArgv: [] });
    const processStart = HostProcess.startOf(pid);
    const process = { instanceId: "instance-7", pid, processStart };
    assert.equal(launcher.adopt({ ...process, pid: 1 }, pid), null, "it says that it is another");
    assert.equal(launcher.adopt(process, null), null, "nobody knows which process it is");
    assert.equal(launcher.adopt(process, 1), null, "another process has connected");
    assert.equal(launcher.adopt({ ...process, processStart: undefined }, pid), null);
    const own = { pid: Deno.pid, processStart: HostProcess.startOf(Deno.pid) };
    assert.equal(launcher.adopt({ ...process, ...own }, Deno.pid), null, "never this process");
    const adopted = launcher.adopt(process, pid)!;
    const { kill } = Deno;
    try {
      for (const error of [Deno.errors.PermissionDenied, Deno.errors.NotFound]) {
        Deno.kill = () => { // it is another user's, or has just ended
          throw new error("not killed");
        };
        assert.equal(await launcher.killOrphan("instance-7", address), false);
        adopted.stop("SIGKILL");
      }
    } finally {
      Deno.kill = kill;
    }
    assert.ok(isRunning(pid));
  }));

const orphans = { serving: [], "still starting": ["--never-loads"] };
for (const [state, engineArgv] of Object.entries(orphans)) {
  Deno.test(`processes: ${state} instances of a parent that was killed end and clean up`, async () => {
    const parent = new Deno.Command(command[0], {
      args: [...command.slice(1), "serve", ...engineArgv],
      stdin: "null",
      stdout: "piped",
    }).spawn();
    let text = "";
    for await (const chunk of parent.stdout.pipeThrough(new TextDecoderStream())) {
      text += chunk;
      if (text.includes("\n")) break;
    }
    const { directory, pids } = JSON.parse(text) as { directory: string; pids: number[] };
    assert.equal(pids.filter(isRunning).length, 2);
    parent.kill("SIGKILL");
    await parent.status;
    await until(() => !pids.some(isRunning));
    assert.throws(() => Deno.statSync(directory), Deno.errors.NotFound);
  });
}
