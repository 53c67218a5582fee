import assert from "node:assert/strict";
import { PreparedInstance, prepareInstance } from "../../src/roles/prepared_instance.ts";
import { ProcessLauncher } from "../../src/roles/process_launcher.ts";
import { engineOptions } from "../instance/support.ts";

const ignore = Deno.build.os === "windows";

/** A program that writes down its arguments and its input. */
async function withProgram(use: (command: string[], file: string) => Promise<void>): Promise<void> {
  const file = await Deno.makeTempFile();
  try {
    await use(["sh", "-c", `input=$(cat); echo "$0 $* <$input>" >>${file}`], file);
  } finally {
    await Deno.remove(file);
  }
}

const request = {
  instanceId: "instance-0",
  managerAddress: "unix:/m",
  numBlocks: null,
  startedBy: "manager",
} as const;
const words = ["--instance-id", "instance-0", "--manager-address", "unix:/m"];
const all = [...words, "--started-by", "manager", "--host-share", "1"];

Deno.test(
  { name: "prepared instance: becomes the first instance, and no other", ignore },
  () =>
    withProgram(async (command, file) => {
      const prepared = new PreparedInstance(command);
      const launcher = new ProcessLauncher({ command, prepared, hostShare: 1, engineArgv: [] });
      const launched = [await launcher.launch(request), await launcher.launch(request)];
      for (const { exited } of launched) assert.deepEqual(await exited, { code: 0, signal: null });
      assert.notEqual(launched[0].pid, launched[1].pid);
      const lines = (await Deno.readTextFile(file)).trim().split("\n").sort();
      assert.deepEqual(
        lines,
        [
          `instance ${all.join(" ")} <>`,
          `instance --arguments-from-stdin <${JSON.stringify(all)}>`,
        ].sort(),
      );
    }),
);

Deno.test(
  { name: "prepared instance: is told to end when it is not needed", ignore },
  () =>
    withProgram(async (command, file) => {
      const prepared = new PreparedInstance(command);
      prepared.close();
      prepared.close();
      assert.equal(prepared.take(["--seed=1"]), null);
      for (let text = ""; text === ""; text = await Deno.readTextFile(file)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      assert.equal(await Deno.readTextFile(file), "instance --arguments-from-stdin <>\n");
    }),
);

Deno.test("prepared instance: one that does not start is not taken", async () => {
  const prepared = new PreparedInstance(["/nonexistent"]);
  await new Promise((resolve) => setTimeout(resolve));
  assert.equal(prepared.take([]), null);
});

Deno.test("prepared instance: none where it would inherit what is not for instances", () => {
  const options = {
    ...engineOptions({ device: "cpu" }),
    instanceIsolation: "auto",
    initialInstances: 1,
  } as Parameters<typeof prepareInstance>[0];
  assert.equal(prepareInstance({ ...options, initialInstances: 0 }), undefined);
  assert.equal(prepareInstance({ ...options, device: "sim" }), undefined);
  assert.equal(prepareInstance({ ...options, instanceIsolation: "none" }), undefined);
  for (const name of ["LISTEN_FDS", "NOTIFY_SOCKET", "WATCHDOG_USEC", "LLUMNIX_SUCCESSION"]) {
    Deno.env.set(name, "1");
    try {
      assert.equal(prepareInstance(options), undefined, name);
    } finally {
      Deno.env.delete(name);
    }
  }
});
