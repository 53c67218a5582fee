import assert from "node:assert/strict";
import { join } from "node:path";
import { main } from "../../src/cli/main.ts";

interface Shown {
  readonly code: number;
  /** Value and source in force, by argument. */
  readonly config: ReadonlyMap<string, readonly string[]>;
  /** Lines on stderr. */
  readonly notices: readonly string[];
}

/** What `--print-config` shows for a command line. */
async function show(...argv: string[]): Promise<Shown> {
  const { log, error } = console;
  const stdout: string[] = [];
  const notices: string[] = [];
  console.log = (text: string) => void stdout.push(text);
  console.error = (text: string) => void notices.push(text);
  try {
    const code = await main([...argv, "--print-config"]);
    const rows = stdout.join("\n").split("\n").map((line) => line.split(/  +/));
    return { code, config: new Map(rows.map(([name, ...row]) => [name, row])), notices };
  } finally {
    Object.assign(console, { log, error });
  }
}

function value({ config }: Shown, name: string): string {
  return config.get(name)![0];
}

async function withFile(text: string, body: (path: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await Deno.writeTextFile(join(folder, "old.yml"), text);
    await body(join(folder, "old.yml"));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

const llumnixModule = "llumnix.entrypoints.vllm.api_server";

for (const module of [llumnixModule, "vllm.entrypoints.openai.api_server"]) {
  Deno.test(`-m ${module} is serve`, async () => {
    for (const start of [["-m", module], ["-u", "-m", module]]) {
      const shown = await show(...start, "--host", "0.0.0.0", "--port", "37000");
      assert.equal(shown.code, 0);
      assert.equal(value(shown, "--port"), "37000");
      assert.deepEqual(shown.notices, []);
    }
  });
}

Deno.test("a module that has no counterpart is refused by its name", async () => {
  const { code, notices } = await show("-m", "other.module");
  assert.equal(code, 2);
  assert.deepEqual(notices, [
    "llumnix: error: -m other.module: expected llumnix.entrypoints.vllm.api_server, " +
    "vllm.entrypoints.openai.api_server or vllm.entrypoints.api_server; they are llumnix serve",
  ]);
});

Deno.test("the launch command of a benchmark", async () => {
  const argv = "--host 127.0.0.1 --port 37000 --initial-instances 2 --launch-ray-cluster " +
    "--model m --engine-use-ray --worker-use-ray --max-model-len 4096 --trust-remote-code " +
    "--request-output-queue-type zmq --request-output-queue-port 38234 --server-log-level debug";
  const shown = await show("-m", llumnixModule, ...argv.split(" "));
  assert.equal(shown.code, 0);
  assert.equal(value(shown, "--initial-instances"), "2");
  assert.equal(value(shown, "--max-model-len"), "4096");
  assert.deepEqual(shown.notices.map((line) => line.replace(/ has? .*| have .*/, "")), [
    "llumnix serve: warning: --trust-remote-code",
    "llumnix serve: warning: --worker-use-ray, --engine-use-ray, --launch-ray-cluster, " +
    "--request-output-queue-type zmq and --request-output-queue-port 38234",
    "llumnix serve: warning: --server-log-level debug",
  ]);
});

Deno.test("the launch command of an end-to-end test, for each placement", async () => {
  const argv =
    "--initial-instances 1 --log-filename manager --log-instance-info --enable-migration " +
    "--model m --max-model-len 4096 --dispatch-policy load --request-migration-policy SR " +
    "--migration-buffer-blocks 32 --tensor-parallel-size 1 --request-output-queue-port 38234 " +
    "--max-num-batched-tokens 16000";
  const placements = [
    "",
    "--disable-init-instance-by-manager",
    "--disable-fixed-node-init-instance",
  ];
  for (const placement of placements) {
    const backend = placement === "" ? "gloo" : "rayrpc";
    const words = `${argv} --migration-backend ${backend} ${placement}`.trim().split(" ");
    const shown = await show("-m", llumnixModule, ...words);
    assert.equal(shown.code, 0);
    assert.equal(value(shown, "--migration-backend"), backend);
    assert.equal(value(shown, "--pair-migration-policy"), "balanced");
    assert.equal(shown.notices.length, 1, shown.notices.join("\n"));
  }
});

Deno.test("a file with the keys of Llumnix's for vLLM", () =>
  withFile(
    `
SERVER:
  HOST: '127.0.0.1'
  PORT: 1234
  REQUEST_OUTPUT_QUEUE_TYPE: "rayqueue"
  RAY_CLUSTER_PORT: 6379
  LAUNCH_RAY_CLUSTER: True
MANAGER:
  DISABLE_INIT_INSTANCE_BY_MANAGER: False
  INITIAL_INSTANCES: 1
  NUM_DISPATCH_INSTANCES: .inf
  ENABLE_MIGRATION: True
  ENABLE_DEFRAG: True
  MIGRATION_BACKEND: 'gloo'
  MIGRATION_BACKEND_TRANSFER_TYPE: ""
  MIGRATION_BACKEND_SERVER_ADDRESS: "127.0.0.1:50052"
  ENABLE_SCALING: False
`,
    async (path) => {
      const shown = await show("serve", "--config-file", path);
      assert.equal(shown.code, 0);
      assert.equal(value(shown, "--num-dispatch-instances"), "no limit");
      assert.equal(value(shown, "--pair-migration-policy"), "defrag_constrained");
      const keys = shown.notices.map((line) => [...line.matchAll(/[A-Z_]+\.([A-Z_]+):/g)]);
      assert.deepEqual(keys.map((matches) => matches.map((match) => match[1])), [
        ["MIGRATION_BACKEND_TRANSFER_TYPE"],
        ["MIGRATION_BACKEND_SERVER_ADDRESS"],
        ["LAUNCH_RAY_CLUSTER", "RAY_CLUSTER_PORT", "REQUEST_OUTPUT_QUEUE_TYPE"],
      ]);
    },
  ));

Deno.test("a file with the keys of Llumnix's for BladeLLM: a backend without migration is idle", () =>
  withFile(
    `
SERVER:
  RAY_CLUSTER_PORT: 6379
MANAGER:
  DISABLE_INIT_INSTANCE_BY_MANAGER: True
  ENABLE_MIGRATION: False
  ENABLE_DEFRAG: True
  REQUEST_MIGRATION_POLICY: 'SR'
  MIGRATION_BACKEND: 'grpc'
`,
    async (path) => {
      const { code, notices } = await show("serve", "--config-file", path);
      assert.equal(code, 0, notices.join("\n"));
      assert.match(notices[0], /MIGRATION_BACKEND: grpc .* no effect without --enable-migration$/);
    },
  ));

Deno.test("a file with the keys of Llumnix's for BladeLLM, and migration by grpc, starts as it is", () =>
  withFile(
    `
SERVER:
  RAY_CLUSTER_PORT: 6379
  LAUNCH_RAY_CLUSTER: False
  REQUEST_OUTPUT_QUEUE_TYPE: "rayqueue"

MANAGER:
  LOAD_METRIC: 'remaining_steps'
  DISPATCH_POLICY: 'load'
  PAIR_MIGRATION_POLICY: 'defrag_constrained'
  ENABLE_MIGRATION: True
  ENABLE_DEFRAG: True
  REQUEST_MIGRATION_POLICY: 'SR'
  MIGRATION_BACKEND: 'grpc'
  MIGRATION_BACKEND_SERVER_ADDRESS: '127.0.0.1:50051'
  MIGRATION_BUFFER_BLOCKS: 512
  MIGRATION_BACKEND_TRANSFER_TYPE: 'rdma'
  MIGRATION_BACKEND_KVTRANSFER_NAMING_URL: "file:/tmp/llumnix/naming/"
  ENABLE_SCALING: False
  LOG_INSTANCE_INFO: False
`,
    async (path) => {
      for (const role of ["serve", "manager"]) {
        const shown = await show(role, "--config-file", path);
        assert.equal(shown.code, 0, shown.notices.join("\n"));
        assert.equal(value(shown, "--migration-backend"), "grpc");
        assert.equal(value(shown, "--migration-backend-server-address"), "127.0.0.1:50051");
        assert.equal(value(shown, "--migration-buffer-blocks"), "512");
      }
    },
  ));
