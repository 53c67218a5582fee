import assert from "node:assert/strict";
import { join } from "node:path";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { serveGroups, type ServeOptions } from "../../src/cli/arguments/tables.ts";
import { configTable } from "../../src/cli/print_config.ts";
import { readSettings, toOptions } from "../../src/cli/settings.ts";

const index = new ArgumentIndex(serveGroups);

async function withConfig(text: string, body: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, "a.yml"), text);
    await body(join(folder, "a.yml"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("command line over file over default, each with its source", () =>
  withConfig("SERVER: {HOST: file, PORT: 1}\nMANAGER: {ENABLE_SCALING: true}\n", async (path) => {
    const argv = ["--config-file", path, "--port=2", "--enable-scaling=false"];
    const settings = await readSettings(argv, index);
    const commandLine = { kind: "command line" };
    assert.deepEqual(settings.get("port"), { value: 2, source: commandLine });
    assert.deepEqual(settings.get("enable-scaling"), { value: false, source: commandLine });
    const source = { kind: "file", path, key: "SERVER.HOST" };
    assert.deepEqual(settings.get("host"), { value: "file", source });
    assert.deepEqual(settings.get("seed"), { value: 0, source: { kind: "default" } });
  }));

Deno.test("a value equal to the default still comes from where it is written", async () => {
  const settings = await readSettings(["--seed=0"], index);
  assert.deepEqual(settings.get("seed"), { value: 0, source: { kind: "command line" } });
});

Deno.test("unset thresholds are fractions with usage_ratio, and steps without", async () => {
  const thresholds = async (...argv: string[]) => {
    const options = toOptions<ServeOptions>(await readSettings(argv, index));
    return [options.migrateOutThreshold, options.scaleUpThreshold, options.scaleDownThreshold];
  };
  assert.deepEqual(await thresholds(), [3, 10, 60]);
  assert.deepEqual(await thresholds("--load-metric=usage_ratio"), [0.85, 0.85, 0.3]);
  const set = await thresholds("--load-metric=usage_ratio", "--scale-up-threshold=0.5");
  assert.deepEqual(set, [0.85, 0.5, 0.3]);
});

Deno.test("a profile implies the simulated device, unless another is named", async () => {
  const device = async (...argv: string[]) =>
    toOptions<ServeOptions>(await readSettings(argv, index)).device;
  assert.equal(await device(), "auto");
  assert.equal(await device("--profiling-result-file-path=p.json"), "sim");
  assert.equal(await device("--profiling-result-file-path=p.json", "--device=cpu"), "cpu");
});

Deno.test("disaggregation implies migration", async () => {
  const migration = async (...argv: string[]) =>
    toOptions<ServeOptions>(await readSettings(argv, index)).enableMigration;
  assert.equal(await migration(), false);
  assert.equal(await migration("--enable-pd-disagg"), true);
  assert.equal(await migration("--enable-pd-disagg=false", "--enable-migration"), true);
});

Deno.test("options have the properties that the rest of the program reads", async () => {
  const options = toOptions<ServeOptions>(await readSettings([], index));
  assert.equal(options.model, null);
  assert.equal(options.maxBodyBytes, 4194304);
  assert.equal(options.maxQueuedRequests, 1024);
  assert.equal(options.shutdownTimeout, 30);
  assert.equal(options.dispatchPolicy, "load");
  assert.equal(options.useV2BlockManager, false);
  assert.equal(Object.keys(options).length, index.entries.length);
});

Deno.test("--print-config shows every argument with its value and source", () =>
  withConfig("ENGINE: {SERVED_MODEL_NAME: [a, b]}", async (path) => {
    const settings = await readSettings(["--config-file", path, "--log-filename="], index);
    const lines = configTable(index, settings).split("\n").map((line) => line.split(/  +/));
    assert.deepEqual(lines[0], ["argument", "value", "source"]);
    assert.equal(lines.length, index.entries.length + 1);
    const row = (name: string) => lines.find((line) => line[0] === name)!.slice(1);
    assert.deepEqual(row("--port"), ["8000", "default"]);
    assert.deepEqual(row("--log-filename"), ['""', "command line"]);
    assert.deepEqual(row("--served-model-name"), ["a b", `${path}: ENGINE.SERVED_MODEL_NAME`]);
    assert.deepEqual(row("--max-model-len"), ["from the model's config", "default"]);
    assert.deepEqual(row("--ssl-keyfile"), ["none", "default"]);
  }));
