import assert from "node:assert/strict";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { everyGroup } from "../../src/cli/arguments/role_tables.ts";
import { instanceGroups, type InstanceOptions } from "../../src/cli/arguments/tables.ts";
import { main } from "../../src/cli/main.ts";
import { readInstanceOptions } from "../../src/cli/role_options.ts";

const shared = `
SERVER: {HOST: 0.0.0.0, PORT: 1234, LAUNCH_RAY_CLUSTER: true, LOG_LEVEL: warning}
MANAGER:
  INITIAL_INSTANCES: 3
  LOG_FILENAME: manager.log
  ENABLE_PD_DISAGG: true
  NUM_DISPATCH_INSTANCES: 1
  MANAGER_ADDRESS: "tcp:host:7"
ENGINE: {BLOCK_SIZE: 32, MODEL: m}
`;

async function withFile(text: string, body: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".yml" });
  try {
    await Deno.writeTextFile(path, text);
    await body(path);
  } finally {
    await Deno.remove(path);
  }
}

async function capture(method: "log" | "error", body: () => Promise<unknown>): Promise<string[]> {
  const original = console[method];
  const lines: string[] = [];
  console[method] = (text: string) => void lines.push(text);
  try {
    await body();
    return lines;
  } finally {
    console[method] = original;
  }
}

Deno.test("an instance takes the service's file and ignores the keys of other roles", () =>
  withFile(shared, async (path) => {
    const [index, whole] = [instanceGroups, everyGroup].map((groups) => new ArgumentIndex(groups));
    let options: InstanceOptions | undefined;
    const notices = await capture("error", async () => {
      options = await readInstanceOptions<InstanceOptions>(["--config-file", path], index, whole);
    });
    assert.deepEqual(notices, []);
    assert.equal(options!.model, "m");
    assert.equal(options!.blockSize, 32);
    assert.equal(options!.managerAddress, "tcp:host:7");
    assert.equal(options!.enableMigration, true, "as the other roles understand the file");
    assert.equal(options!.host, null, "nor listens where the API server listens for HTTP");
    assert.equal(options!.logFilename, null, "an instance does not write to the manager's file");
  }));

Deno.test("an instance refuses a key that no role has", () =>
  withFile("ENGINE: {BLOK_SIZE: 32}", async (path) => {
    const [index, whole] = [instanceGroups, everyGroup].map((groups) => new ArgumentIndex(groups));
    await assert.rejects(readInstanceOptions(["--config-file", path], index, whole), {
      message: `${path}: unknown key ENGINE.BLOK_SIZE; did you mean ENGINE.BLOCK_SIZE?`,
    });
  }));

for (const role of ["api-server", "manager"]) {
  Deno.test(`${role} takes the service's file`, () =>
    withFile(shared, async (path) => {
      const lines = await capture("log", async () => {
        assert.equal(await main([role, "--config-file", path, "--print-config"]), 0);
      });
      assert.match(lines.join("\n"), /^--block-size +32 /m);
    }));
}
