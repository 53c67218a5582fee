import assert from "node:assert/strict";
import { join } from "node:path";
import { ArgumentIndex } from "../../src/cli/arguments/index.ts";
import { serveGroups } from "../../src/cli/arguments/tables.ts";
import { type ConfigFile, readConfigFile } from "../../src/cli/config_file.ts";

const index = new ArgumentIndex(serveGroups);

/** Runs `body` in a folder that holds these files. */
async function withFiles(
  files: Record<string, string>,
  body: (folder: string) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    for (const [name, text] of Object.entries(files)) {
      await Deno.mkdir(join(folder, name, ".."), { recursive: true });
      await Deno.writeTextFile(join(folder, name), text);
    }
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function values(file: ConfigFile): Record<string, unknown> {
  return Object.fromEntries([...file].map(([name, { value }]) => [name, value]));
}

/** Asserts the message for one file; FILE stands for its path. */
function refuses(name: string, text: string, message: string): void {
  Deno.test(`config file: ${name}`, () =>
    withFiles({ "a.yml": text }, async (folder) => {
      const path = join(folder, "a.yml");
      await assert.rejects(readConfigFile(path, index), {
        name: "UsageError",
        message: message.replaceAll("FILE", path),
      });
    }));
}

Deno.test("config file: a file written for Llumnix loads", () => {
  const text = `
SERVER:
  HOST: '127.0.0.1'
  PORT: 1234
  REQUEST_OUTPUT_QUEUE_TYPE: "rayqueue"
  REQUEST_OUTPUT_QUEUE_PORT: 1235
  RAY_CLUSTER_PORT: 6379
  LAUNCH_RAY_CLUSTER: True
  SSL_KEYFILE: null

MANAGER:
  NUM_DISPATCH_INSTANCES: .inf
  DISABLE_FIXED_NODE_INIT_INSTANCE: False
  INITIAL_INSTANCES: 2
  POLLING_INTERVAL: 0.05
  ENABLE_MIGRATION: yes
  ENABLE_DEFRAG: True
  LOAD_METRIC: 'remaining_steps'
  MIGRATION_BACKEND_TRANSFER_TYPE: ""
`;
  return withFiles({ "vllm.yml": text }, async (folder) => {
    const path = join(folder, "vllm.yml");
    const file = await readConfigFile(path, index);
    assert.deepEqual(values(file), {
      "host": "127.0.0.1",
      "port": 1234,
      "request-output-queue-type": "rayqueue",
      "request-output-queue-port": 1235,
      "ray-cluster-port": 6379,
      "launch-ray-cluster": true,
      "ssl-keyfile": null,
      "num-dispatch-instances": null,
      "disable-fixed-node-init-instance": false,
      "initial-instances": 2,
      "polling-interval": 0.05,
      "enable-migration": true,
      "enable-defrag": true,
      "load-metric": "remaining_steps",
      "migration-backend-transfer-type": "",
    });
  });
});

Deno.test("config file: engine arguments, by any of their names", () => {
  const text = "ENGINE: {MODEL: /m, SERVED_MODEL_NAME: [a, b], BLOCK_SIZE: 32, " +
    "MAX_CONTEXT_LEN_TO_CAPTURE: 4096, CPU_THREADS: 2}\nSERVER: {MAX_BODY_BYTES: 1MiB}\n";
  return withFiles({ "a.yml": text }, async (folder) => {
    assert.deepEqual(values(await readConfigFile(join(folder, "a.yml"), index)), {
      "model": "/m",
      "served-model-name": ["a", "b"],
      "block-size": 32,
      "max-seq-len-to-capture": 4096,
      "cpu-threads": 2,
      "max-body-bytes": 1048576,
    });
  });
});

Deno.test("config file: a file wins over its base, key by key; paths are relative to the file", () => {
  const files = {
    "top.yml": "_BASE_: sub/middle.yml\nSERVER: {PORT: 1}\n",
    "sub/middle.yml": "_BASE_: ../bottom.yml\nSERVER: {PORT: 2, HOST: b}\n",
    "bottom.yml": "SERVER: {PORT: 3, HOST: c}\nMANAGER: {INITIAL_INSTANCES: 4}\n",
  };
  return withFiles(files, async (folder) => {
    const settings = await readConfigFile(join(folder, "top.yml"), index);
    const entry = (name: string) => [settings.get(name)!.value, settings.get(name)!.path];
    assert.deepEqual(entry("port"), [1, join(folder, "top.yml")]);
    assert.deepEqual(entry("host"), ["b", join(folder, "sub/middle.yml")]);
    assert.deepEqual(entry("initial-instances"), [4, join(folder, "bottom.yml")]);
    assert.equal(settings.get("host")!.key, "SERVER.HOST");
  });
});

Deno.test("config file: ~ in _BASE_ is the home directory", () =>
  withFiles(
    { "home/base.yml": "SERVER: {PORT: 5}", "a.yml": "_BASE_: ~/base.yml" },
    async (folder) => {
      const home = Deno.env.get("HOME");
      Deno.env.set("HOME", join(folder, "home"));
      try {
        const file = await readConfigFile(join(folder, "a.yml"), index);
        assert.equal(file.get("port")!.path, join(folder, "home/base.yml"));
      } finally {
        if (home === undefined) Deno.env.delete("HOME");
        else Deno.env.set("HOME", home);
      }
    },
  ));

Deno.test("config file: loops of bases are found", () =>
  withFiles({ "a.yml": "_BASE_: b.yml", "b.yml": "_BASE_: ./sub/../a.yml" }, async (folder) => {
    const [a, b] = [join(folder, "a.yml"), join(folder, "b.yml")];
    await assert.rejects(readConfigFile(a, index), {
      message: `${a}: files inherit from each other in a loop: ${a} -> ${b} -> ${a}`,
    });
  }));

Deno.test("config file: a missing file, and a missing base", () =>
  withFiles({ "a.yml": "_BASE_: gone.yml" }, async (folder) => {
    const [a, gone] = [join(folder, "a.yml"), join(folder, "gone.yml")];
    await assert.rejects(readConfigFile(gone, index), {
      name: "UsageError",
      message: `cannot read config file ${gone}: no such file or directory`,
    });
    await assert.rejects(readConfigFile(a, index), {
      message: `cannot read config file ${gone} (_BASE_ of ${a}): no such file or directory`,
    });
  }));

Deno.test("config file: empty files and empty sections say nothing", async () => {
  for (const text of ["", "# only a comment\n", "SERVER:\n", "_BASE_:\n"]) {
    await withFiles({ "a.yml": text }, async (folder) => {
      const file = await readConfigFile(join(folder, "a.yml"), index);
      assert.equal(file.size, 0);
    });
  }
});

refuses(
  "an unknown key",
  "MANAGER: {LOAD_METRICS: usage_ratio}",
  "FILE: unknown key MANAGER.LOAD_METRICS; did you mean MANAGER.LOAD_METRIC?",
);
refuses(
  "a key in the wrong section",
  "SERVER: {INITIAL_INSTANCES: 2}",
  "FILE: unknown key SERVER.INITIAL_INSTANCES; did you mean MANAGER.INITIAL_INSTANCES?",
);
refuses(
  "an unknown section",
  "MANGER: {INITIAL_INSTANCES: 2}",
  "FILE: unknown section MANGER; expected SERVER, MANAGER, ENGINE; did you mean MANAGER?",
);
refuses(
  "a key of the command line alone",
  "SERVER: {PRINT_CONFIG: true}",
  "FILE: unknown key SERVER.PRINT_CONFIG",
);
refuses(
  "a key like a built-in property",
  "SERVER: {__proto__: 1}",
  "FILE: unknown key SERVER.__proto__",
);
refuses(
  "a value out of range",
  "SERVER: {PORT: 70000}",
  "SERVER.PORT: 70000 in FILE: expected an integer from 0 to 65535",
);
refuses(
  "a key without a value",
  "SERVER:\n  PORT:\n",
  "SERVER.PORT: null in FILE: expected an integer from 0 to 65535",
);
refuses(
  "a number for a text",
  "ENGINE: {REVISION: 0123}",
  "ENGINE.REVISION: 123 in FILE: expected text: put it in quotes",
);
refuses("a list at the top", "- a", "FILE: expected the sections SERVER, MANAGER, ENGINE");
refuses(
  "a section without keys",
  "SERVER: 8000",
  "FILE: section SERVER must hold keys, such as PORT: 8000",
);
refuses("a base that is no name", "_BASE_: [a]", "FILE: _BASE_ must name a file, not a");

Deno.test("config file: broken YAML names file and line", () =>
  withFiles({ "a.yml": "SERVER:\n  HOST: a\n  HOST: b\n" }, async (folder) => {
    await assert.rejects(readConfigFile(join(folder, "a.yml"), index), {
      name: "UsageError",
      message: /a\.yml, line 3: not valid YAML: duplicated mapping key$/,
    });
  }));
